"""The page of a user, driven by AppTest on fakes."""

from __future__ import annotations

import pytest
from dashboard_support import FakeStores, workbench
from streamlit.testing.v1 import AppTest

from app.dashboard.opening import Workbench


def _page(bench):  # type: ignore[no-untyped-def]  # AppTest takes its source alone, without the imports above
    from app.dashboard.user import show

    show(bench)


def _opened(bench: Workbench | None = None, **parameters: str) -> AppTest:
    test = AppTest.from_function(_page, args=(bench or workbench(),), default_timeout=30)
    for name, value in parameters.items():
        test.query_params[name] = value
    test.run()
    assert not test.exception
    return test


def _html(test: AppTest) -> str:
    return "\n".join(element.proto.body for element in test.get("html"))


def test_opens_on_an_example() -> None:
    test = _opened()
    assert test.text_input("user").value == "u1"
    assert "two of the three users who talk most alike took it" in _html(test)
    assert test.selectbox("campaign").value == "k1"
    assert "they said" in _html(test)
    assert "The campaign is paused" in _html(test)


def test_an_address_opens_what_it_says() -> None:
    test = _opened(user="a/b", campaign="k2")
    assert test.text_input("user").value == "a/b"
    assert test.selectbox("campaign").value == "k2"
    assert "tend to take this too" in _html(test)


def test_another_user_is_written_to_the_address_and_forgets_the_campaign() -> None:
    test = _opened(user="u1", campaign="k2")
    test.text_input("user").set_value("  🙂 <b>  ").run()
    assert dict(test.query_params) == {"user": "🙂 <b>"}
    assert "<bdi>🙂 &lt;b&gt;</bdi>" in _html(test)
    assert test.selectbox("campaign").value == "k1"


def test_a_chosen_campaign_is_written_to_the_address() -> None:
    test = _opened(user="u1")
    test.selectbox("campaign").select("k2").run()
    assert test.query_params["campaign"] == "k2"
    assert "tend to take this too" in _html(test)


def test_a_campaign_that_is_not_offered_falls_back_to_the_first() -> None:
    assert _opened(user="u1", campaign="gone").selectbox("campaign").value == "k1"


def test_words_are_never_in_the_address() -> None:
    test = _opened(user="u1")
    test.get("button_group")[0].set_value("words").run()
    assert dict(test.query_params) == {"user": "u1", "by": "words"}
    assert test.text_area("words").value == "Call me on [phone] please"
    test.text_area("words").set_value("We are expecting a baby").run()
    assert dict(test.query_params) == {"user": "u1", "by": "words"}
    assert "somebody who says this" in _html(test)


def test_no_words_say_what_to_do() -> None:
    test = _opened(by="words")
    test.text_area("words").set_value("  ").run()
    assert "Type or paste" in test.info[0].value


def test_an_unknown_user_gets_what_is_popular_marked_so() -> None:
    test = _opened(user="stranger")
    assert "is not known: what is popular" in _html(test)


def test_without_an_example_it_says_what_to_do() -> None:
    test = _opened(workbench(FakeStores(down=["graph"])))
    assert "The graph store does not answer" in test.warning[0].value
    assert "Type a user id" in test.info[0].value


def test_nothing_published_yet_says_what_to_run() -> None:
    test = _opened(workbench(FakeStores(generation=0)))
    assert "Nothing has been published yet" in _html(test)
    assert test.code[0].value.startswith("recs run ")


@pytest.mark.parametrize("role", ["vectors", "documents", "cache", "metrics"])
def test_a_store_that_is_down_leaves_the_rest(role: str) -> None:
    test = _opened(workbench(FakeStores(down=[role])), user="u1")
    assert len(test.warning) == 1
    assert "`recs status` shows more" in test.warning[0].value
    assert "Offer" in _html(test)


def test_without_the_state_store_a_banner_says_so() -> None:
    test = _opened(workbench(FakeStores(down=["state"])), user="u1")
    assert "The state store does not answer" in test.error[0].value
    assert "recs up" in test.error[0].value
    assert test.button[0].label == "Try again"
