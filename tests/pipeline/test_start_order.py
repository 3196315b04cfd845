"""The flow started before what it needs: it ends with one line that says what is missing, and nothing is half done."""

from __future__ import annotations

import pytest
from support import fresh_settings, run_python


@pytest.mark.parametrize(
    ("missing", "url", "said"),
    [
        ("mongo_url", "mongodb://127.0.0.1:{}", "documents: no answer from MongoDB at 127.0.0.1:{}"),
        ("neo4j_url", "bolt://127.0.0.1:{}", "graph: no answer from Neo4j at bolt://127.0.0.1:{}"),
        ("state_url", "postgresql://u:p@127.0.0.1:{}/d", "state: postgresql+psycopg://u:***@127.0.0.1:{}/d"),
        ("prefect_url", "http://127.0.0.1:{}/api", "no answer from Prefect at http://127.0.0.1:{}/api"),
    ],
)
def test_what_is_missing_is_named(prefect_servers, tmp_path, closed_port, missing, url, said):
    settings = fresh_settings(prefect_servers, tmp_path, "early")
    settings = settings.model_copy(update={missing: url.format(closed_port), "load_timeout_seconds": 2.0})
    ended = run_python(settings, "pipeline")
    assert ended.returncode == 1
    assert f"recs: {said.format(closed_port)}" in ended.stderr
    assert "Traceback" not in ended.stderr
