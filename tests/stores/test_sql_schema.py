"""Opening SQL stores: schemas brought up to date, and servers and files that are in trouble."""

from __future__ import annotations

import contextlib
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from recs.errors import SchemaVersionError, StoreError, StoreUnavailableError
from recs.model import Generation, Head, Preferences
from recs.stores import metrics, migrations, state_schema
from recs.stores.metrics import SqlMetrics
from recs.stores.migrations import upgrade
from recs.stores.ports import RunRecord
from recs.stores.state import SqlState


@pytest.fixture
def store(sql_url: str) -> Iterator[SqlState]:
    opened = SqlState(sql_url, timeout_seconds=20)
    yield opened
    opened.close()


OPENER = """
import sys
from recs.stores.metrics import SqlMetrics
from recs.stores.migrations import upgrade
from recs.stores.ports import RunRecord
from recs.stores.state import SqlState
print("ready", flush=True)
sys.stdin.readline()
state, metrics = SqlState(sys.argv[1], timeout_seconds=20), SqlMetrics(sys.argv[1], timeout_seconds=20)
print(state.head(), metrics.counts()["facts"])
"""


class TestSchema:
    def test_both_stores_share_a_database(self, sql_url: str) -> None:
        for _ in range(2):
            state, facts = SqlState(sql_url), SqlMetrics(sql_url)
            assert state.head() == Head(0, 0)
            assert facts.counts()["facts"] == 0
            state.close()
            facts.close()

    def test_processes_that_open_it_at_once_take_turns(self, sql_url: str) -> None:
        command = [sys.executable, "-c", OPENER, sql_url]
        openers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(4)
        ]
        for opener in openers:
            assert opener.stdout
            assert opener.stdout.readline() == "ready\n"
        ends = [opener.communicate("go\n", timeout=200) for opener in openers]
        assert ends == [("Head(generation=0, revision=0) 0\n", "")] * 4

    def test_a_newer_schema_is_refused(self, sql_url: str) -> None:
        store = SqlState(sql_url)
        with store._db.write() as connection:
            connection.execute(sa.text("UPDATE recs_state_version SET version_num = '9999'"))
        store.close()
        with pytest.raises(SchemaVersionError, match=r"9999.*install the newer version.*RECS_STATE_URL"):
            SqlState(sql_url)

    def test_an_older_schema_is_migrated_with_nothing_lost(self, sql_url: str) -> None:
        store = SqlState(sql_url)
        _fill(store)
        before = _all_of(store)
        # Back to what the first version made.
        with store._db.write() as connection:
            connection.execute(sa.text("DROP TABLE secrets"))
            connection.execute(sa.text("DROP TABLE artifacts"))
            for column in ("text_weights", "fit"):
                connection.execute(sa.text(f"ALTER TABLE generations DROP COLUMN {column}"))
            connection.execute(sa.text("UPDATE recs_state_version SET version_num = '0001'"))
        store.close()
        for _ in range(2):
            store = SqlState(sql_url)
            assert _all_of(store) == before
            assert store.secret("s", lambda: b"first") == b"first"
            with store._db.read() as connection:
                assert migrations.found_version(connection, "state") == "0004"
            store.close()

    def test_a_backup_taken_while_it_is_in_use_brings_everything_back(self, sql_url: str, tmp_path: Path) -> None:
        """By the commands of docs/operations.md."""
        store = SqlState(sql_url)
        _fill(store)
        before, secret = _all_of(store), store.secret("s", lambda: b"\0secret")
        kept = _back_up(sql_url, tmp_path)
        store.put_preferences([Preferences(user_id="bob", profiling=False)])
        store.close()
        _restore(sql_url, kept)
        store = SqlState(sql_url)
        assert _all_of(store) == before
        assert store.secret("s", lambda: b"another") == secret
        store.close()

    @pytest.mark.parametrize("schema", ["state", "metrics"])
    def test_the_revisions_end_where_the_code_expects(self, schema: migrations.Schema) -> None:
        assert upgrade.scripts(schema).get_current_head() == migrations.HEADS[schema]

    def test_the_revisions_make_the_tables_that_the_code_uses(self, sql_url: str) -> None:
        state, facts = SqlState(sql_url), SqlMetrics(sql_url)
        with state._db.read() as connection:
            context = MigrationContext.configure(connection, opts={"include_object": _is_ours})
            tables = sa.MetaData()
            for table in [*state_schema.METADATA.sorted_tables, *metrics.METADATA.sorted_tables]:
                table.to_metadata(tables)
            assert compare_metadata(context, tables) == []
        state.close()
        facts.close()


AT = datetime(2026, 3, 1, 10, tzinfo=UTC)


def _fill(store: SqlState) -> None:
    store.put_preferences([Preferences(user_id="ann", profiling=False, channels={"post": True})])
    store.add_pending({"c1": "ann"})
    store.record_shown("r1", "ann", 1, '{"items": []}')
    store.put_run(RunRecord("r0", AT, AT, "published", counts={"read": 3}))
    store.publish(Generation(1, "b1", "m", "r0", AT, None, {"content": 0.5}, {"content": 2.0}, (0.5, -0.25), 7))


def _back_up(url: str, folder: Path) -> Path:
    parts = sa.make_url(url)
    if parts.get_backend_name() == "sqlite":
        assert parts.database
        kept = folder / "kept.db"
        with closing(sqlite3.connect(parts.database)) as source, closing(sqlite3.connect(kept)) as target:
            source.backup(target)
        return kept
    kept = folder / "kept.dump"
    schema = str(parts.query["options"]).partition("search_path=")[2]
    _postgres("pg_dump", url, "--format=custom", f"--schema={schema}", f"--file={kept}")
    return kept


