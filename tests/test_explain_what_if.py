"""What is said in sentences is what the numbers say."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from recs.explain_what_if import (
    describe_counterfactual,
    describe_dissent,
    describe_move,
    describe_stability,
    ordinal,
)
from recs.model import Counterfactual, Dissent, LeftOut, Move, Opinion, PartChange, Stability, Voice


def moved(before, after, *, scores=(1.5, 1.25), reasons=(None, None)):
    was, now = scores
    return Move(
        campaign_id="k1",
        name="Desks",
        rank_before=before,
        rank_after=after,
        reason_before=reasons[0],
        reason_after=reasons[1],
        score_before=was,
        score_after=now,
        difference=now - was,
        parts=[
            PartChange(component="intent", before=0.5, after=0.5, difference=0.0),
            PartChange(component="similar_users", before=was - 0.5, after=now - 0.5, difference=now - was),
        ],
    )


@pytest.mark.parametrize(
    ("move", "words"),
    [
        (moved(1, 3), "falls from 1st to 3rd place; its score goes from 1.500 to 1.250 (similar users -0.250)."),
        (moved(12, 2, scores=(1, 2)), "rises from 12th to 2nd place; its score goes from 1.000 to 2.000"),
        (moved(4, 4, scores=(1, 1)), "stays in 4th place; its score stays 1.000."),
        (moved(4, None, reasons=(None, "frequency_cap")), "may not be offered any more (the user has seen it often"),
        (moved(None, 2, reasons=("already_liked", None)), "may be offered, in 2nd place"),
        (moved(None, None, reasons=("disliked", "disliked")), "may not be offered either way"),
    ],
)
def test_a_move(move, words):
    assert describe_move(move).startswith(f"Desks [k1] {words}")


def test_a_counterfactual():
    told = Counterfactual(
        user_id="u1",
        generation=1,
        without="campaign",
        without_id="k0",
        without_name="Lamps",
        degraded=["vectors"],
        k=1,
        items=[moved(1, 2)],
        entered=["k2"],
        left=["k1"],
    )
    lines = describe_counterfactual(told).splitlines()
    assert lines[0] == "User u1 without having met Lamps [k0]:"
    assert lines[-2:] == [
        "Among the first 1: k1 goes, k2 comes in.",
        "incomplete: no answer from vectors; `recs status` shows more",
    ]
    same = told.model_copy(update={"entered": [], "left": [], "degraded": []})
    assert describe_counterfactual(same).splitlines()[-1] == "The first 1 stay the same campaigns."


def test_dissent():
    opinion = Opinion(
        group="talks_alike",
        users=1200,
        took=300,
        met=200,
        disliked=100,
        never_met=600,
        took_share=0.5,
        met_share=0.2,
        disliked_share=0.1,
        never_met_share=0.2,
    )
    seen = Voice(
        user_id="u2",
        group="talks_alike",
        similarity=0.5,
        weight=0.1,
        action="view",
        at=datetime(2026, 3, 1, tzinfo=UTC),
    )
    against = Voice(user_id="u3", group="took_alike", similarity=0.25, weight=0.1, action="dislike")
    assert describe_dissent(Dissent(opinions=[opinion], voices=[seen, against], more_voices=298)) == [
        "  - Of 1,200 users who talk alike, 300 took it (50% of their say), 200 met it and did not take it (20%), "
        "100 disliked it (10%), 600 never met it (20%).",
        "  - u2, who talks alike (0.50), saw it on 01 March 2026 and did not take it.",
        "  - u3, who took the same campaigns (0.25), disliked it.",
        "  - 298 more met or disliked it",
    ]
    assert describe_dissent(Dissent(opinions=[], voices=[], more_voices=0)) == ["  - no neighbours are known"]


def test_stability():
    turn = LeftOut(conversation_id="c", message_index=0, text="a  cot", overlap=0.5, entered=["k9"], left=["k1"])
    told = Stability(
        user_id="u1", generation=1, k=5, top=["k1", "k2"], mean=0.75, lowest=0.5, messages=2, turns=[turn, turn]
    )
    assert describe_stability(told).splitlines()[:2] == [
        "Of the first 2 campaigns for user u1, 1.5 stay on average when one message is left out and 1 at the least; "
        "tried on the latest 2 of 2.",
        '  - Without "a cot": k1 goes, k9 comes in.',
    ]
    none = told.model_copy(update={"mean": None, "lowest": None, "turns": []})
    assert describe_stability(none).endswith("cannot be told: there is no message that could be left out.")
    assert describe_stability(none.model_copy(update={"top": []})).endswith("cannot be told: there is no list.")


def test_ordinals():
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 102, 111, 1001)] == [
        *("1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "111th", "1,001st")
    ]
