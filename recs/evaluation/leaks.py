"""The check that training does not hold the answer. It trusts no split, not even ours."""

from __future__ import annotations

from collections.abc import Iterable

from recs.errors import LeakError
from recs.evaluation.split import Split, bounds, copy_key, moment, query_of, until
from recs.model import StoredConversation


def check_leaks(train: Iterable[StoredConversation], split: Split) -> None:
    """Raise LeakError where a training part holds, or a query tells, what is asked for.

    `train` is what is really learned from, as it was read back from where it was written: no held-out conversation, no
    copy of its text, nothing of a tested user from the held-out conversation on, nothing of anybody from the cut on,
    no message and no engagement of a later time inside an earlier conversation.
    """
    held_out = {s.conversation.conversation_id for case in split.cases for s in case.held_out}
    told = {
        key: s.conversation.conversation_id
        for case in split.cases
        for s in case.held_out
        if (key := copy_key(s.conversation)) is not None
    }
    limits = bounds(split)
    for stored in train:
        c = stored.conversation
        if c.conversation_id in held_out:
            raise LeakError(f"training holds conversation {c.conversation_id!r}, which is held out")
        copied = told.get(copy_key(c) or "")
        if copied is not None:
            raise LeakError(
                f"training conversation {c.conversation_id!r} has the text of {copied!r}, which is held out"
            )
        limit = limits.get(c.user_id, split.cut)
        if limit is None:
            continue
        # Without times, seq and places in the file only order what one kind of order is known of.
        if moment(stored) > limit or (split.cut is not None and moment(stored) >= split.cut):
            raise LeakError(
                f"training conversation {c.conversation_id!r} is later than what user {c.user_id!r} is asked"
            )
        if until(c, limit) is not c:
            raise LeakError(
                f"training conversation {c.conversation_id!r} holds messages or engagements from the time of what "
                f"user {c.user_id!r} is asked, or later"
            )
    for case in split.cases:
        if case.query is not None and case.query != query_of(case.held_out[0].conversation):
            raise LeakError(
                f"the query of conversation {case.key!r} is not its user's messages before the agent's last turn"
            )
