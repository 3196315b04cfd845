"""The slower reader of JSON, for records that the fast one refuses: it repairs what can be repaired, and says so."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from recs.ingest.records import Defect, shown

#: Containers inside one another; MongoDB stores at most 100 levels.
MAX_DEPTH = 64

BOM = b"\xef\xbb\xbf"
#: Escapes of NUL, and of surrogates, which stand alone in a text that cannot be encoded.
_SUSPECT_ESCAPE = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")


class DamagedText(str):
    """A text that came with characters or bytes that had to be replaced: good enough to read, not to be an id."""

    __slots__ = ()


def load(data: bytes, repairs: dict[str, None]) -> Any:
    """Return the value of a JSON text; codes of the repairs it took go into `repairs`.

    Repaired are a byte order mark, bytes that are not UTF-8 (each such byte is read as Windows-1252), control
    characters that stand in a string without an escape, NUL characters and lone surrogates (U+FFFD takes their
    place) and keys that occur twice in an object (the last one wins). Raises Defect for the rest.
    """
    if data.startswith(BOM):
        data = data[len(BOM) :]
        repairs["byte_order_mark"] = None
    try:
        text = data.decode()
        foreign = False
    except UnicodeDecodeError:
        text = data.decode(errors="surrogateescape")
        foreign = True
    value = _parse(text, repairs)
    # A cheap bound first: most records have fewer brackets than levels are allowed.
    if data.count(b"{") + data.count(b"[") > MAX_DEPTH:
        _check_depth(value)
    if foreign or b"\0" in data or _SUSPECT_ESCAPE.search(data):
        value = _fix_texts(value, repairs, foreign)
    return value


def _parse(text: str, repairs: dict[str, None]) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(items)
        if len(result) < len(items):
            repairs["duplicate_key"] = None
        return result

    def constant(name: str) -> Any:
        raise Defect("not_a_number", f"the record holds {name}, which JSON does not know; null is allowed")

    def finite(literal: str) -> float:
        number = float(literal)
        if math.isinf(number):
            raise Defect("number_out_of_range", f"the number {shown(literal)} is beyond a 64-bit float")
        return number

    def decode(strict: bool) -> Any:
        return json.loads(text, object_pairs_hook=pairs, parse_constant=constant, parse_float=finite, strict=strict)

    try:
        try:
            return decode(strict=True)
        except json.JSONDecodeError as exc:
            if not exc.msg.startswith("Invalid control character"):
                raise
            value = decode(strict=False)
            repairs["control_character_unescaped"] = None
            return value
    except json.JSONDecodeError as exc:
        message = f"not JSON: {exc.msg} at character {exc.pos + 1:,} of {len(text):,}; one JSON object is allowed"
        raise Defect("invalid_json", message) from exc
    except RecursionError as exc:
        raise _too_deep() from exc
    except ValueError as exc:  # an integer of more digits than the interpreter converts (4,300)
        raise Defect("number_out_of_range", f"a number is too long: {exc}") from exc


def _too_deep() -> Defect:
    return Defect("nested_too_deeply", f"objects and arrays are nested more than {MAX_DEPTH} levels deep")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise _too_deep()


def _fix_texts(value: Any, repairs: dict[str, None], foreign: bool) -> Any:
    if isinstance(value, str):
        return _fix_text(value, repairs, foreign)
    if isinstance(value, list):
        return [_fix_texts(item, repairs, foreign) for item in value]
    if isinstance(value, dict):
        return {_fix_text(k, repairs, foreign): _fix_texts(v, repairs, foreign) for k, v in value.items()}
    return value


def _fix_text(text: str, repairs: dict[str, None], foreign: bool) -> str:
    came = text
    if foreign and _ESCAPED_BYTE.search(text):
        repairs["invalid_utf8"] = None
        text = _ESCAPED_BYTE.sub(lambda m: bytes([ord(m[0]) - 0xDC00]).decode("cp1252", errors="replace"), text)
    if _LONE_SURROGATE.search(text):
        repairs["lone_surrogate"] = None
        text = _LONE_SURROGATE.sub("\ufffd", text)
    if "\0" in text:
        # Not every store holds NUL (PostgreSQL does not); other control characters stay as they came.
        repairs["nul_character"] = None
        text = text.replace("\0", "\ufffd")
    return text if text is came else DamagedText(text)
