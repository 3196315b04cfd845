"""What quotes and ids become before they leave."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recs.errors import SettingsError
from recs.privacy import Pseudonyms, mask_text
from recs.stores.state import SqlState


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to jane.doe+shop@mail.example.co.uk, please", "write to [e-mail], please"),
        ("<jörg@exämple.de>", "<[e-mail]>"),
        ("jane (at) example (dot) com", "[e-mail]"),
        ("jane＠example．com", "[e-mail]"),
        ("call +44 20 7946 0958 today", "call [phone] today"),
        ("call (555) 010-0199.", "call [phone]."),
        ("0171/5550199", "[phone]"),
        ("06 12 34 56 78", "[phone]"),
        ("٠٦١٢٣٤٥٦٧٨", "[phone]"),
        ("my card 4111 1111 1111 1111, exp 12/27", "my card [card], exp 12/27"),
        ("4111-1111-1111-1111", "[card]"),
        ("4111\u200b1111\u200b1111\u200b1111", "[card]"),
        ("378282246310005", "[card]"),
        ("pay DE89 3704 0044 0532 0130 00 now", "pay [account] now"),
        ("gb82west12345698765432", "[account]"),
        ("to NO9386011117947 please send it", "to [account] please send it"),
        ("account 1234567890", "account [number]"),
        ("DE00 3704 0044 0532 0130 00", "DE[number]"),
        ("customer4711230815x", "customer[number]x"),
    ],
)
def test_masks_contact_and_account_data(text: str, masked: str) -> None:
    assert mask_text(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The desk is 120x60 cm and costs 1,299.00, since 2026-03-01.",
        "2026-03-01 10:00 to 2026-03-02 11:30",
        "01.03.2026 and 3/12/2025",
        "10, 20, 30, 40, 50 and 60",
        "from 2019-2024",
        "order 123456 @ home",
        "50 % off 🎉",
    ],
)
def test_leaves_what_names_nobody(text: str) -> None:
    assert mask_text(text) == text


@given(st.text(alphabet="ab1234567890 -.+()@＠\u200b٣", max_size=80))
def test_no_address_and_no_long_number_is_left(text: str) -> None:
    masked = mask_text(text)
    assert not re.search(r"[ab\d]@[ab\d]+\.[ab\d]+", masked)
    assert not re.search(r"\d{9}", masked)


@given(st.from_regex(r"[a-z0-9._]{1,20}@[a-z0-9]{1,20}\.[a-z]{2,6}", fullmatch=True), st.text(max_size=20))
def test_an_address_is_masked_wherever_it_stands(address: str, around: str) -> None:
    assert address not in mask_text(f"{around} {address} {around}")


@pytest.mark.parametrize("piece", ["a", "1", "a@", "1 ", "AB12", "(", "a.", "[at]", "２"])
def test_a_hostile_text_takes_linear_time(piece: str) -> None:
    began = time.perf_counter()
    mask_text(piece * (200_000 // len(piece)))
    assert time.perf_counter() - began < 5


@pytest.fixture
def state(tmp_path: Path) -> Iterator[SqlState]:
    with opened(tmp_path / "state.db") as store:
        yield store


@contextmanager
def opened(path: Path) -> Iterator[SqlState]:
    store = SqlState(f"sqlite:///{path}", timeout_seconds=20)
    yield store
    store.close()


def test_pseudonyms_are_stable_per_installation_and_differ_between_them(state: SqlState, tmp_path: Path) -> None:
    first = Pseudonyms.of_installation(state, tmp_path / "home")
    assert re.fullmatch(r"p_[0-9a-f]{16}", first.of("user", "u1"))
    # Another machine over the same store, and another installation.
    assert first.of("user", "u1") == Pseudonyms.of_installation(state, tmp_path / "other").of("user", "u1")
    with opened(tmp_path / "b.db") as other:
        assert first.of("user", "u1") != Pseudonyms.of_installation(other, tmp_path / "home").of("user", "u1")
    assert first.of("user", "u1") != first.of("user", "u2")
    assert first.of("user", "u1") != first.of("conversation", "u1")
    assert first.of("user", "\ud800/🦊") != first.of("user", "/🦊")


def test_the_secret_of_an_earlier_version_is_taken_over_once(state: SqlState, tmp_path: Path) -> None:
    secret = b"s" * Pseudonyms.SECRET_BYTES
    (tmp_path / "pseudonyms.key").write_bytes(secret)
    before = Pseudonyms(secret).of("user", "u1")
    assert Pseudonyms.of_installation(state, tmp_path).of("user", "u1") == before
    (tmp_path / "pseudonyms.key").unlink()
    assert Pseudonyms.of_installation(state, tmp_path).of("user", "u1") == before
    # Another machine's file comes too late.
    (tmp_path / "pseudonyms.key").write_bytes(b"t" * Pseudonyms.SECRET_BYTES)
    assert Pseudonyms.of_installation(state, tmp_path).of("user", "u1") == before


def test_a_damaged_secret_is_refused(state: SqlState, tmp_path: Path) -> None:
    (tmp_path / "pseudonyms.key").write_bytes(b"short")
    with pytest.raises(SettingsError, match="holds 5 bytes"):
        Pseudonyms.of_installation(state, tmp_path)
    (tmp_path / "pseudonyms.key").unlink()
    (tmp_path / "pseudonyms.key").mkdir()
    with pytest.raises(SettingsError, match="cannot be used"):
        Pseudonyms.of_installation(state, tmp_path)
