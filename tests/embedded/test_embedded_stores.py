"""Tests on the servers that the whole run shares."""

from __future__ import annotations

import urllib.request

import psutil
import pytest
from neo4j import GraphDatabase
from pymilvus import MilvusClient
from pymongo import MongoClient
from redis import Redis

from recs import embedded
from recs.settings import Settings

pytestmark = pytest.mark.servers


def test_every_store_answers_its_client(servers: Settings) -> None:
    with MongoClient(servers.mongo_url) as mongo:
        mongo["recs"]["embedded"].insert_one({"_id": "a", "n": 1})
        assert mongo["recs"]["embedded"].find_one({"_id": "a"}) == {"_id": "a", "n": 1}
        mongo["recs"].drop_collection("embedded")
    milvus = MilvusClient(servers.milvus_url)
    assert isinstance(milvus.list_collections(), list)
    milvus.close()
    auth = (servers.neo4j_user, servers.neo4j_password.get_secret_value())
    with GraphDatabase.driver(servers.neo4j_url, auth=auth) as graph:
        assert graph.execute_query("RETURN 1 AS one", database_=servers.neo4j_database).records[0]["one"] == 1
    with Redis.from_url(servers.redis_url) as redis:
        assert redis.ping()


def test_servers_listen_on_loopback_alone(servers: Settings) -> None:
    shared = Settings(home=servers.home)
    found = {status.service: status.pid for status in embedded.status(shared) if status.state == "up"}
    assert set(embedded.STORES) <= set(found)
    for service, pid in found.items():
        listening = [
            c.laddr.ip.removeprefix("::ffff:")
            for c in psutil.Process(pid).net_connections()
            if c.status == psutil.CONN_LISTEN
        ]
        assert listening, service
        assert set(listening) == {"127.0.0.1"}, service


def test_prefect_joins_the_servers_that_are_up(prefect_servers: Settings) -> None:
    with urllib.request.urlopen(f"{prefect_servers.prefect_url}/health", timeout=10) as answer:
        assert answer.read() == b"true"
    with urllib.request.urlopen(prefect_servers.prefect_url.removesuffix("/api"), timeout=10) as answer:
        assert b"<html" in answer.read()  # its user interface
    statuses = embedded.status(Settings(home=prefect_servers.home))
    assert {status.state for status in statuses} == {"up"}
    prefect = statuses[embedded.SERVICES.index("prefect")]
    listening = {c.laddr.ip for c in psutil.Process(prefect.pid).net_connections() if c.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}