def _restore(url: str, kept: Path) -> None:
    parts = sa.make_url(url)
    if parts.get_backend_name() == "sqlite":
        assert parts.database
        for file in Path(parts.database).parent.glob(f"{Path(parts.database).name}*"):
            file.unlink()  # the write-ahead log too: it belongs to the lost one
        shutil.copy(kept, parts.database)
        return
    _postgres("pg_restore", url, "--clean", "--if-exists", "--single-transaction", str(kept))


def _postgres(program: str, url: str, *arguments: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"no {program}: Debian's postgresql-client has it")
    plain = sa.make_url(url).set(drivername="postgresql", query={}).render_as_string(hide_password=False)
    done = subprocess.run([program, f"--dbname={plain}", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _all_of(store: SqlState) -> list[object]:
    found = [store.head(), store.generation(), store.runs(), store.pending(), list(store.all_preferences())]
    return [*found, store.shown("r1"), store.dirty_marks(), store.running()]


def _is_ours(_object: object, name: str | None, *_: object) -> bool:
    return not str(name).endswith("_version")


class TestTrouble:
    def test_check_names_the_product(self, store: SqlState) -> None:
        check = store.check()
        assert check.role == "state"
        assert check.product.split()[0] in ("SQLite", "PostgreSQL")

    def test_closing_twice_is_harmless(self, sql_url: str) -> None:
        store = SqlState(sql_url)
        store.close()
        store.close()

    @pytest.mark.parametrize("port_fixture", ["tarpit", "closed_port"])
    def test_a_dead_server_is_reported_in_time(self, request: pytest.FixtureRequest, port_fixture: str) -> None:
        port = request.getfixturevalue(port_fixture)
        started = time.monotonic()
        with pytest.raises(StoreUnavailableError) as caught:
            SqlState(f"postgresql://ann:s3cret@127.0.0.1:{port}/recs", timeout_seconds=0.5)
        assert time.monotonic() - started < 4
        assert "s3cret" not in str(caught.value)
        assert f"ann:***@127.0.0.1:{port}/recs" in str(caught.value)

    def test_a_file_that_is_no_database_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "store.db").write_text("hello " * 1000)
        with pytest.raises(StoreError, match="not a database") as caught:
            SqlState(f"sqlite:///{tmp_path}/store.db")
        assert not isinstance(caught.value, StoreUnavailableError)

    def test_a_place_that_cannot_be_written_is_reported(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StoreError, match=r"folder .*/file of sqlite:.* cannot be made"):
            SqlState(f"sqlite:///{tmp_path}/file/store.db")
        (tmp_path / "folder.db").mkdir()
        with pytest.raises(StoreError, match="unable to open"):
            SqlState(f"sqlite:///{tmp_path}/folder.db")

    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("no url at all", "cannot be read"),
            ("sqlite://", "in memory"),
            ("sqlite:///:memory:", "in memory"),
            ("nosuchengine://host/db", "no driver"),
        ],
    )
    def test_urls_that_cannot_work_are_refused(self, url: str, message: str) -> None:
        with pytest.raises(StoreError, match=message):
            SqlState(url)

    def test_a_held_write_lock_is_reported_in_time(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/store.db"
        holder, other = SqlState(url), SqlState(url, timeout_seconds=0.2)
        with holder._db.write():
            assert other.head() == Head(0, 0)  # readers are not held up
            started = time.monotonic()
            for call in (other.mark_dirty, lambda: other.record_shown("r", None, 1, "{}")):
                with pytest.raises(StoreUnavailableError, match="locked"):
                    call()
            assert time.monotonic() - started < 5
        other.mark_dirty()
        holder.close()
        other.close()

    def test_a_statement_that_takes_too_long_is_ended(self, sql_url: str) -> None:
        store = SqlState(sql_url, timeout_seconds=0.3)
        if not store._db.is_postgresql:
            pytest.skip("SQLite has no server that could be late")
        started = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="statement timeout"), store._db.read() as connection:
            connection.exec_driver_sql("SELECT pg_sleep(20)")
        assert time.monotonic() - started < 2
        assert store.head() == Head(0, 0)
        store.close()

    def test_a_server_that_falls_silent_is_reported_in_time_and_found_again(self, sql_url: str) -> None:
        url = sa.make_url(sql_url)
        if url.get_backend_name() == "sqlite":
            pytest.skip("SQLite has no server that could fall silent")
        with Proxy(url.host or "127.0.0.1", url.port or 5432) as proxy:
            through = url.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)
            store = SqlState(through, timeout_seconds=0.5)
            for call in (store.head, store.is_dirty, store.mark_dirty, lambda: store.run("r"), store.pending):
                store.mark_dirty()
                proxy.silent.set()
                started = time.monotonic()
                with pytest.raises(StoreUnavailableError, match="no answer within"):
                    call()
                assert time.monotonic() - started < 3
                proxy.silent.clear()
            assert store.is_dirty()
            store.close()


class Proxy:
    """Passes bytes on, until it falls silent; connections that were open then stay dead."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self.silent = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._open: list[socket.socket] = []

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in [self._listening, *self._open]:
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(self._target)
                self._open += [near, far]
                threading.Thread(target=self._pump, args=(near, far), daemon=True).start()
                threading.Thread(target=self._pump, args=(far, near), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self.silent.is_set():
                    return
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
