"""Raw conversations, their changes and the campaign catalogue in MongoDB, by pymongo.

Written for what every MongoDB speaks, the standalone and the look-alikes included: single-field indexes, `$in` of a
few hundred ids, unordered inserts, small bulks of replace-upserts. No sessions, no transactions, no retried writes:
each write is an upsert by key, so a caller repeats it instead.

A conversation is one document, keyed by its id. One that is large keeps its body in `conversation_parts`, because
MongoDB holds 16 MiB a document and answers of many large documents outgrow a message.

The same code writes to a cluster on which `conversations` and `conversation_parts` are sharded by `user_key`: every
replacement names that key, and what another user holds under the same id is removed first, since each shard by itself
would take it for a different document. `changes` may be sharded by `_id`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC
from typing import Any, TypeVar

import bson
from bson.codec_options import CodecOptions
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient, ReplaceOne
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import BulkWriteError, ConnectionFailure, ExecutionTimeout, PyMongoError
from pymongo.uri_parser import parse_uri

from recs.errors import StoreError, StoreUnavailableError
from recs.model import Campaign, Change, StoredConversation
from recs.stores import _document_layout as layout
from recs.stores.layouts import Layout, VersionGuard
from recs.stores.layouts.documents import LAYOUT
from recs.stores.ports import Check

_Document = dict[str, Any]
_UTC: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True)
_T = TypeVar("_T")

_IDS_PER_QUERY = 200
_WRITES_PER_BULK = 200  # FerretDB hangs on larger updates, so others may
_INSERTS_PER_BULK = 500
_SCAN_PAGE = 200
_REPLY_DOCUMENTS = 100
"""Documents a reply holds: times `_INLINE_BYTES` it stays well under the 48 MB that a message may have."""
_INLINE_BYTES = 256 * 1024
_PART_BYTES = 4 * 1024 * 1024
_DUPLICATE_KEY = 11000
_LONGEST_PAUSE = 0.05


class MongoDocuments:
    """The document store on a MongoDB at `url`; connects at first use."""

    def __init__(
        self,
        url: str,
        *,
        database: str = "recs",
        timeout_seconds: float = 2.0,
        kept: Layout[Database[_Document]] = LAYOUT,
    ) -> None:
        milliseconds = max(1, round(timeout_seconds * 1000))
        try:
            nodes = parse_uri(url)["nodelist"]
            self._client: MongoClient[_Document] = MongoClient(
                url,
                connect=False,
                tz_aware=True,
                tzinfo=UTC,
                retryWrites=False,
                retryReads=False,
                timeoutMS=milliseconds,
                serverSelectionTimeoutMS=milliseconds,
                connectTimeoutMS=milliseconds,
                appname="recs",
            )
        except (PyMongoError, ValueError) as exc:
            raise StoreError("documents", f"not a MongoDB URL that can be used: {exc}") from exc
        self._address = ",".join(f"{host}:{port}" for host, port in nodes)
        self._timeout_seconds = timeout_seconds
        base = self._base = self._client[database]
        self._guard = VersionGuard(kept, f"MongoDB at {self._address}")
        self._conversations: Collection[_Document] = base["conversations"]
        self._parts: Collection[_Document] = base["conversation_parts"]
        self._changes: Collection[_Document] = base["changes"]
        self._campaigns: Collection[_Document] = base["campaigns"]
        self._indexed = False

    # Conversations

    def hashes(self, conversation_ids: Sequence[str]) -> dict[str, str]:
        found = self._by_id(conversation_ids, {"conversation_id": 1, "content_hash": 1})
        return {d["conversation_id"]: d["content_hash"] for d in found}

    def insert(self, conversations: Sequence[StoredConversation]) -> None:
        with self._errors():
            self._ensure_indexes()
            for batch in _batches(_last_of_each(conversations), _INSERTS_PER_BULK):
                writes = [self._prepare(c) for c in batch]
                # The shards of a cluster do not notice that an id is there already under another user.
                there = {d["_id"] for d in self._find_any([w["_id"] for w in writes], {"_id": 1})}
                known = [w for w in writes if w["_id"] in there]
                new = [w for w in writes if w["_id"] not in there]
                try:
                    if new:
                        self._conversations.insert_many(new, ordered=False)
                except BulkWriteError as exc:
                    known += [new[i] for i in _duplicates(exc)]
                self._replace(known)

    def replace(self, conversations: Sequence[StoredConversation]) -> None:
        with self._errors():
            self._ensure_indexes()
            for batch in _batches(_last_of_each(conversations), _WRITES_PER_BULK):
                self._replace([self._prepare(c) for c in batch])

    def get(self, conversation_ids: Sequence[str]) -> list[StoredConversation]:
        found = {d["conversation_id"]: d for d in self._by_id(conversation_ids)}
        return [self._stored(found[i]) for i in dict.fromkeys(conversation_ids) if i in found]

    def of_users(self, user_ids: Sequence[str], *, texts: bool = True) -> list[StoredConversation]:
        leave_out = None if texts else {"messages": 0}
        # One query a user, 1.7 ms: nx-27017 uses an index for `$in` on `_id` alone, elsewhere it reads everything.
        stored = [
            self._stored(d, texts=texts)
            for user_id in dict.fromkeys(user_ids)
            for d in self._find(self._conversations, {"user_key": layout.key(user_id)}, leave_out)
        ]
        return sorted(stored, key=lambda s: (s.conversation.user_id, s.order_key()))

    def scan(self, *, texts: bool = True) -> Iterator[StoredConversation]:
        leave_out = None if texts else {"messages": 0}
        # By pages, because a sorted cursor is held in memory as a whole by nx-27017.
        last = ""
        while True:
            with self._errors():
                self._ensure_indexes()
                page = list(
                    self._conversations.find({"id_key": {"$gt": last}} if last else {}, leave_out)
                    .sort("id_key", 1)
                    .limit(_SCAN_PAGE)
                    .batch_size(_REPLY_DOCUMENTS)
                )
            for document in page:
                yield self._stored(document, texts=texts)
            if len(page) < _SCAN_PAGE:
                return
            last = page[-1]["id_key"]

    def delete_conversations(self, conversation_ids: Sequence[str]) -> int:
        deleted = 0
        for batch in _batches(list(dict.fromkeys(conversation_ids)), _IDS_PER_QUERY):
            keys = [layout.key(i) for i in batch]
            with self._errors():
                # The parts go first: a call that was cut off is repeated, and the document still names them.
                self._drop_parts(_parts(self._find_any(keys, {"parts": 1})))
                deleted += self._conversations.delete_many({"_id": _any_of(keys)}).deleted_count
        return deleted

    def delete_user(self, user_id: str) -> int:
        user = {"user_key": layout.key(user_id)}
        owned = [d["id_key"] for d in self._find(self._conversations, user, {"id_key": 1})]
        with self._errors():
            # The conversations go last: until then a repeated call still finds what else is to be removed.
            for batch in _batches(owned, _IDS_PER_QUERY):
                self._changes.delete_many({"id_key": _any_of(batch)})
            self._parts.delete_many(user)
            return self._conversations.delete_many(user).deleted_count

    def count(self) -> int:
        with self._errors():
            return self._conversations.estimated_document_count()

    # Changes

    def record_changes(self, changes: Sequence[Change]) -> None:
        with self._errors():
            self._ensure_indexes()
            self._upsert(self._changes, [layout.change_document(c) for c in changes])

    def changes(self, conversation_id: str) -> list[Change]:
        found = self._find(self._changes, {"id_key": layout.key(conversation_id)})
        return sorted(map(layout.change, found), key=lambda c: (c.at, c.run_id, c.old_hash, c.new_hash))

    # Campaigns

    def put_campaigns(self, campaigns: Sequence[Campaign]) -> None:
        latest = {c.campaign_id: c for c in campaigns}
        with self._errors():
            self._ensure_indexes()
            self._upsert(self._campaigns, [layout.campaign_document(c) for c in latest.values()])

    def campaigns(self) -> list[Campaign]:
        return sorted(map(layout.campaign, self._find(self._campaigns, {})), key=lambda c: c.campaign_id)

    def campaign_ids(self) -> set[str]:
        return {d["campaign_id"] for d in self._find(self._campaigns, {}, {"campaign_id": 1})}

    # The store

    def check(self) -> Check:
        began = time.perf_counter()
        with self._errors():
            info = self._client.admin.command("buildInfo")
            counts = {
                "conversations": self._conversations.estimated_document_count(),
                "campaigns": self._campaigns.estimated_document_count(),
                "changes": self._changes.estimated_document_count(),
            }
        # nx-27017 gives its own name here, MongoDB does not name itself.
        product = f"{info.get('process', 'MongoDB')} {info.get('version', '')}".strip()
        return Check("documents", product, (time.perf_counter() - began) * 1000, counts)

    def bring_up_to_date(self) -> None:
        with self._errors(guarded=False):
            self._guard.bring_up_to_date(self._base)

    def close(self) -> None:
        self._client.close()

    def _ensure_indexes(self) -> None:
        if self._indexed:
            return
        self._guard.begin(self._base)
        for collection, fields in (
            (self._conversations, ("id_key", "user_key")),
            (self._parts, ("user_key",)),
            (self._changes, ("id_key",)),
        ):
            for field in fields:
                collection.create_index(field)
        self._indexed = True

    def _prepare(self, stored: StoredConversation) -> RawBSONDocument:
        """Return the encoded document of a conversation, after the parts of a large one are stored."""
        try:
            document = layout.conversation_document(stored)
            encoded = bson.encode(document)
            if len(encoded) <= _INLINE_BYTES:
                return RawBSONDocument(encoded)
            body = bson.encode({field: document.pop(field) for field in layout.BODY_FIELDS})
        except (BSONError, TypeError, ValueError, OverflowError) as exc:
            what = f"conversation {stored.conversation.conversation_id!r} cannot be stored: {exc}"
            raise StoreError("documents", what) from exc
        parts = [body[start : start + _PART_BYTES] for start in range(0, len(body), _PART_BYTES)]
        # Named by content, so that the old document keeps its old parts until the new one stands.
        version = layout.digest(document["user_key"], stored.conversation.conversation_id, stored.content_hash)
        document["parts"] = [f"{version}-{i}" for i in range(len(parts))]
        for part_id, part in zip(document["parts"], parts, strict=True):
            named = {"_id": part_id, "user_key": document["user_key"]}
            self._parts.replace_one(named, {**named, "body": part}, upsert=True)
        return RawBSONDocument(bson.encode(document))

    def _replace(self, writes: Sequence[RawBSONDocument]) -> None:
        for batch in _batches(writes, _WRITES_PER_BULK):
            deadline = time.monotonic() + self._timeout_seconds
            while True:
                try:
                    self._replace_batch(batch)
                    break
                except BulkWriteError as exc:
                    # Somebody else stored one of them in between. MongoDB itself repeats such an upsert only where
                    # the filter is a unique key and nothing more.
                    if not _duplicates(exc) or time.monotonic() > deadline:
                        raise
                # Not in step with the others.
                time.sleep(random.uniform(0, _LONGEST_PAUSE))  # noqa: S311

    def _replace_batch(self, batch: Sequence[RawBSONDocument]) -> None:
        owners = {w["_id"]: w["user_key"] for w in batch}
        before = self._find_any(list(owners), {"user_key": 1, "parts": 1})
        moved = {d["_id"] for d in before if d["user_key"] != owners[d["_id"]]}
        if moved:
            # Until the replacement stands, nobody finds these. A caller that is cut off here repeats the call.
            self._conversations.delete_many({"_id": _any_of(moved)})
        operations: list[Any] = [
            ReplaceOne({"_id": w["_id"], "user_key": w["user_key"]}, w, upsert=True) for w in batch
        ]
        self._conversations.bulk_write(operations, ordered=False)
        self._drop_parts(_parts(before) - _parts(batch))

    def _drop_parts(self, part_ids: Iterable[str]) -> None:
        for batch in _batches(sorted(part_ids), _IDS_PER_QUERY):
            self._parts.delete_many({"_id": _any_of(batch)})

    def _stored(self, document: _Document, *, texts: bool = True) -> StoredConversation:
        if "parts" in document:
            document = {**document, **self._body(document)}
        if not texts:
            document = {**document, "messages": []}
        return layout.stored_conversation(document)

    def _body(self, document: _Document) -> Mapping[str, Any]:
        parts = []
        for part_id in document["parts"]:
            with self._errors():
                part = self._parts.find_one({"_id": part_id, "user_key": document["user_key"]})
            if part is None:
                raise StoreError(
                    "documents", f"conversation {document['conversation_id']!r} lacks its part {part_id}; load it again"
                )
            parts.append(part["body"])
        return bson.decode(b"".join(parts), _UTC)

    def _by_id(self, conversation_ids: Sequence[str], fields: Mapping[str, int] | None = None) -> Iterator[_Document]:
        for batch in _batches(list(dict.fromkeys(conversation_ids)), _IDS_PER_QUERY):
            yield from self._find(self._conversations, {"_id": _any_of(map(layout.key, batch))}, fields)

    def _find_any(self, keys: Sequence[str], fields: Mapping[str, int]) -> list[_Document]:
        return [
            document
            for batch in _batches(keys, _IDS_PER_QUERY)
            for document in self._conversations.find({"_id": _any_of(batch)}, fields).batch_size(_IDS_PER_QUERY + 1)
        ]

    def _find(
        self, collection: Collection[_Document], query: Mapping[str, Any], fields: Mapping[str, int] | None = None
    ) -> list[_Document]:
        with self._errors():
            return list(collection.find(query, fields).batch_size(_REPLY_DOCUMENTS))

    def _upsert(self, collection: Collection[_Document], documents: Sequence[_Document]) -> None:
        for batch in _batches(documents, _WRITES_PER_BULK):
            collection.bulk_write([ReplaceOne({"_id": d["_id"]}, d, upsert=True) for d in batch], ordered=False)

    @contextmanager
    def _errors(self, *, guarded: bool = True) -> Iterator[None]:
        try:
            if guarded:
                self._guard.let_pass(self._base)
            yield
        except (ConnectionFailure, ExecutionTimeout) as exc:
            raise self._unavailable(exc) from exc
        except PyMongoError as exc:
            if exc.timeout:
                raise self._unavailable(exc) from exc
            raise StoreError("documents", f"MongoDB at {self._address} refused: {_said(exc)}") from exc

    def _unavailable(self, exc: Exception) -> StoreUnavailableError:
        what = f"no answer from MongoDB at {self._address} within {self._timeout_seconds:g} s ({type(exc).__name__})"
        return StoreUnavailableError("documents", what)


def _parts(documents: Iterable[Mapping[str, Any]]) -> set[str]:
    return {part for d in documents for part in d.get("parts", ())}


def _any_of(values: Iterable[str]) -> dict[str, list[str]]:
    return {"$in": list(values)}


def _batches(rows: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _last_of_each(conversations: Sequence[StoredConversation]) -> list[StoredConversation]:
    return list({c.conversation.conversation_id: c for c in conversations}.values())


def _said(exc: PyMongoError) -> str:
    """Return what the server said, without the documents that it said it about."""
    if not isinstance(exc, BulkWriteError):
        return str(exc)
    errors = [*exc.details["writeErrors"], *exc.details["writeConcernErrors"]]
    return f"{len(errors)} writes, the first because {errors[0]['errmsg']}" if errors else type(exc).__name__


def _duplicates(exc: BulkWriteError) -> list[int]:
    """Return the places of the documents that were there already; re-raises where anything else went wrong."""
    failed = exc.details["writeErrors"]
    if exc.details.get("writeConcernErrors") or any(e["code"] != _DUPLICATE_KEY for e in failed):
        raise exc
    return [e["index"] for e in failed]
