"""The flow as a process: counts, idempotence, what stops it, and being killed after every stage."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import ROOT, environment, fresh_settings, run_python

from recs.batch.check import check_stores
from recs.batch.fingerprint import fingerprint
from recs.bootstrap import connect

STAGES = ("validate", "load raw", "load relationships", "embed", "load vectors", "load aggregates", "publish")


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """A slice of the sample: the first 60 conversations, the catalogue, and the preferences."""
    folder = tmp_path_factory.mktemp("sample")
    conversations = json.loads((ROOT / "data/sample_conversations.json").read_text())[:60]
    (folder / "c.jsonl").write_text("".join(json.dumps(c) + "\n" for c in conversations))
    return folder / "c.jsonl", ROOT / "data/sample_campaigns.json", ROOT / "data/sample_preferences.jsonl"


def arguments(sample, out=None):
    conversations, campaigns, preferences = map(str, sample)
    told = ["pipeline", conversations, "--campaigns", campaigns, "--preferences", preferences]
    return [*told, "--json", str(out)] if out else told


def figures(path):
    return json.loads(path.read_text())["figures"]


def state_of(settings):
    stores = connect(settings)
    try:
        return fingerprint(stores), check_stores(stores, max_text_chars=20_000).findings
    finally:
        stores.close()


@pytest.fixture(scope="module")
def undisturbed(prefect_servers, sample, tmp_path_factory):
    """Fingerprint and figures of one run that nobody disturbed, and of the same run again."""
    home = tmp_path_factory.mktemp("undisturbed")
    settings = fresh_settings(prefect_servers, home, "undisturbed")
    first = run_python(settings, *arguments(sample, home / "first.json"))
    assert first.returncode == 0, first.stderr
    found, findings = state_of(settings)
    assert findings == []
    again = run_python(settings, *arguments(sample, home / "again.json"))
    assert again.returncode == 0, again.stderr
    assert state_of(settings)[0] == found
    return found, first.stdout, figures(home / "first.json"), again.stdout, figures(home / "again.json")


def test_a_run_tells_what_it_did(undisturbed):
    _, told, counts, _, _ = undisturbed
    assert "published generation 1" in told
    assert counts["read"] == counts["loaded"] == 60
    assert counts["rejected"] == counts["duplicate"] == counts["updated"] == 0
    assert counts["embedded"] > 100
    assert counts["seconds"] > 0


def test_the_same_input_again_publishes_nothing(undisturbed):
    _, _, _, told, counts = undisturbed
    assert "nothing changed" in told
    assert (counts["read"], counts["duplicate"], counts["loaded"], counts["embedded"]) == (60, 60, 0, 0)


@pytest.mark.timeout(900)
def test_killed_after_every_stage_it_ends_in_the_same_state(undisturbed, prefect_servers, sample, tmp_path):
    settings = fresh_settings(prefect_servers, tmp_path, "killed")
    for stage in STAGES:
        with subprocess.Popen(
            [sys.executable, "-m", *arguments(sample)],
            env=environment(settings),
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            lines = []
            for line in process.stderr:
                lines.append(line)
                if line.startswith(f"{stage}:"):
                    process.send_signal(signal.SIGKILL)
                    break
            else:
                pytest.fail(f"the stage {stage!r} was never reached: {''.join(lines)}")
    last = run_python(settings, *arguments(sample))
    assert last.returncode == 0, last.stderr
    found, findings = state_of(settings)
    assert findings == []
    assert found == undisturbed[0]
    assert not list(tmp_path.glob("staging/*"))


def test_mostly_rejects_stop_the_run_before_anything_is_loaded(prefect_servers, tmp_path):
    settings = fresh_settings(prefect_servers, tmp_path / "h", "rejects")
    path = tmp_path / "bad.jsonl"
    path.write_text('{"conversation_id": "1", "user_id": "u", "messages": []}\n' + "no JSON\n" * 3)
    result = run_python(settings, "pipeline", str(path))
    assert result.returncode == 1
    assert "RECS_MAX_REJECT_SHARE=0.5" in result.stderr
    assert "Traceback" not in result.stderr
    stores = connect(settings)
    try:
        assert stores.documents.count() == 0
        assert stores.state.head().generation == 0
        [run] = stores.state.runs()
        assert run.outcome == "failed"
        assert (run.counts["read"], run.counts["rejected"]) == (4, 3)
    finally:
        stores.close()
    listed = run_python(settings, "recs", "quarantine", "list")
    assert "3 in the quarantine (3 shown): 3 " in listed.stdout
    # Tried again, it is no surprise that they are rejected.
    replayed = run_python(settings, "recs", "quarantine", "replay")
    assert replayed.returncode == 0, replayed.stderr
    listed = run_python(settings, "recs", "quarantine", "list")
    assert "3 in the quarantine (3 shown): 3 " in listed.stdout


def test_a_rebuild_writes_beside_and_switches(undisturbed, prefect_servers, sample, tmp_path):
    settings = fresh_settings(prefect_servers, tmp_path, "rebuild")
    assert run_python(settings, *arguments(sample)).returncode == 0
    result = run_python(settings, *arguments(sample), "--rebuild")
    assert result.returncode == 0, result.stderr
    stores = connect(settings)
    try:
        generation = stores.state.generation()
        assert (generation.number, generation.build) == (2, "b2")
        assert set(stores.vectors.builds()) == {"b1", "b2"}
    finally:
        stores.close()
    found, findings = state_of(settings)
    assert findings == []
    assert found == undisturbed[0]


def test_a_missing_file_is_said_before_anything_starts(tmp_path, servers):
    settings = servers.model_copy(update={"home": tmp_path})
    result = run_python(settings, "recs", "run", "nowhere.jsonl")
    assert result.returncode == 1
    assert result.stderr == "recs: nowhere.jsonl does not exist; a file of records is needed\n"


def test_a_schedule_runs_again_and_again(prefect_servers, sample, tmp_path):
    """Also after a run that failed: here the file of conversations is away for a while."""
    settings = fresh_settings(prefect_servers, tmp_path, "every")
    conversations = Path(shutil.copy(sample[0], tmp_path))
    away = conversations.with_suffix(".away")
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments((conversations, *sample[1:])), "--every", "2"],
        env=environment(settings),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    stores = connect(settings)

    def wait_for(outcome):
        while process.poll() is None and outcome not in (met := [run.outcome for run in stores.state.runs()]):
            time.sleep(0.2)
        assert process.poll() is None
        return met

    try:
        wait_for("published")
        wait_for("unchanged")
        conversations.rename(away)
        wait_for("failed")
        away.rename(conversations)
        seen = len(wait_for("unchanged"))
        while len(stores.state.runs()) == seen:
            time.sleep(0.2)
    finally:
        stores.close()
        # Not by SIGINT: where the tests run in the background of a shell, it is ignored in all that they start.
        process.terminate()
        said = process.communicate(timeout=60)[1]
    assert f"recs: [Errno 2] No such file or directory: '{conversations}'" in said
