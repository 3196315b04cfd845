"""What must not leave: contact and account data in quoted words, and the ids of other customers.

Pure functions over text, and pseudonyms made with a secret of the installation. When in doubt, a number is masked: a
quote is evidence of what was talked about, and reads as well without its digits.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from recs.errors import SettingsError
from recs.stores.ports import StateStore

EMAIL, PHONE, CARD, ACCOUNT, NUMBER = "[e-mail]", "[phone]", "[card]", "[account]", "[number]"

#: Fewer digits than this are prices, sizes and counts.
_LEAST_DIGITS = 7
#: What people, and those who hide a number from filters, put between digits: no comma, which belongs to lists and
#: amounts, and at most three in a row.
_BETWEEN = r"[\s().\-/·_\u00ad\u200b-\u200d\u2010-\u2015\u2060\ufeff]{0,3}"
_DIGITS = re.compile(rf"(?:\+|\(\+?)?\d(?:{_BETWEEN}\d){{{_LEAST_DIGITS - 1},}}")
_NO_NUMBER = re.compile(
    # One or two dates, or a date with an hour: "2026-03-01", "01.03.2026 10", and spans of years.
    r"(?:(?:\d{4}-[01]\d-[0-3]\d|[0-3]?\d([./])[0-3]?\d\1(?:19|20)\d\d)(?:\s[0-2]?\d|\s?[-–/]\s?(?=\d|$)|$)){1,2}"
    r"|(?:19|20)\d\d\s?[-–/]\s?(?:19|20)\d\d"
)
_ACCOUNT = re.compile(r"(?<![^\W_])[A-Za-z]{2}[0-9]{2}(?:[ \u00a0-]?[A-Za-z0-9]){11,30}")
_ACCOUNT_LENGTHS = range(34, 14, -1)
_AT = re.compile(r"\s?(?:[@＠]|[(\[{]\s?(?:at|AT|@)\s?[)\]}])\s?")
#: What stands before the "@", which is looked at from its end: a search from the left takes quadratic time.
_MAILBOX_LENGTH = 64
_MAILBOX_ENDS = frozenset("@＠<>()[]{},;:\"'“”‘’|\\")
_DOMAIN = re.compile(r"[\w\-\u00ad]{1,63}(?:(?:[.。．]|\s?[(\[{]\s?(?:dot|DOT|\.)\s?[)\]}]\s?)[\w\-\u00ad]{1,63}){1,8}")


def mask_text(text: str) -> str:
    """Return the text with e-mail addresses, account (IBAN), card, phone and other long numbers replaced.

    The placeholders are `[e-mail]`, `[account]`, `[card]`, `[phone]` and `[number]`. Digits of any script count.
    Dates stay. Time is linear in the length of the text.
    """
    text = _ACCOUNT.sub(_masked_account, _mask_addresses(text))
    return _DIGITS.sub(_masked_number, text)


def _mask_addresses(text: str) -> str:
    pieces: list[str] = []
    kept = 0
    for at in _AT.finditer(text):
        start = at.start()
        while start > max(kept, at.start() - _MAILBOX_LENGTH) and not (
            text[start - 1].isspace() or text[start - 1] in _MAILBOX_ENDS
        ):
            start -= 1
        domain = _DOMAIN.match(text, at.end()) if start < at.start() else None
        if domain is not None:
            pieces += (text[kept:start], EMAIL)
            kept = domain.end()
    return "".join(pieces) + text[kept:]


def _masked_account(match: re.Match[str]) -> str:
    """Mask the longest part that has an IBAN's check digits; the words that follow it may look like more of it."""
    found = match.group()
    ends = [i for i, character in enumerate(found, start=1) if character.isascii() and character.isalnum()]
    for length in _ACCOUNT_LENGTHS:
        if length <= len(ends) and _is_iban("".join(c for c in found[: ends[length - 1]] if c.isalnum()).upper()):
            return ACCOUNT + found[ends[length - 1] :]
    return found


def _is_iban(compact: str) -> bool:
    moved = compact[4:] + compact[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def _masked_number(match: re.Match[str]) -> str:
    found = match.group()
    if _NO_NUMBER.fullmatch(found):
        return found
    digits = [int(character) for character in found if character.isdecimal()]
    if 13 <= len(digits) <= 19 and _passes_luhn(digits):
        return CARD
    spaced = len(found) > len(digits)
    return PHONE if len(digits) <= 15 and (spaced or digits[0] == 0) else NUMBER


def _passes_luhn(digits: list[int]) -> bool:
    return sum(_luhn_parts(digits)) % 10 == 0


def _luhn_parts(digits: list[int]) -> Iterator[int]:
    for place, digit in enumerate(reversed(digits)):
        yield digit if place % 2 == 0 else sum(divmod(2 * digit, 10))


class Pseudonyms:
    """Names for other customers: the same id has the same name within an installation, and no name leads back.

    Names are HMAC-SHA256 under a secret of the installation, cut to 64 bits: without the secret nobody can try ids.
    """

    SECRET_BYTES = 32

    def __init__(self, secret: bytes) -> None:
        if len(secret) != self.SECRET_BYTES:
            raise ValueError(f"a secret has {self.SECRET_BYTES} bytes, not {len(secret)}")
        self._secret = secret

    @classmethod
    def of_installation(cls, state: StateStore, home: Path) -> Pseudonyms:
        """Return the pseudonyms of all processes over this state store; their secret is made on first use.

        Where the store has none yet, the one that an earlier version kept in a file of `home` is taken over. Raises
        SettingsError where that file cannot be used.
        """

        def make() -> bytes:
            return cls._secret_of_home(home) or secrets.token_bytes(cls.SECRET_BYTES)

        return cls(state.secret("pseudonyms", make))

    @classmethod
    def _secret_of_home(cls, home: Path) -> bytes | None:
        path = home / "pseudonyms.key"
        try:
            secret = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise SettingsError(f"the secret of the pseudonyms in {path} cannot be used: {exc}") from exc
        if len(secret) != cls.SECRET_BYTES:
            raise SettingsError(
                f"{path} holds {len(secret)} bytes, the secret of the pseudonyms has {cls.SECRET_BYTES}; restore it, "
                "or remove it: every pseudonym then changes"
            )
        return secret

    def of(self, kind: Literal["user", "conversation"], identifier: str) -> str:
        """Return the pseudonym of an id, `p_` and 16 hex digits; the same id of another kind has another one."""
        # An id may hold half a surrogate pair, which UTF-8 proper has no bytes for.
        message = f"{kind}\0{identifier}".encode("utf-8", "surrogatepass")
        return "p_" + hmac.new(self._secret, message, hashlib.sha256).hexdigest()[:16]
