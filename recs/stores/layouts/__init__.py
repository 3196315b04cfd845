"""The version of how data lies in MongoDB, Milvus and Neo4j, kept with the data; `migrations` does it for SQL.

One module per store says how its version is kept and which version this package reads and writes, and holds the steps
that make the next version of each. No version beside data means that it was written before versions were kept, and is
version 1.

The batch flow migrates what is older, under its lock. Everybody else refuses what is not of their version: to read
another layout correctly is what a version cannot promise, and a wrong answer is worse than none. So after an upgrade
the flow runs first, and readers that still run the version before refuse from then on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from recs.errors import SchemaVersionError

H = TypeVar("H")

#: A version that was found is believed for so long: a process that goes on while others migrate finds out.
_BELIEVED_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Layout(Generic[H]):
    """How one kind of store keeps its version. `H` is what its driver offers: a database, a client, a connection."""

    store: str
    setting: str
    """The setting that says where the store is."""
    found: Callable[[H], int | None]
    """Returns the version of the data, None where there is neither version nor data."""
    keep: Callable[[H, int], None]
    """Writes the version, in place of another one; once more does no harm."""
    version: int
    """What this package reads and writes."""
    steps: Mapping[int, Callable[[H], None]] = field(default_factory=dict)
    """Version to what makes the next one of it; may be cut off anywhere and is then run again."""


class VersionGuard(Generic[H]):
    """Stands before one open store and lets nobody pass to data of another version. For several threads."""

    def __init__(self, layout: Layout[H], address: str) -> None:
        self._layout = layout
        self._address = address
        self._believed_until = 0.0

    def let_pass(self, handle: H) -> None:
        """Raise SchemaVersionError unless the data is of the version that this package reads.

        Asks the store once a minute; what the driver raises there comes out as it is.
        """
        if time.monotonic() < self._believed_until:
            return
        found = self._layout.found(handle)
        if found is not None and found != self._layout.version:
            raise self._refusal(found)
        # An empty store has nothing that could be read wrongly, and is most likely about to be filled.
        self._believed_until = time.monotonic() + _BELIEVED_SECONDS

    def begin(self, handle: H) -> None:
        """Write the version of a store that has no data yet; called before the first write."""
        if self._layout.found(handle) is None:
            self._layout.keep(handle, self._layout.version)

    def bring_up_to_date(self, handle: H) -> None:
        """Migrate older data, step by step; for whoever holds the right to run, because nobody else may write.

        Raises SchemaVersionError where the data is newer than what this package knows.
        """
        self._believed_until = 0.0
        found = self._layout.found(handle)
        if found is not None and found > self._layout.version:
            raise self._refusal(found)
        for version in range(self._layout.version if found is None else found, self._layout.version):
            self._layout.steps[version](handle)
            self._layout.keep(handle, version + 1)
        # Data from before versions were kept, too, has its version beside it from now on.
        self._layout.keep(handle, self._layout.version)

    def _refusal(self, found: int) -> SchemaVersionError:
        layout = self._layout
        if found > layout.version:
            knows = f"knows versions up to {layout.version}"
            what = f"install the newer version that wrote it, or point {layout.setting} elsewhere"
        else:
            knows, what = f"reads version {layout.version}", "`recs run` without a file migrates it"
        told = f"{self._address} has layout version {found}, this package {knows}: {what}"
        return SchemaVersionError(layout.store, told)
