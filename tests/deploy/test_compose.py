"""compose.yaml and Dockerfile without a Docker engine: against the specification's schema, the settings, the Makefile,
and by starting the same processes natively with the same variables."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import yaml
from support import ROOT, environment, fresh_settings

from recs.cli.processes import _dashboard_argv
from recs.embedded import process
from recs.settings import Settings

HERE = Path(__file__).parent
TEXT = (ROOT / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()

OURS = {"prefect", "sidecar", "dashboard", "worker"}
#: Those of ours that read RECS_*; Prefect's server has settings of its own.
READERS = OURS - {"prefect"}
#: A setting that says where a store is, or who we are there. The rest have defaults that do.
STORE_SETTINGS = {
    f"RECS_{name.upper()}"
    for name, field in Settings.model_fields.items()
    if field.default is None and re.search(r"_(url|token|user|password|database)$", name)
}

PASSWORD = "s3cret"

_VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>\w+)(?:(?P<how>:\?|:-)(?P<rest>[^}]*))?\})")


def example() -> dict[str, str]:
    """Return the variables of compose.env.example."""
    lines = (ROOT / "compose.env.example").read_text().splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: " ".join(shlex.split(value)) for name, _, value in pairs}


def passwords() -> dict[str, str]:
    """Return the least that has to be filled in."""
    return {name: PASSWORD for name in example() if name.endswith("_PASSWORD")}


def substituted(value: Any, variables: dict[str, str]) -> Any:
    """Return a part of compose.yaml with its variables replaced, as Compose does it."""
    if isinstance(value, dict):
        return {key: substituted(part, variables) for key, part in value.items()}
    if isinstance(value, list):
        return [substituted(part, variables) for part in value]
    if not isinstance(value, str):
        return value

    def replace(found: re.Match[str]) -> str:
        if found["escaped"]:
            return "$"
        if given := variables.get(found["name"]):
            return given
        assert found["how"] == ":-", f"{found['name']}: {found['rest']}"
        return found["rest"]

    return _VARIABLE.sub(replace, value)


def strings(value: Any) -> Iterator[str]:
    """Yield every string inside a part of compose.yaml."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from strings(part)
    elif isinstance(value, str):
        yield value


def argv(command: str | list[str]) -> list[str]:
    return shlex.split(command) if isinstance(command, str) else command


# -- the file by itself ------------------------------------------------------------------------------------------------


def test_it_follows_the_compose_specification():
    schema = json.loads((HERE / "compose-spec.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(COMPOSE)
    told = re.search(r"sha256 is (\w+)", (HERE / "README.md").read_text())
    assert told[1] == hashlib.sha256((HERE / "compose-spec.json").read_bytes()).hexdigest()


def test_the_schema_refuses_what_is_wrong():
    schema = json.loads((HERE / "compose-spec.json").read_text())
    wrong = COMPOSE | {"services": SERVICES | {"mongo": SERVICES["mongo"] | {"healtcheck": {}}}}
    assert not jsonschema.Draft202012Validator(schema).is_valid(wrong)


def test_the_services_are_the_stores_and_ours():
    stores = {"mongo", "milvus", "etcd", "minio", "neo4j", "redis", "postgres"}
    assert SERVICES.keys() == stores | OURS
    for name, service in SERVICES.items():
        assert set(service["profiles"]) == ({"all"} if name in READERS else {"stores", "all"})
        assert service["restart"] == "unless-stopped"
        assert service["mem_limit"]


@pytest.mark.parametrize("name", SERVICES)
def test_the_image_has_an_exact_version(name):
    image, _, tag = SERVICES[name]["image"].rpartition(":")
    assert image
    if name in OURS:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert tag == project["version"]
        assert SERVICES[name]["build"]["context"] == "."
        assert SERVICES[name]["pull_policy"] == "build"
    else:
        assert re.fullmatch(r"v?\d+(\.\d+)+(-\w+)?|RELEASE\.\d{4}-\d\d-\d\dT[\d-]+Z", tag)


@pytest.mark.parametrize("name", SERVICES)
def test_it_has_a_health_check(name):
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] in ("CMD", "CMD-SHELL")
    assert {"interval", "timeout", "retries", "start_period"} <= check.keys()


def test_what_starts_first_is_waited_for_until_it_is_healthy():
    for service in SERVICES.values():
        for needed, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert "healthcheck" in SERVICES[needed]
            assert set(service["profiles"]) <= set(SERVICES[needed]["profiles"])
    for name in READERS:
        assert {"mongo", "milvus", "neo4j", "redis", "postgres"} <= SERVICES[name]["depends_on"].keys()


def test_ports_are_published_on_the_loopback_alone():
    published = [port for service in SERVICES.values() for port in substituted(service.get("ports", []), {})]
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in published)
    hosts = [port.split(":")[1] for port in published]
    assert len(set(hosts)) == len(hosts)
    for service in SERVICES.values():
        assert "network_mode" not in service


