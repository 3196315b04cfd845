"""Who is tested on what, and what is learned from; and the check that refuses what tells the answer."""

from __future__ import annotations

from dataclasses import replace

import pytest
from evaluation_data import POSITIVE, conversation, dataset, trained_on

from recs.errors import InputError, LeakError
from recs.evaluation import arrays_of, check_leaks, leave_last_out, split_at_quantile, split_by_field
from recs.evaluation.split import query_of
from recs.model import Message, StoredConversation

LONG = " ".join(f"word{i}" for i in range(25))


def company():
    return dataset(
        conversation("a1", "ann", 1, ("a", "like")),
        conversation("a2", "ann", 2, ("b", "view")),
        conversation("a3", "ann", 3, ("b", "convert"), ("a", "like")),
        conversation("a4", "ann", 4, ("c", "view")),
        conversation("b1", "bob", 9, ("a", "like")),
        conversation("b2", "bob", 5, ("c", "like")),
        conversation("c1", "cat", 8, ("d", "like")),
        conversation("c2", "cat", 9, ("d", "dislike")),
    )


def test_the_last_conversation_with_a_positive_is_the_test():
    split = leave_last_out(company(), POSITIVE)
    assert [(c.key, c.targets) for c in split.cases] == [("ann", ("a", "b")), ("bob", ("a",))]
    # ann's later conversation is in neither part; cat has but one with a positive, all of hers may be learned from.
    assert trained_on(split) == ["a1", "a2", "b2", "c1", "c2"]
    assert split.left_out == {"conversations_after_the_test": 1}
    check_leaks(split.train, split)


def test_what_counts_as_positive_is_a_choice():
    split = leave_last_out(company(), ("view",))
    assert [(c.key, c.targets) for c in split.cases] == [("ann", ("c",))]


@pytest.mark.parametrize("given", ["seq", "place"])
def test_order_without_times_is_seq_else_the_place_in_the_file(given):
    rows = [("x", "a", 2), ("y", "b", 1)] if given == "seq" else [("y", "b", None), ("x", "a", None)]
    found = dataset(*(conversation(n, "u", None, (c, "like"), seq=s) for n, c, s in rows))
    split = leave_last_out(found, POSITIVE)
    assert split.cases[0].targets == ("a",)
    assert trained_on(split) == ["y"]


def test_everything_from_the_cut_on_is_tested():
    split = split_at_quantile(company(), POSITIVE, 0.5)
    assert trained_on(split) == ["a1", "a2", "a3", "a4"]
    assert [(c.key, c.targets) for c in split.cases] == [("bob", ("a", "c")), ("cat", ("d",))]
    check_leaks(split.train, split)
    arrays = arrays_of(split, company().campaigns, POSITIVE)
    assert arrays.rows.tolist() == [-1, -1]


@pytest.mark.parametrize("quantile", [0, 1, -0.1, float("nan")])
def test_a_quantile_lies_between_none_and_all(quantile):
    with pytest.raises(InputError, match="more than 0 and less than 1"):
        split_at_quantile(company(), POSITIVE, quantile)


def dialogue(name, split, *, brand="x"):
    said = tuple(
        Message(role=role, text=text)
        for role, text in (
            ("user", "hello"),
            ("agent", "how can I help"),
            ("user", "a question"),
            ("agent", "the answer"),
            ("user", "thank you for the answer"),
        )
    )
    return conversation(name, f"u-{name}", 1, ("a", "mention"), said=said, split=split, brand=brand, intent="telling")


def test_a_field_splits_and_the_query_ends_before_the_answer():
    found = dataset(dialogue("t1", "dev"), dialogue("t2", "test", brand="b"), dialogue("t3", "other"))
    split = split_by_field(found, ("mention",), "split")
    assert trained_on(split) == ["t1"]
    [case] = split.cases
    assert case.query == ("hello", "a question")
    assert case.key == "t2"
    assert case.hints == ("b",)
    check_leaks(split.train, split)
    with pytest.raises(LeakError, match="query"):
        check_leaks(split.train, replace(split, cases=(replace(case, query=(*case.query, "thank you")),)))


def test_a_query_without_an_agent_is_all_that_was_said():
    assert query_of(conversation("c", "u", 1, text="alone")) == ("alone",)


def test_a_field_that_parts_nothing_is_refused():
    with pytest.raises(InputError, match="dev, other"):
        split_by_field(dataset(dialogue("t1", "dev"), dialogue("t3", "other")), ("mention",), "split")


def test_nobody_to_test_is_said():
    with pytest.raises(InputError, match="nobody to test"):
        leave_last_out(dataset(conversation("a1", "ann", 1, ("a", "like"))), POSITIVE)


def leaky():
    return dataset(
        conversation("a1", "ann", 1, ("a", "like"), ("c", "like", 5)),
        conversation("a2", "ann", 5, ("b", "like"), text=LONG),
        conversation("b1", "bob", 2, ("b", "like"), text=LONG.upper()),
        conversation("b2", "bob", 7, ("a", "like"), ("b", "view", 9)),
    )


def test_copies_and_what_came_later_are_taken_from_training():
    split = leave_last_out(leaky(), POSITIVE)
    assert trained_on(split) == ["a1"]
    assert [e.campaign_id for e in split.train[0].conversation.engagements] == ["a"]
    assert split.left_out == {"copies_of_a_test_conversation": 1, "conversations_cut_short": 1}
    check_leaks(split.train, split)


def without_care():
    """The split of `leaky` as somebody careless would make it."""
    split = leave_last_out(leaky(), POSITIVE)
    return split, {s.conversation.conversation_id: s for s in leaky().conversations}


def test_a_held_out_conversation_in_training_is_refused():
    split, by_id = without_care()
    with pytest.raises(LeakError, match=r"conversation 'a2', which is held out"):
        check_leaks([*split.train, by_id["a2"]], split)


def test_the_text_of_a_held_out_conversation_in_training_is_refused():
    split, by_id = without_care()
    with pytest.raises(LeakError, match=r"'b1' has the text of 'a2'"):
        check_leaks([*split.train, by_id["b1"]], split)


def test_an_engagement_of_a_later_time_in_an_earlier_conversation_is_refused():
    split, by_id = without_care()
    with pytest.raises(LeakError, match=r"'a1' holds messages or engagements from the time of what user 'ann'"):
        check_leaks([by_id["a1"]], split)


def test_a_later_conversation_of_a_tested_user_is_refused():
    split, _ = without_care()
    late = StoredConversation(conversation("a9", "ann", 6, ("c", "like")), "", 9, "")
    with pytest.raises(LeakError, match=r"'a9' is later"):
        check_leaks([*split.train, late], split)
    # For others it is no answer: only the held-out conversations of bob's own are.
    other = StoredConversation(conversation("d9", "dan", 60, ("c", "like")), "", 9, "")
    check_leaks([*split.train, other], split)
    timed = split_at_quantile(company(), POSITIVE, 0.5)
    with pytest.raises(LeakError, match=r"'d9' is later"):
        check_leaks([*timed.train, other], timed)
