"""One real query per server, over the protocol that its clients speak. Drivers are imported where they are used:
a command that needs the cache alone does not pay for the others (the graph's and the vectors' take a second each).
"""

from __future__ import annotations

import importlib
import json
import logging
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from recs.errors import EmbeddedServerError

_CALL_SECONDS = 5.0
_REFUSED_SECONDS = 3.0


_DRIVERS = {"mongo": "pymongo", "milvus": "pymilvus", "neo4j": "neo4j", "redis": "redis", "prefect": "urllib.request"}


def load_driver(service: str) -> None:
    """Import what `probe` needs; worth doing while the server starts."""
    importlib.import_module(_DRIVERS[service])


def probe(
    service: str, address: Mapping[str, str], mongo_database: str, *, seconds: float, given_up: threading.Event
) -> None:
    """Return once the server has answered its query; raises EmbeddedServerError when it has not after `seconds`."""
    started = time.monotonic()
    pause = 0.02
    while True:
        try:
            match service:
                case "mongo":
                    _mongo(address["mongo_url"], mongo_database)
                case "milvus":
                    _milvus(address["milvus_url"])
                case "neo4j":
                    _neo4j(address)
                case "redis":
                    _redis(address["redis_url"])
                case "prefect":
                    _prefect(address["prefect_url"])
            return
        except _NotYetError as exc:
            # What a server refuses for a few seconds on end, it refuses for good.
            limit = _REFUSED_SECONDS if isinstance(exc, _RefusedError) else seconds
            if time.monotonic() - started > limit or given_up.wait(pause):
                raise EmbeddedServerError(f"does not answer a query: {exc}") from exc
        pause = min(pause * 1.5, 0.5)


class _NotYetError(Exception):
    """The server did not answer as it should; it may a moment later."""


class _RefusedError(_NotYetError):
    """The server answered, and the answer was an error."""


def _mongo(url: str, database: str) -> None:
    from pymongo import MongoClient
    from pymongo.errors import OperationFailure, PyMongoError

    milliseconds = int(_CALL_SECONDS * 1000)
    try:
        with MongoClient[dict[str, object]](
            url,
            serverSelectionTimeoutMS=milliseconds,
            connectTimeoutMS=milliseconds,
            socketTimeoutMS=milliseconds,
        ) as client:
            client.admin.command("ping")
            mark = client["recs_probe"]["probe"]
            # With the _id in the replacement too: nx-27017 makes up one of its own otherwise.
            mark.replace_one({"_id": "probe"}, {"_id": "probe", "at": time.time()}, upsert=True)
            if mark.find_one({"_id": "probe"}) is None:
                raise _NotYetError("a document that was written is not found")
            client[database].list_collection_names()  # opens the file that holds the data
    except OperationFailure as exc:
        raise _RefusedError(str(exc)) from exc
    except PyMongoError as exc:
        raise _NotYetError(str(exc)) from exc


def _milvus(url: str) -> None:
    pymilvus, grpc = importlib.import_module("pymilvus"), importlib.import_module("grpc")
    with _silenced("pymilvus.decorators", "pymilvus.client.connection_manager"):
        _list_collections(url, pymilvus, grpc)


def _list_collections(url: str, pymilvus: Any, grpc: Any) -> None:
    try:
        client = pymilvus.MilvusClient(url, timeout=_CALL_SECONDS)
        try:
            client.list_collections(timeout=_CALL_SECONDS)
        except pymilvus.MilvusException as exc:
            raise _RefusedError(str(exc)) from exc
        finally:
            client.close()
    except (pymilvus.MilvusException, grpc.RpcError) as exc:
        raise _NotYetError(str(exc)) from exc


@contextmanager
def _silenced(*names: str) -> Iterator[None]:
    """Keep loggers quiet: pymilvus logs a traceback for each failure, which here is part of waiting."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


def _neo4j(address: Mapping[str, str]) -> None:
    from neo4j import GraphDatabase
    from neo4j.exceptions import DriverError, Neo4jError

    try:
        with GraphDatabase.driver(
            address["neo4j_url"],
            auth=(address["neo4j_user"], address["neo4j_password"]),
            connection_timeout=_CALL_SECONDS,
            max_transaction_retry_time=0,
        ) as driver:
            driver.execute_query("RETURN 1", database_=address["neo4j_database"])
    except (DriverError, Neo4jError) as exc:
        raise _NotYetError(str(exc)) from exc


def _redis(url: str) -> None:
    from redis import Redis
    from redis.exceptions import AuthenticationError, RedisError

    try:
        with Redis.from_url(url, socket_timeout=_CALL_SECONDS, socket_connect_timeout=_CALL_SECONDS) as client:
            client.ping()
    except AuthenticationError as exc:
        raise _RefusedError(str(exc)) from exc
    except RedisError as exc:
        raise _NotYetError(str(exc)) from exc


def _prefect(url: str) -> None:
    # A proxy from the environment has no business with the loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    query = urllib.request.Request(  # noqa: S310  (our own http address)
        f"{url}/flows/filter", data=b'{"limit": 1}', headers={"Content-Type": "application/json"}
    )
    try:
        with opener.open(f"{url}/health", timeout=_CALL_SECONDS) as answer:
            healthy = json.load(answer)
        with opener.open(query, timeout=_CALL_SECONDS) as answer:
            flows = json.load(answer)
    except (OSError, ValueError) as exc:  # URLError and a time-out are OSErrors
        raise _NotYetError(str(exc)) from exc
    if healthy is not True or not isinstance(flows, list):
        raise _NotYetError(f"answers {healthy!r}, {flows!r}")