def test_the_workbench_is_started_as_by_its_command():
    def options(command: list[str]) -> set[str]:
        return {word for word in command if word.startswith("--") and not word.startswith("--server.address=")}

    started = _dashboard_argv(Settings(dashboard_port=8501))
    assert options(SERVICES["dashboard"]["command"]) == options(started)


def test_published_ports_are_those_of_the_settings():
    for name, setting in (("sidecar", "api_port"), ("dashboard", "dashboard_port")):
        default = Settings.model_fields[setting].default
        assert SERVICES[name]["ports"] == [f"127.0.0.1:${{RECS_{setting.upper()}:-{default}}}:{default}"]


def test_every_named_volume_is_declared_and_used():
    sources = [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])]
    assert {source for source in sources if re.fullmatch(r"[\w-]+", source)} == COMPOSE["volumes"].keys()


def test_etcd_and_minio_are_reached_by_milvus_alone():
    reachable = {name for name, service in SERVICES.items() if "milvus" in service.get("networks", [])}
    assert reachable == {"etcd", "minio", "milvus"}
    assert COMPOSE["networks"]["milvus"] == {"internal": True}
    for name in ("etcd", "minio"):
        assert SERVICES[name]["networks"] == ["milvus"]
        assert "ports" not in SERVICES[name]


@pytest.mark.parametrize("name", sorted(OURS))
def test_ours_run_with_as_little_as_they_need(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True


# -- variables and secrets ---------------------------------------------------------------------------------------------


def test_every_variable_is_in_the_example_with_its_default():
    found: dict[str, set[tuple[str, str]]] = {}
    for text in strings(COMPOSE):
        for match in _VARIABLE.finditer(text):
            if not match["escaped"]:
                found.setdefault(match["name"], set()).add((match["how"], match["rest"]))
    assert found.keys() == example().keys()
    for name, uses in found.items():
        assert len(uses) == 1, f"{name} is used in different ways"
        ((how, rest),) = uses
        if name.endswith("_PASSWORD"):
            assert (how, rest, example()[name]) == (":?", "set it in compose.env", "")
        else:
            assert (how, rest) == (":-", example()[name])


def test_no_other_dollar_is_left_for_compose_to_trip_over():
    assert "$" not in _VARIABLE.sub("", TEXT)


def test_a_missing_password_is_an_error():
    for name in passwords():
        others = {other: given for other, given in passwords().items() if other != name}
        with pytest.raises(AssertionError, match=f"{name}: set it in compose.env"):
            substituted(COMPOSE, others)


def test_no_secret_is_written_down():
    required = re.compile(r"\$\{\w+_PASSWORD:\?[^}]*\}")
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|TOKEN|AUTH(?!ORIZATION)", name):
                assert required.search(value), name
            if "@" in str(value):
                assert re.search(r":\$\{\w+_PASSWORD:\?[^}]*\}@", value), name
        words = argv(service.get("command", ""))
        for option, value in pairwise(words):
            if "pass" in option:
                assert required.fullmatch(value)


def test_the_filled_in_file_stays_out_of_git():
    assert "compose.env" in (ROOT / ".gitignore").read_text().splitlines()


# -- settings ----------------------------------------------------------------------------------------------------------


def test_every_recs_variable_is_a_setting():
    known = {f"RECS_{name.upper()}" for name in Settings.model_fields}
    used = {name for service in SERVICES.values() for name in service.get("environment", {})} | example().keys()
    assert {name for name in used if name.startswith("RECS_")} <= known
    assert set(re.findall(r"\bRECS_[A-Z0-9_]*[A-Z0-9]\b", (ROOT / "docs" / "compose.md").read_text())) <= known


@pytest.mark.parametrize("name", sorted(READERS))
def test_every_store_setting_is_set(name):
    given = SERVICES[name]["environment"]
    assert given.keys() >= STORE_SETTINGS | {"RECS_HOME"}
    values = substituted(given, passwords())
    settings = Settings(**{setting.removeprefix("RECS_").lower(): value for setting, value in values.items()})
    assert settings.home == Path(_image_variables()["RECS_HOME"])


@pytest.mark.parametrize("name", sorted(READERS))
def test_the_urls_lead_to_services(name):
    ports = {"mongo": 27017, "milvus": 19530, "neo4j": 7687, "redis": 6379, "postgres": 5432, "prefect": 4200}
    for setting, value in SERVICES[name]["environment"].items():
        if setting.endswith("_URL"):
            host, port = re.search(r"[@/](\w+):(\d+)(?:/|$)", value).groups()
            assert int(port) == ports[host], setting


def test_the_commands_for_native_parts_set_every_store():
    """docs/compose.md has a block for those who run the stores alone."""
    set_there = set(re.findall(r"export (RECS_\w+)=", (ROOT / "docs" / "compose.md").read_text()))
    assert set_there == STORE_SETTINGS


# -- the image ---------------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions, continued lines joined, comments left out."""
    kept = "\n".join(line for line in DOCKERFILE.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", kept)
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]  # type: ignore[misc]


def _image_variables() -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\S+)", " ".join(rest for what, rest in instructions() if what == "ENV")))


