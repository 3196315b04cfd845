"""Ids in paths: any characters, slashes too."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from starlette.convertors import Convertor

from recs.errors import InputError


class IdConvertor(Convertor[str]):
    """An id in a path, percent-decoded once it has been found; slashes are part of it."""

    regex = ".+"

    def convert(self, value: str) -> str:
        try:
            return unquote_to_bytes(value).decode("utf-8")
        except UnicodeDecodeError as exc:
            # Read with replacement characters, two ids could become one.
            raise InputError(f"the id in the path is not percent-encoded UTF-8: {exc.reason}") from exc

    def to_string(self, value: str) -> str:
        raise NotImplementedError("no URL is built from a route here")
