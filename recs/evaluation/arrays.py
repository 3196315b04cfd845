"""A split as matrices: rows are training users or test cases, columns campaigns in order of their ids."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recs.evaluation.split import Case, Moment, Split, moment, positives
from recs.model import Action, Campaign


@dataclass(frozen=True, slots=True)
class Arrays:
    """What methods and metrics work on."""

    campaign_ids: tuple[str, ...]
    """Sorted; the columns."""
    user_ids: tuple[str, ...]
    """Everybody in training, sorted; the rows of `taken` and `met`."""
    taken: sparse.csr_array
    """(n_users, n_campaigns), 1 where the user has a positive engagement in training."""
    met: sparse.csr_array
    """(n_users, n_campaigns), number of engagements of any kind in training."""
    categories: sparse.csr_array
    """(n_campaigns, n_categories), 1 where the campaign is of the category."""
    events: tuple[tuple[Moment, int, int], ...]
    """(moment, user, campaign) of each positive engagement in training, from old to new."""
    rows: NDArray[np.intp]
    """(n_cases,): the case's row in `taken` and `met`; -1 for somebody who is not in training, or is taken for such."""
    conversations: NDArray[np.intp]
    """(n_cases,): how many training conversations the case's user has, 0 where the row is -1."""
    before: tuple[Moment | None, ...]
    hinted: sparse.csr_array
    """(n_cases, n_categories), 1 where the case's conversation names the category in one of its fields."""
    targets: sparse.csr_array
    """(n_cases, n_campaigns), 1 for what was held out."""
    had: sparse.csr_array
    """(n_cases, n_campaigns), 1 for what the user took in training: what is new is the rest."""
    askers: NDArray[np.intp]
    """(n_cases,): a number for the case's user; cases of the same user have the same."""

    @property
    def n_cases(self) -> int:
        return len(self.rows)

    @property
    def n_campaigns(self) -> int:
        return len(self.campaign_ids)

    def takers(self) -> NDArray[np.float64]:
        """Return how many training users took each campaign, (n_campaigns,)."""
        return np.asarray(self.taken.sum(axis=0), dtype=np.float64)


def arrays_of(split: Split, campaigns: Sequence[Campaign], actions: Collection[Action]) -> Arrays:
    """Return a split's matrices; engagements with campaigns that are not in `campaigns` are left out."""
    campaign_ids = tuple(sorted(c.campaign_id for c in campaigns))
    column = _places(campaign_ids)
    user_ids = tuple(sorted({s.conversation.user_id for s in split.train}))
    row = _places(user_ids)
    names = _places(sorted({name for c in campaigns for name in c.categories}))
    shape = (len(user_ids), len(campaign_ids))

    events = sorted(
        (moment(stored), row[stored.conversation.user_id], column[campaign_id])
        for stored in split.train
        for campaign_id in positives(stored.conversation, actions)
        if campaign_id in column
    )
    met = _ones(
        (
            (row[s.conversation.user_id], column[e.campaign_id])
            for s in split.train
            for e in s.conversation.engagements
            if e.campaign_id in column
        ),
        shape,
    )
    counts = np.bincount([row[s.conversation.user_id] for s in split.train], minlength=len(user_ids))
    known = np.array([row.get(c.user_id, -1) for c in split.cases], dtype=np.intp)
    # A case with a query stands for somebody of whom no more is known, even where the user has been here before.
    rows = np.where([c.query is None for c in split.cases], known, -1).astype(np.intp)
    taken = _ones(((u, c) for _, u, c in events), shape)
    taken.data[:] = 1.0  # liked and converted on is one
    had = [(i, c) for i, u in enumerate(known.tolist()) if u >= 0 for c in taken[[u]].indices.tolist()]
    width = len(campaign_ids)
    return Arrays(
        campaign_ids=campaign_ids,
        user_ids=user_ids,
        taken=taken,
        met=met,
        categories=_ones(
            ((column[c.campaign_id], names[n]) for c in campaigns for n in set(c.categories)), (width, len(names))
        ),
        events=tuple(events),
        rows=rows,
        conversations=np.where(rows >= 0, counts[rows], 0).astype(np.intp),
        before=tuple(c.before for c in split.cases),
        hinted=_ones(
            _by_case(split.cases, lambda _, c: [names[h] for h in c.hints if h in names]),
            (len(split.cases), len(names)),
        ),
        targets=_ones(
            _by_case(split.cases, lambda _, c: [column[t] for t in c.targets if t in column]), (len(split.cases), width)
        ),
        had=_ones(had, (len(split.cases), width)),
        askers=_numbers([c.user_id for c in split.cases]),
    )


def _by_case(cases: Sequence[Case], columns: Callable[[int, Case], Iterable[int]]) -> list[tuple[int, int]]:
    return [(i, int(c)) for i, case in enumerate(cases) for c in columns(i, case)]


def _places(names: Iterable[str]) -> dict[str, int]:
    return {name: place for place, name in enumerate(names)}


def _numbers(names: Sequence[str]) -> NDArray[np.intp]:
    place = _places(sorted(set(names)))
    return np.array([place[name] for name in names], dtype=np.intp)


def _ones(pairs: Iterable[tuple[int, int]], shape: tuple[int, int]) -> sparse.csr_array:
    """Return a matrix that counts how often each (row, column) is given."""
    given = np.array(list(pairs), dtype=np.intp).reshape(-1, 2)
    matrix = sparse.coo_array((np.ones(len(given)), (given[:, 0], given[:, 1])), shape=shape).tocsr()
    matrix.sort_indices()
    return matrix
