"""Who is tested on what, and what may be learned from: three ways to part the past from the answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from recs.embed import normalise_text, text_key
from recs.errors import InputError
from recs.evaluation.data import Dataset
from recs.model import Action, Conversation, StoredConversation

#: A place in time: (1, seconds since 1970), or (0, seq or place in the file) for what has no time.
Moment = tuple[int, float]

#: Two conversations of at least so many words with the same text are one conversation told twice. Shorter texts
#: ("Great gift") are said by many, and tell nothing.
COPY_WORDS = 20

TRAIN_VALUES = ("dev", "train")
TEST_VALUE = "test"

_MAX_TEXT_CHARS = 1_000_000


@dataclass(frozen=True, slots=True)
class Case:
    """One test: a user, or a conversation of somebody who is known by these words alone."""

    user_id: str
    held_out: tuple[StoredConversation, ...]
    """The conversations whose engagements are asked for."""
    targets: tuple[str, ...]
    """Campaigns with a positive engagement in what is held out, sorted."""
    before: Moment | None = None
    """The user's training lies before this; None where the split does not go by time."""
    query: tuple[str, ...] | None = None
    """The messages that are known, of role user; None where the user is known by the training part."""
    hints: tuple[str, ...] = ()
    """Values of the held-out conversation's own fields, such as the brand that was written to; never its intent."""

    @property
    def key(self) -> str:
        """A name that no other case of the split has."""
        return self.user_id if self.query is None else self.held_out[0].conversation.conversation_id


@dataclass(frozen=True, slots=True)
class Split:
    """What is learned from and what is tested."""

    name: str
    train: tuple[StoredConversation, ...]
    cases: tuple[Case, ...]
    """Sorted by key."""
    cut: Moment | None = None
    """All training lies before this; None where each user has a moment of their own."""
    left_out: dict[str, int] = field(default_factory=dict)
    """What is in neither part, by the reason for it."""


def moment(stored: StoredConversation) -> Moment:
    """Return when a conversation was, as far as it is known."""
    return stored.order_key()[:2]


def positives(conversation: Conversation, actions: Collection[Action]) -> set[str]:
    """Return the campaigns that a conversation holds a positive engagement with."""
    return {e.campaign_id for e in conversation.engagements if e.action in actions}


def leave_last_out(data: Dataset, actions: Collection[Action]) -> Split:
    """Test each user with two or more conversations that hold a positive on the last of them.

    Training is what that user said and did before, and everything of the other users but their own held-out
    conversations and what came after those.
    """
    by_user: defaultdict[str, list[StoredConversation]] = defaultdict(list)
    for stored in data.conversations:
        by_user[stored.conversation.user_id].append(stored)
    cases, train, later = [], [], 0
    for user_id, theirs in by_user.items():
        theirs.sort(key=StoredConversation.order_key)
        holding = [place for place, stored in enumerate(theirs) if positives(stored.conversation, actions)]
        if len(holding) < 2:
            train += theirs
            continue
        last = holding[-1]
        held_out = theirs[last]
        targets = tuple(sorted(positives(held_out.conversation, actions)))
        cases.append(Case(user_id, (held_out,), targets, before=moment(held_out)))
        train += theirs[:last]
        later += len(theirs) - last - 1
    return _settled("leave_last_out", train, cases, {"conversations_after_the_test": later})


def split_at_quantile(data: Dataset, actions: Collection[Action], quantile: float) -> Split:
    """Test on all conversations from the given quantile of all conversations' times on, one case per user.

    Conversations of the very moment of the cut are all tested. Raises InputError for a quantile outside (0, 1) or
    where nothing lies before the cut.
    """
    if not 0 < quantile < 1:
        raise InputError(f"a time quantile of {quantile} was asked for; more than 0 and less than 1 is allowed")
    moments = sorted(moment(stored) for stored in data.conversations)
    cut = moments[int(quantile * len(moments))]
    train = [stored for stored in data.conversations if moment(stored) < cut]
    tested: defaultdict[str, list[StoredConversation]] = defaultdict(list)
    for stored in sorted(data.conversations, key=StoredConversation.order_key):
        if moment(stored) >= cut and positives(stored.conversation, actions):
            tested[stored.conversation.user_id].append(stored)
    cases = [
        Case(user_id, tuple(theirs), tuple(sorted(set().union(*(positives(s.conversation, actions) for s in theirs)))),
             before=cut)
        for user_id, theirs in tested.items()
    ]  # fmt: skip
    without = len(data.conversations) - len(train) - sum(len(c.held_out) for c in cases)
    return _settled("time", train, cases, {"test_conversations_without_a_positive": without}, cut)


