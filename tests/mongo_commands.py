"""All that may be sent to MongoDB: what its manual documents for a standalone server, and no more than is needed.

Every update names its document by the shard key besides, so that a sharded cluster takes it too.

mongod itself does not run in these tests, so the list stands in for it: a command, option or operator that is not
here may be unknown to one of its versions, or to a server that speaks its protocol.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pymongo import monitoring

#: Command to its own options. docs/real-servers.md repeats it.
COMMANDS: dict[str, set[str]] = {
    "buildInfo": set(),
    "count": set(),
    "createIndexes": {"indexes"},
    "delete": {"deletes", "ordered"},
    "endSessions": set(),
    "find": {"batchSize", "filter", "limit", "projection", "singleBatch", "sort"},
    "getMore": {"batchSize", "collection"},
    "insert": {"documents", "ordered"},
    "killCursors": {"cursors"},
    "ping": set(),
    "update": {"ordered", "updates"},
}
#: What the driver adds to any command.
COMMON = {"$db", "$readPreference", "lsid", "maxTimeMS"}
#: Per statement of an update or a delete, and per index.
PARTS = {"deletes": {"limit", "q"}, "updates": {"multi", "q", "u", "upsert"}, "indexes": {"key", "name"}}
OPERATORS = {"$gt", "$in"}
#: What each collection may be sharded by; see docs/scaling.md. Where it is, an upsert of one document has to name it.
SHARD_KEYS = {"conversations": "user_key", "conversation_parts": "user_key", "changes": "_id", "campaigns": "_id"}
#: Sent by the tests themselves, and by the health check of the embedded server alone.
OF_TESTS = {"drop", "dropDatabase", "listCollections"}


def beyond(command: Mapping[str, Any]) -> set[str]:
    """Return what in a command is not in the list."""
    name, *options = command
    if name in OF_TESTS:
        return set()
    if name not in COMMANDS:
        return {name}
    found = {f"{name}.{option}" for option in options if option not in COMMANDS[name] | COMMON}
    for option, allowed in PARTS.items():
        for part in command.get(option, ()):
            found |= {f"{option}.{key}" for key in part if key not in allowed}
            # A replacement holds fields alone; an operator in it makes it another kind of update.
            found |= _operators(part.get("q", {})) | {key for key in part.get("u", {}) if key.startswith("$")}
    return found | _operators(command.get("filter", {})) | _unsharded(command)


def _unsharded(command: Mapping[str, Any]) -> set[str]:
    """Return the writes to single documents that a sharded cluster would refuse, or leave on another shard."""
    collection = next(iter(command.values()))  # of some commands a number, or a list
    key = SHARD_KEYS.get(collection) if isinstance(collection, str) else None
    if key is None:
        return set()
    found = set()
    for part in command.get("updates", ()):
        named = part["q"].get(key)
        # A replacement with another value would have to move to another shard, which takes a transaction.
        if part.get("multi") or not isinstance(named, str) or part["u"].get(key) != named:
            found.add(f"update of {collection} without its {key}")
    if any(key not in part["q"] for part in command.get("deletes", ()) if part["limit"]):
        found.add(f"delete of one of {collection} without its {key}")
    return found


def _operators(query: Any) -> set[str]:
    return {key for key in _keys(query) if key.startswith("$")} - OPERATORS


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield key
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)


class Watch(monitoring.CommandListener):
    """Collects what is beyond the list, of every client that is made after it was registered."""

    def __init__(self) -> None:
        self.beyond: set[str] = set()
        self.met: set[str] = set()

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.met.add(event.command_name)
        self.beyond |= beyond(event.command)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None: ...

    def failed(self, event: monitoring.CommandFailedEvent) -> None: ...