def test_the_image_is_built_in_stages_on_the_right_python():
    bases = [rest.split()[0] for what, rest in instructions() if what == "FROM"]
    assert len(bases) > 1
    wanted = re.search(r"PYTHON \?= python(\S+)", (ROOT / "Makefile").read_text())[1]
    assert all(re.fullmatch(rf"python:{re.escape(wanted)}\.\d+-slim-\w+", base) for base in bases)
    assert len(set(bases)) == 1, "the virtual environment holds a link to the Python it was made with"


def test_the_image_does_not_run_as_root():
    users = [rest for what, rest in instructions() if what == "USER"]
    uid, _, gid = users[-1].partition(":")
    assert int(uid) > 0
    assert int(gid) > 0
    assert any(f"--uid {uid} " in rest for what, rest in instructions() if what == "RUN")


def test_what_is_copied_exists_and_is_let_through():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    copied: set[str] = set()
    for what, rest in instructions():
        assert what != "ADD"
        if what == "COPY" and "--from=" not in rest:
            copied |= set(rest.split()[:-1])
    assert "*" in ignored
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    assert copied >= {"recs", "app", "pipeline"}


def test_it_is_installed_as_the_makefile_does():
    def installs(text: str) -> list[str]:
        found = re.findall(r"pip install (?:--\w[\w-]* )*?(--constraint .+)", text)
        return [line.replace("$(TORCH_ARGS)", "${TORCH_ARGS}") for line in found]

    torch, ours = installs("\n".join(rest for _, rest in instructions()))
    make_torch, make_ours, *_ = installs((ROOT / "Makefile").read_text())
    assert torch == make_torch
    # Tests and checks stay outside; the driver for PostgreSQL is among them.
    assert ours == make_ours.replace("[workbench,dev]", "[workbench,postgres]")
    assert ours != make_ours
    assert ("ARG", 'TORCH_ARGS=""') in instructions()
    assert COMPOSE["x-likeminded"]["build"]["args"] == {"TORCH_ARGS": "${TORCH_ARGS:-}"}


def test_the_image_asks_nobody_for_the_model_and_has_the_folders():
    assert _image_variables()["HF_HUB_OFFLINE"] == "1"
    made = next(rest for what, rest in instructions() if what == "RUN" and "install -d" in rest)
    for name in OURS:
        for volume in SERVICES[name].get("volumes", []):
            source, target = volume.split(":")[:2]
            if source in COMPOSE["volumes"]:
                # A new volume takes the owner of the image's folder.
                assert target in made


# -- the same processes, natively --------------------------------------------------------------------------------------

START_SECONDS = 120


