from __future__ import annotations

from datetime import UTC, datetime

import pytest

from recs.ingest.times import UnreadableTime, read_time

MOMENT = datetime(2017, 10, 31, 22, 10, 47, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "repair"),
    [
        ("2017-10-31T22:10:47Z", None),
        (" 2017-10-31 22:10:47.000000000z ", None),
        ("2017-11-01T03:40:47+05:30", None),
        ("2017-10-31T15:10:47 -0700", None),
        ("2017-10-31T22:10:47", "time_without_zone"),
        (1509487847, "time_from_epoch"),
        (1509487847000, "time_from_epoch"),
        (1509487847.0, "time_from_epoch"),
        ("1509487847", "time_from_epoch"),
        ("1509487847000", "time_from_epoch"),
        ("Tue Oct 31 22:10:47 +0000 2017", "time_in_words"),
        ("Tue, 31 Oct 2017 22:10:47 GMT", "time_in_words"),
    ],
)
def test_read(value: object, repair: str | None) -> None:
    assert read_time(value) == (MOMENT, repair)


def test_a_date_is_its_first_moment() -> None:
    assert read_time("2017-10-31") == (datetime(2017, 10, 31, tzinfo=UTC), "time_is_date_only")


def test_seconds_up_to_the_end_of_2099_then_milliseconds() -> None:
    assert read_time(4102444800)[0] == datetime(2100, 1, 1, tzinfo=UTC)
    assert read_time(4102444801)[0] == datetime(1970, 2, 17, 11, 34, 4, 801000, tzinfo=UTC)
    assert read_time(-1)[0] == datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    "value",
    ["", "yesterday", "01/02/2026", "31/10/2017", "2017-13-45T99:00:00Z", "20171031", "2017", "2017-10-31T24:00:00Z",
     "Tue Foo 31 22:10:47 +0000 2017", "2017-10-31T22:10:47+99:00", True, None, [], {}, 10**400, float("nan"),
     float("inf"), "٢٠١٧-10-31", "0001-01-01T00:00:00+14:00"],
)  # fmt: skip
def test_not_read(value: object) -> None:
    with pytest.raises(UnreadableTime):
        read_time(value)
