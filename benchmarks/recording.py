"""Stores that note every call, so that the calls of a real request can be made again one by one."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, cast

from recs.bootstrap import Stores


@dataclass(frozen=True, slots=True)
class Call:
    """A store call of a request."""

    name: str
    """Role and method, such as `graph.engagements_of`."""
    method: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]

    def alone(self) -> float:
        """Make the call again and return its milliseconds."""
        arguments = self.arguments
        if self.name == "state.record_shown":
            arguments = (uuid.uuid4().hex, *arguments[1:])  # a second answer, not the same one again
        began = time.perf_counter()
        self.method(*arguments, **self.keywords)
        return (time.perf_counter() - began) * 1000


class _Noting:
    """Stands before a store, or a vector index, and appends each call to a list before it is made."""

    def __init__(self, target: Any, role: str, calls: list[Call]) -> None:
        self._target = target
        self._role = role
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._target, name)
        if not callable(method):
            return method
        if self._role == "vectors" and name == "open":
            # Opening asks no server where the build was opened before; what is asked of the index counts.
            return lambda build, **options: _Noting(method(build, **options), self._role, self._calls)

        def noted(*arguments: Any, **keywords: Any) -> Any:
            self._calls.append(Call(f"{self._role}.{name}", method, arguments, keywords))
            return method(*arguments, **keywords)

        return noted


def noting(stores: Stores) -> tuple[Stores, list[Call]]:
    """Return the same stores behind ones that append their calls to the list, in the order in which they start.

    Noting a call costs about a microsecond; the servers see no difference.
    """
    calls: list[Call] = []
    wrapped = {f.name: _Noting(getattr(stores, f.name), f.name, calls) for f in fields(stores)}
    return Stores(**cast(Any, wrapped)), calls
