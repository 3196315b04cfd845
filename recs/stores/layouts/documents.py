"""The layout of MongoDB's documents: its version is the document `layout` of the collection `meta`."""

from __future__ import annotations

from typing import Any

from pymongo.database import Database

from recs.stores.layouts import Layout

_ID = "layout"


def _found(database: Database[dict[str, Any]]) -> int | None:
    document = database["meta"].find_one({"_id": _ID})
    if document is not None:
        return int(document["version"])
    filled = any(database[name].estimated_document_count() for name in ("conversations", "campaigns"))
    return 1 if filled else None


def _keep(database: Database[dict[str, Any]], version: int) -> None:
    database["meta"].replace_one({"_id": _ID}, {"_id": _ID, "version": version}, upsert=True)


LAYOUT: Layout[Database[dict[str, Any]]] = Layout("documents", "RECS_MONGO_URL", _found, _keep, version=1)
