"""Reading of times. Nothing is guessed: what can be read in two ways, such as 01/02/2026, is not read at all."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

#: A time before this is a mistake in any export of conversations.
EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
#: A time from here on is a mistake too; `extract` draws the line nearer, at a day after the reading.
LATEST = datetime(2100, 1, 1, tzinfo=UTC)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Up to here (the end of 2099) a number is seconds since 1970; a larger one is milliseconds.
LARGEST_SECONDS = LATEST.timestamp()

_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt _](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?\s?([Zz]|UTC|[+-]\d\d:?(?:\d\d)?)?)?",
    re.ASCII,
)
_EPOCH_TEXT = re.compile(r"[+-]?\d{9,13}(?:\.\d+)?", re.ASCII)
_MONTHS = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), start=1
    )
}
#: "Tue Oct 31 22:10:47 +0000 2017" (Twitter, asctime with zone)
_TWITTER = re.compile(r"[A-Z][a-z]{2} ([A-Z][a-z]{2}) (\d\d?) (\d\d):(\d\d):(\d\d) ([+-]\d{4}) (\d{4})", re.ASCII)
#: "Tue, 31 Oct 2017 22:10:47 +0000" (RFC 5322, HTTP)
_MAIL = re.compile(
    r"(?:[A-Z][a-z]{2}, )?(\d\d?) ([A-Z][a-z]{2}) (\d{4}) (\d\d):(\d\d):(\d\d) ([+-]\d{4}|GMT|UTC)", re.ASCII
)


class UnreadableTime(ValueError):  # noqa: N818 - a finding about data
    """The value is not a time that can be read in one way only."""


def read_time(value: object) -> tuple[datetime, str | None]:
    """Return a time in UTC and the code of the repair that it took, None where it took none.

    Read are ISO 8601 (without a zone it is taken as UTC, without a time of day as midnight), seconds or milliseconds
    since 1970 as a number or as text of 9 to 13 digits, and the two common forms with English month names and a
    zone. Raises UnreadableTime for everything else.
    """
    try:
        if isinstance(value, bool):
            raise UnreadableTime
        if isinstance(value, int | float):
            return _from_epoch(value), "time_from_epoch"
        if isinstance(value, str):
            return _from_text(value.strip())
    except (ValueError, OverflowError) as exc:
        raise UnreadableTime(str(exc)) from exc
    raise UnreadableTime


def _from_epoch(number: float) -> datetime:
    seconds = number if abs(number) <= LARGEST_SECONDS else number / 1000
    return EPOCH + timedelta(seconds=seconds)


def _from_text(text: str) -> tuple[datetime, str | None]:
    if match := _ISO.fullmatch(text):
        year, month, day, hour, minute, second, fraction, zone = match.groups()
        moment = datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0),
            int((fraction or "")[:6].ljust(6, "0")), tzinfo=_zone(zone),
        )  # fmt: skip
        repair = None if zone else "time_without_zone" if hour else "time_is_date_only"
        return moment.astimezone(UTC), repair
    if _EPOCH_TEXT.fullmatch(text):
        return _from_epoch(float(text)), "time_from_epoch"
    if match := _TWITTER.fullmatch(text):
        month, day, hour, minute, second, zone, year = match.groups()
    elif match := _MAIL.fullmatch(text):
        day, month, year, hour, minute, second, zone = match.groups()
    else:
        raise UnreadableTime
    if month.lower() not in _MONTHS:
        raise UnreadableTime
    moment = datetime(
        int(year), _MONTHS[month.lower()], int(day), int(hour), int(minute), int(second), tzinfo=_zone(zone)
    )
    return moment.astimezone(UTC), "time_in_words"


def _zone(zone: str | None) -> timezone:
    if zone is None or zone in ("Z", "z", "UTC", "GMT"):
        return UTC
    digits = zone[1:].replace(":", "").ljust(4, "0")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-offset if zone[0] == "-" else offset)
