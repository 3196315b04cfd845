"""Rounds and what is told of them: figures are medians over rounds, `samples` keeps every round."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from recs.figures import figures_object

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[1]


def significant(value: float, digits: int = 5) -> float:
    """Return a number without the digits that nothing measured here can vouch for."""
    return value if isinstance(value, int) else float(f"{value:.{digits}g}")


class Samples:
    """Values by name, one per round, in the order of the rounds."""

    def __init__(self) -> None:
        self._rounds: dict[str, list[float]] = {}

    def add(self, values: Mapping[str, float]) -> None:
        """Add one round's values."""
        for name, value in values.items():
            self._rounds.setdefault(name, []).append(significant(value))

    def medians(self) -> dict[str, float]:
        """Return the median over the rounds of every name."""
        return {name: significant(median(rounds)) for name, rounds in self._rounds.items()}

    def rounds(self) -> dict[str, list[float]]:
        """Return every round of every name."""
        return {name: list(rounds) for name, rounds in self._rounds.items()}


def in_turn(things: Sequence[T], number: int) -> list[T]:
    """Return the things in the order of a round: each round starts with the next one, so that none is always first."""
    start = number % len(things)
    return [*things[start:], *things[:start]]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed; raises ValueError if empty."""
    if not values:
        raise ValueError("no values, no percentile")
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def shown_path(path: Path) -> str:
    """Return a path as a result may hold it: inside the checkout relative to it, else its folder's name and its own."""
    absolute = path.resolve()
    if absolute.is_relative_to(ROOT):
        return absolute.relative_to(ROOT).as_posix()
    return f"{absolute.parent.name}/{absolute.name}"


def result(
    what: str,
    figures: Mapping[str, float],
    samples: Samples,
    *,
    data: Sequence[Mapping[str, Any]],
    conditions: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the object of a benchmark: medians and what is not taken per round, and the conditions it ran under."""
    content = figures_object(
        f"recs bench {what}", {**samples.medians(), **figures}, data=data, samples=samples.rounds()
    )
    return {**content, "conditions": dict(conditions)}


def told(progress: str) -> None:
    """Tell how far a benchmark has come, on standard error."""
    print(progress, file=sys.stderr, flush=True)


def load_average() -> float:
    """Return the machine's load of the last minute: a result that was taken beside other work says so."""
    return round(os.getloadavg()[0], 2)
