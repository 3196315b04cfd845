"""The layout of Milvus's collections: its version is in the name of an empty collection, `recs_layout_{version}`.

In the name, because milvus-lite forgets the description of a collection, not every Milvus takes properties of ours, and
a row could only be read once its collection was loaded. Names cost one call, and no memory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pymilvus import DataType, MilvusException  # type: ignore[import-untyped]

from recs.stores.layouts import Layout

_NAME = re.compile(r"recs_layout_(\d+)")


@dataclass(frozen=True, slots=True)
class Milvus:
    """A client, and how long it may wait."""

    client: Any
    timeout_seconds: float

    def names(self) -> list[str]:
        return list(self.client.list_collections(timeout=self.timeout_seconds))


def _found(milvus: Milvus) -> int | None:
    names = milvus.names()
    # Where a migration was cut off between making the new one and dropping the old, the new one holds.
    version = max((int(match[1]) for match in map(_NAME.fullmatch, names) if match), default=None)
    if version is None and any(name.startswith("recs_") for name in names):
        return 1
    return version


def _keep(milvus: Milvus, version: int) -> None:
    client, bounded, kept = milvus.client, {"timeout": milvus.timeout_seconds}, f"recs_layout_{version}"
    names = milvus.names()
    if kept not in names:
        schema = client.create_schema()
        schema.add_field("pk", DataType.INT64, is_primary=True)
        schema.add_field("none", DataType.FLOAT_VECTOR, dim=2)  # there is no collection without vectors
        try:
            client.create_collection(kept, schema=schema, num_shards=1, **bounded)
        except MilvusException:
            if kept not in milvus.names():  # another process was first
                raise
    for name in names:
        if name != kept and _NAME.fullmatch(name):
            client.drop_collection(name, **bounded)


LAYOUT: Layout[Milvus] = Layout("vectors", "RECS_MILVUS_URL", _found, _keep, version=1)