class Native:
    """The parts of ours as processes of this machine: commands, variables and health checks from compose.yaml.

    Addresses inside containers become those of this run, and stores those that the tests have.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._folder = folder
        self._home = settings.home
        (folder / "prefect").mkdir()
        own = environment(settings)
        self._stores = {name: own.get(name) for name in STORE_SETTINGS - {"RECS_PREFECT_URL"}}
        self._common = {name: value for name, value in own.items() if not name.startswith("RECS_")}
        # Its own database on the tests' server, and no measuring of which arithmetic is faster.
        self._common |= {"RECS_MONGO_DATABASE": settings.mongo_database, "RECS_PRECISION": "float32"}
        inside = (4200, 8000, 8501)
        self.ports = dict(zip(inside, _free_ports(len(inside)), strict=True))
        files = "/data/conversations.json --campaigns /data/campaigns.json"
        self._services = substituted(SERVICES, passwords() | {"LIKEMINDED_FILES": files})

    def _here(self, text: str) -> str:
        for inside, here in (
            (r"\b0\.0\.0\.0\b", "127.0.0.1"),
            (r"\bprefect(?=:4200\b)", "127.0.0.1"),
            (r"/var/lib/likeminded\b", str(self._home)),
            (r"/var/lib/prefect\b", str(self._folder / "prefect")),
            (r"(?<![\w/])/data\b", str(self._folder)),
            *((rf"\b{port}\b", str(free)) for port, free in self.ports.items()),
        ):
            text = re.sub(inside, here, text)
        return text

    def environment(self, name: str) -> dict[str, str]:
        given = {key: self._here(value) for key, value in self._services[name]["environment"].items()}
        if name in READERS:
            given |= {key: value for key, value in self._stores.items() if value is not None}
            for key in (key for key, value in self._stores.items() if value is None):
                del given[key]
        return self._common | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"} | given

    @contextmanager
    def running(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a service until the block ends."""
        command = [self._here(part) for part in argv(self._services[name]["command"])]
        program = Path(sys.executable).with_name(command[0])
        started = process.spawn(
            [str(program), *command[1:]], env=self.environment(name), log_path=self.log(name), cwd=ROOT
        )
        try:
            yield started
        finally:
            process.stop(started)

    def wait_until_healthy(self, name: str, started: subprocess.Popen[bytes]) -> None:
        """Run the service's own health check until it succeeds."""
        kind, program, *arguments = self._services[name]["healthcheck"]["test"]
        assert (kind, program) == ("CMD", "python")
        self.wait_until(
            started,
            name,
            lambda: (
                not subprocess.run(
                    [sys.executable, *map(self._here, arguments)],
                    env=self.environment(name),
                    capture_output=True,
                    check=False,
                ).returncode
            ),
        )

    def wait_until(self, started: subprocess.Popen[bytes], name: str, done: Any) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not done():
            said = self.log(name).read_text(errors="replace")[-3000:]
            assert started.poll() is None, f"{name} ended: {said}"
            assert time.monotonic() < deadline, f"{name} is not ready: {said}"
            time.sleep(0.5)

    def log(self, name: str) -> Path:
        return self._folder / f"{name}.log"


def _free_ports(count: int) -> list[int]:
    with ExitStack() as taken:
        sockets = [taken.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture
def native(servers: Settings, tmp_path: Path) -> Native:
    # A few records: the flow as such has tests of its own.
    sample = json.loads((ROOT / "data" / "sample_conversations.json").read_text())
    (tmp_path / "conversations.json").write_text(json.dumps(sample[:8]))
    (tmp_path / "campaigns.json").write_bytes((ROOT / "data" / "sample_campaigns.json").read_bytes())
    return Native(fresh_settings(servers, tmp_path / "home", "compose"), tmp_path)


@pytest.mark.servers
def test_the_same_processes_run_natively(native):
    with ExitStack() as running:
        # In the order of depends_on; Prefect first, since the worker waits for it.
        names = sorted(
            OURS, key=lambda name: ("prefect" in SERVICES[name].get("depends_on", {}), name != "prefect", name)
        )
        started: dict[str, subprocess.Popen[bytes]] = {}
        for name in names:
            for needed in SERVICES[name].get("depends_on", {}).keys() & started.keys():
                native.wait_until_healthy(needed, started[needed])
            started[name] = running.enter_context(native.running(name))
        for name in started:
            native.wait_until_healthy(name, started[name])

        sidecar = f"http://127.0.0.1:{native.ports[8000]}"
        # What the worker published is served.
        native.wait_until(started["worker"], "worker", lambda: httpx.get(f"{sidecar}/readyz").status_code == 200)
        answer = httpx.get(f"{sidecar}/recommendations/u0087", timeout=30).json()
        assert (answer["generation"], answer["degraded"]) == (1, [])

        # Prefect takes orders from those alone who have the password, as the worker has.
        prefect = f"http://127.0.0.1:{native.ports[4200]}/api"
        assert httpx.post(f"{prefect}/flow_runs/count").status_code == 401
        assert httpx.post(f"{prefect}/flow_runs/count", auth=("likeminded", PASSWORD)).json() == 1
        assert all(each.poll() is None for each in started.values())
