"""Sentences, numbers and markup, without Streamlit."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from dashboard_support import AT, FakeStores, answer, item, workbench

from app.dashboard import charts, markup, words
from app.dashboard.lookup import Profile, View, example_user, example_words, look_up_user, look_up_words
from app.dashboard.style import COMPONENT_COLOURS, colour, text_colour
from recs.errors import StoreUnavailableError
from recs.explain import COMPONENT_NAMES
from recs.model import Evidence, Preferences, Suppressed, UserEdges

ODD_IDS = ["a/b?c=d&e", 'o\'neil "x"', "<img src=x onerror=alert(1)>", "🙂", "**bold** `code` $x$", "e", "x" * 200]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (0.004, "0"),
        (0.25, "0.25"),
        (1.234, "1.23"),
        (-1.234, "\u22121.23"),
        (12.34, "12.3"),
        (1234.5, "1,234"),
        (float("nan"), "-"),
    ],
)
def test_numbers_have_two_or_three_digits(value: float, shown: str) -> None:
    assert words.number(value) == shown


@pytest.mark.parametrize(
    ("days", "said"),
    [
        (0, "today"),
        (1, "1 day ago"),
        (13, "1 week ago"),
        (61, "2 months ago"),
        (800, "2 years ago"),
        (-3, "in the future"),
    ],
)
def test_times_are_relative(days: int, said: str) -> None:
    assert words.ago(AT, AT + timedelta(days=days)) == said


def test_the_finding_counts_the_neighbours_who_took_the_best_campaign() -> None:
    view = look_up_user(workbench(), "u1")
    assert (
        words.finding(view) == f"Offer {view.answer.items[0].name} to u1: two of the three users who talk most "
        "alike took it"
    )


def test_the_finding_names_what_speaks_most() -> None:
    view = View(answer("u1", items=[item(1, "k2", {"intent": 0.5, "similar_users": 0.1})]), {})
    assert words.finding(view) == "Offer Garden club to u1: it is meant for what they ask about"


def test_a_predicted_intent_is_called_so() -> None:
    given = [
        Evidence(kind="intent", intent="nursery_advice", weight=2, predicted=False),
        Evidence(kind="intent", intent="nursery_advice", weight=1, predicted=True),
    ]
    view = View(answer("u1", items=[item(1, "k2", {"intent": 0.5, "similar_users": 0.1}, given)]), {})
    assert words.finding(view) == "Offer Garden club to u1: it is meant for nursery advice"
    said = [words.evidence_sentence(piece, view) for piece in given]
    assert ["predicted" in sentence for sentence in said] == [False, True]
    edges = UserEdges("u1", (), {"nursery_advice": 2}, {"nursery_advice": 1, "returns": 1})
    line = markup.profile_line(replace(view, profile=Profile(4, None, edges, True, None)), datetime.now(UTC))
    assert "asks about <bdi>nursery advice</bdi> (3, 1 predicted), <bdi>returns</bdi> (1, 1 predicted)" in line


def test_popular_answers_are_marked_so() -> None:
    view = look_up_user(workbench(), "stranger")
    assert words.finding(view).startswith("stranger is not known: what is popular")
    assert "popular list" in words.how_found(view)
    assert view.similar == ()


def test_who_does_not_want_to_be_profiled_is_not_called_unknown() -> None:
    fake = FakeStores(preferences=Preferences(user_id="u1", profiling=False))
    view = look_up_user(workbench(fake, strategy="popular"), "u1")
    assert "does not want to be profiled" in words.finding(view)
    line = markup.profile_line(view, datetime.now(UTC))
    assert "nursery" not in line
    assert "liked" not in line
    assert "no profiling" in line


def test_a_user_who_wants_nothing_is_offered_nothing() -> None:
    view = View(answer("u1", items=[], suppressed=[Suppressed(campaign_id="k1", reason="opted_out")]), {})
    assert words.finding(view) == "Nothing may be offered to u1"
    assert words.left_out(view) == [("The user wants no campaigns at all", ["k1"])]


@pytest.mark.parametrize(
    ("channels", "said"),
    [
        (None, "all channels allowed"),
        (("app", "chat"), "only app and chat allowed"),
        ({"email": False}, "no email"),
        ({"*": False, "email": True}, "only email allowed"),
        ({"*": False}, "wants no campaigns"),
        ((), "wants no campaigns"),
    ],
)
def test_consent_in_words(channels: object, said: str) -> None:
    assert words.consent(Preferences.model_validate({"user_id": "u", "channels": channels})) == said


def test_evidence_names_campaigns_and_keeps_quotes_apart() -> None:
    view = look_up_user(workbench(), "u1")
    said = words.evidence_sentence(view.answer.items[1].evidence[0], view)
    assert said == "Users who took Nursery <b>starter</b>, as this user did, tend to take this too."
    assert '"' not in words.evidence_sentence(view.answer.items[0].evidence[0], view)


@pytest.mark.parametrize("user_id", ODD_IDS)
def test_ids_are_shown_as_text(user_id: str) -> None:
    view = look_up_user(workbench(), user_id)
    made = "".join(
        [
            markup.heading(view),
            markup.profile_line(view, datetime.now(UTC)),
            markup.breakdown_table(view.answer.items, "k1"),
            *(markup.evidence_list(one, view) for one in view.answer.items),
            markup.similar_table(view),
            markup.left_out_list(view),
        ]
    )
    assert "<img" not in made
    assert "<script" not in made
    assert "<b>starter" not in made
    assert markup.code(user_id) in markup.heading(view)
    assert markup.heading(view).count("<code>") == 1


def test_quotes_carry_no_contact_data() -> None:
    view = look_up_user(workbench(), "u1")
    made = markup.evidence_list(view.answer.items[0], view)
    assert "[e-mail]" in made
    assert "example.com" not in made


def test_links_to_users_hold_any_id() -> None:
    assert 'href="?user=a%2Fb%3F%22%3E%26"' in markup.user_link('a/b?">&')


@pytest.mark.parametrize("role", ["documents", "graph", "vectors", "cache", "metrics"])
def test_a_store_that_is_down_is_named_once(role: str) -> None:
    view = look_up_user(workbench(FakeStores(down=[role])), "u1")
    assert view.missing == (role,)
    assert "does not answer" in words.missing_sentence(role)


def test_without_the_state_store_there_is_no_answer() -> None:
    with pytest.raises(StoreUnavailableError):
        look_up_user(workbench(FakeStores(down=["state"])), "u1")


def test_the_example_has_several_conversations() -> None:
    stores = FakeStores().stores()
    assert example_user(stores) == "u1"
    assert example_words(stores, "u1") == "Call me on [phone] please"
    assert example_words(stores, "nobody") == ""


def test_words_find_campaigns_for_nobody_in_particular() -> None:
    view = look_up_words(workbench(), "We are expecting a baby")
    assert view.profile is None
    assert words.finding(view).startswith("Offer Nursery <b>starter</b> to somebody who says this")


def test_bars_hold_every_part_and_the_total() -> None:
    items = answer("u1").items
    option = charts.bars(items, "k2", ink="#111111")
    by_name = {series["name"]: [point["value"] for point in series["data"]] for series in option["series"]}
    assert by_name[COMPONENT_NAMES["similar_users"]] == [1.5, -0.5]
    assert by_name[COMPONENT_NAMES["intent"]] == [0.25, 0.75]
    assert [point["label"]["formatter"] for point in option["series"][-1]["data"]] == ["1.75", "0.25"]
    assert option["yAxis"]["data"][0] == "1. Nursery <b>starter</b>"
    assert option["yAxis"]["data"][1]["textStyle"]["fontWeight"] == "bold"


def test_bars_are_also_there_in_words() -> None:
    assert "2. Garden club 0.25 (intent 0.75, similar users \u22120.50)" in charts.bars_in_words(answer("u1").items)


def test_a_new_selection_is_told_from_an_old_one() -> None:
    assert charts.newly_selected([(0, 2)], [(0, 2), (1, 4)]) == 4
    assert charts.newly_selected([(0, 2)], [(0, 2)]) is None
    assert charts.newly_selected([], []) is None


def test_every_component_has_a_colour_of_its_own_that_text_can_be_read_on() -> None:
    assert set(COMPONENT_COLOURS) == set(COMPONENT_NAMES)
    assert len(set(COMPONENT_COLOURS.values())) == len(COMPONENT_COLOURS)
    for name in COMPONENT_NAMES:
        assert _contrast(colour(name), text_colour(name)) >= 4.5, name


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(hexadecimal: str) -> float:
    channels = [int(hexadecimal[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
