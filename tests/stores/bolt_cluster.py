"""Members of a Neo4j cluster that say who leads, and note which of them is asked: Bolt 5.2, and no more of it."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

_VERSION = b"\x00\x00\x02\x05"
_HELLO, _RUN, _PULL, _ROUTE = 0x01, 0x10, 0x3F, 0x66
_SUCCESS, _RECORD = 0x70, 0x71


class Member:
    """One server. `roles` maps ROUTE, READ and WRITE to addresses; every query returns one empty list."""

    def __init__(self) -> None:
        self.roles: Mapping[str, Sequence[str]] = {}
        self.queries = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listening.getsockname()[1]}"

    def __enter__(self) -> Member:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listening.close()
        for connection in self._open:
            connection.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return  # closed: the test is over
            self._open.append(connection)
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as stream:
                stream.read(20)
                connection.sendall(_VERSION)
                while kind := _read_message(stream):
                    for reply in self._replies(kind):
                        connection.sendall(reply)
        except OSError:
            return  # closed at the other end, or because the test is over

    def _replies(self, kind: int) -> list[bytes]:
        if kind == _HELLO:
            return [_message(_SUCCESS, {"server": "Neo4j/5.26.0", "connection_id": "bolt-1"})]
        if kind == _ROUTE:
            servers = [{"role": role, "addresses": list(there)} for role, there in self.roles.items()]
            return [_message(_SUCCESS, {"rt": {"ttl": 300, "db": "neo4j", "servers": servers}})]
        if kind == _RUN:
            self.queries += 1
            return [_message(_SUCCESS, {"fields": ["rows"]})]
        if kind == _PULL:
            return [_message(_RECORD, [[]]), _message(_SUCCESS, {"type": "r"})]
        return [_message(_SUCCESS, {})]


def _read_message(stream: Any) -> int:
    """Return the kind of the next message, 0 at the end."""
    body = b""
    while True:
        header = stream.read(2)
        if len(header) < 2:
            return 0
        size = int.from_bytes(header)
        if size:
            body += stream.read(size)
        elif body:  # an empty chunk ends a message; one by itself keeps the connection alive
            return body[1]


def _message(kind: int, value: Any) -> bytes:
    body = bytes([0xB1, kind]) + _packed(value)
    return struct.pack(">H", len(body)) + body + b"\x00\x00"


def _packed(value: Any) -> bytes:
    match value:
        case int():
            return b"\xc9" + struct.pack(">h", value)
        case str():
            text = value.encode()
            return bytes([0xD0, len(text)]) + text
        case list():
            return bytes([0xD4, len(value)]) + b"".join(map(_packed, value))
        case dict():
            return bytes([0xD8, len(value)]) + b"".join(_packed(k) + _packed(v) for k, v in value.items())
    raise TypeError(type(value))