def split_by_field(data: Dataset, actions: Collection[Action], name: str) -> Split:
    """Train where a field of the conversation says dev or train, test where it says test, each conversation by itself.

    This is the cold start: what is known is the user's messages before the agent's last turn. Raises InputError where
    one of the parts is empty.
    """
    train, cases, other = [], [], 0
    for stored in data.conversations:
        value = _field(stored.conversation, name)
        if value in TRAIN_VALUES:
            train.append(stored)
        elif value == TEST_VALUE:
            targets = tuple(sorted(positives(stored.conversation, actions)))
            if targets:
                hints = _hints(stored.conversation, name)
                query = query_of(stored.conversation)
                cases.append(Case(stored.conversation.user_id, (stored,), targets, query=query, hints=hints))
            else:
                other += 1
        else:
            other += 1
    if not train or not cases:
        met = sorted({str(_field(s.conversation, name)) for s in data.conversations})[:5]
        raise InputError(
            f"--split-field {name}: {len(train):,} conversations to train on, {len(cases):,} with a positive to test; "
            f"its values are {', '.join(met)}, and dev (or train) and test are needed"
        )
    return _settled("field", train, cases, {"of_no_part_or_without_a_positive": other})


def texts_between(data: Dataset, actions: Collection[Action], start: float, end: float) -> Split:
    """Train on the first `start` of the conversations in order, test each of those from there to `end` by its words.

    Both are shares of all conversations. As in `split_by_field`, what is known of a case is its messages before the
    agent's last turn. Raises InputError where one of the parts is empty.
    """
    ordered = sorted(data.conversations, key=lambda stored: (moment(stored), stored.conversation.conversation_id))
    first, last = int(start * len(ordered)), int(end * len(ordered))
    if not 0 < first < last:
        raise InputError(f"{len(ordered):,} conversations cannot be parted at {start:.0%} and {end:.0%}")
    cut = moment(ordered[first])
    cases = [
        Case(
            stored.conversation.user_id,
            (stored,),
            tuple(sorted(positives(stored.conversation, actions))),
            query=query_of(stored.conversation),
        )
        for stored in ordered[first:last]
        if positives(stored.conversation, actions)
    ]
    train = [stored for stored in ordered[:first] if moment(stored) < cut]
    return _settled("texts", train, cases, {"test_conversations_without_a_positive": last - first - len(cases)}, cut)


def query_of(conversation: Conversation) -> tuple[str, ...]:
    """Return the user's messages before the agent's last turn; all of them where the agent never spoke."""
    spoken = [place for place, message in enumerate(conversation.messages) if message.role == "agent"]
    known = conversation.messages[: spoken[-1]] if spoken else conversation.messages
    return tuple(m.text for m in known if m.role == "user" and m.text.strip())


def copy_key(conversation: Conversation) -> str | None:
    """Return a hash of all that was said, the same for a conversation that is told twice; None for short ones."""
    words = normalise_text(" ".join(m.text for m in conversation.messages), _MAX_TEXT_CHARS).casefold()
    return text_key(words) if len(words.split()) >= COPY_WORDS else None


def until(conversation: Conversation, bound: Moment | None) -> Conversation:
    """Return the conversation without messages and engagements whose own time is not before the bound."""
    if bound is None or bound[0] == 0:
        return conversation
    limit = datetime.fromtimestamp(bound[1], UTC)
    messages = tuple(m for m in conversation.messages if m.at is None or m.at < limit)
    engagements = tuple(e for e in conversation.engagements if e.at is None or e.at < limit)
    if len(messages) == len(conversation.messages) and len(engagements) == len(conversation.engagements):
        return conversation
    return conversation.model_copy(update={"messages": messages, "engagements": engagements})


def bounds(split: Split) -> dict[str, Moment]:
    """Return, per tested user, the moment that their training must lie before."""
    return {case.user_id: case.before for case in split.cases if case.before is not None}


def _settled(
    name: str,
    train: Iterable[StoredConversation],
    cases: Sequence[Case],
    left_out: dict[str, int],
    cut: Moment | None = None,
) -> Split:
    """Return the split without what would give an answer away although its conversation is not the held-out one."""
    split = Split(name, (), tuple(sorted(cases, key=lambda c: c.key)), cut)
    if not cases:
        raise InputError(f"the split {name} leaves nobody to test: no user has what it asks for")
    told = {key for case in cases for s in case.held_out if (key := copy_key(s.conversation)) is not None}
    limits = bounds(split)
    kept, copies, cut_short = [], 0, 0
    for stored in train:
        if copy_key(stored.conversation) in told:
            copies += 1
            continue
        conversation = until(stored.conversation, limits.get(stored.conversation.user_id, cut))
        cut_short += conversation is not stored.conversation
        kept.append(replace(stored, conversation=conversation))
    if not kept:
        raise InputError(f"the split {name} leaves nothing to learn from")
    kept.sort(key=lambda s: s.position)
    counts = {**left_out, "copies_of_a_test_conversation": copies, "conversations_cut_short": cut_short}
    return replace(split, train=tuple(kept), left_out={reason: n for reason, n in counts.items() if n})


def _field(conversation: Conversation, name: str) -> object:
    return getattr(conversation, name, None)


def _hints(conversation: Conversation, split_field: str) -> tuple[str, ...]:
    extra = {**(conversation.model_extra or {}), "channel": conversation.channel}
    return tuple(sorted({v for k, v in extra.items() if k != split_field and isinstance(v, str)}))
