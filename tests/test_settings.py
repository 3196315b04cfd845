"""Settings: documented, checked, and secrets that hide themselves."""

import re
from pathlib import Path

import pytest

from recs.errors import SettingsError
from recs.settings import Settings, load_settings

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(f"RECS_{name.upper()}", raising=False)


def test_every_setting_is_documented_with_its_default():
    table = dict(re.findall(r"^\| `RECS_(\w+)` \| (.+?) \|", (ROOT / "docs/settings.md").read_text(), re.M))
    assert table.keys() == {name.upper() for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        told = table[name.upper()]
        if told.startswith("`"):
            assert told == f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"
        else:
            assert field.default is None


def test_only_the_settings_module_reads_settings_from_the_environment():
    reads = re.compile(r"environ[^\n]*RECS_|getenv\([^\n]*RECS_")
    found = [
        str(path.relative_to(ROOT))
        for folder in ("recs", "app", "pipeline")
        for path in (ROOT / folder).rglob("*.py")
        if reads.search(path.read_text())
    ]
    assert found == []


def test_a_bad_value_is_named_with_what_is_allowed(monkeypatch):
    monkeypatch.setenv("RECS_API_PORT", "99999")
    monkeypatch.setenv("RECS_PRECISION", "float8")
    with pytest.raises(SettingsError, match=r"RECS_PRECISION='float8': .*'bfloat16'[\s\S]*RECS_API_PORT='99999'"):
        load_settings()


def test_weights_are_json(monkeypatch):
    monkeypatch.setenv("RECS_WEIGHTS", '{"content": 0}')
    assert load_settings().weights == {"content": 0.0}


def test_secrets_hide_themselves():
    settings = Settings(neo4j_password="hunter2", milvus_token="root:Milvus")
    assert "hunter2" not in repr(settings)
    assert "root:Milvus" not in repr(settings)
