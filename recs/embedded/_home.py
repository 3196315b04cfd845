"""Where everything embedded lives under RECS_HOME, and what is remembered there between starts."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from recs.errors import EmbeddedServerError

#: How the data of the embedded servers lies under `data`. A home without a version file is version 1.
VERSION = 1

LEAST_FREE_BYTES = 200 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Home:
    """The directory of everything embedded; absolute, because servers run with other working directories."""

    root: Path

    @classmethod
    def at(cls, path: Path) -> Home:
        return cls(path.expanduser().resolve())

    def data(self, service: str) -> Path:
        return self.root / "data" / service

    def log(self, service: str) -> Path:
        return self.root / "logs" / f"{service}.log"

    def run(self, name: str) -> Path:
        """Return the path of a file of the running supervisor, or of something that it remembers."""
        return self.root / "run" / name

    def prepare(self) -> None:
        """Make the directories, for the owner alone, and note the version of a new home.

        Raises EmbeddedServerError where that cannot be, or where a newer version of this package wrote the data.
        """
        try:
            # A directory that somebody made before us keeps its mode; what is ours inside it is closed.
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in ("data", "logs", "run"):
                private_directory(self.root / name)
            if not os.access(self.root / "run", os.W_OK | os.X_OK):
                raise PermissionError(13, "not writable", str(self.root / "run"))
        except OSError as exc:
            raise EmbeddedServerError(
                f"the directory for embedded servers, {self.root}, cannot be used: {exc}; "
                "make it writable, or choose another by RECS_HOME"
            ) from exc
        found = self.version()
        if found is None:
            self._note_version(VERSION)
        elif found > VERSION:
            raise EmbeddedServerError(
                f"the data of the embedded servers in {self.root} has version {found}, this package knows versions up "
                f"to {VERSION}: install the newer version that wrote it, or choose another directory by RECS_HOME"
            )

    def version(self) -> int | None:
        """Return the version of the data, None where there is none yet."""
        path = self.root / "data" / "version"
        try:
            return int(path.read_text())
        except FileNotFoundError:
            # Written before versions were kept.
            return 1 if any((self.root / "data").iterdir()) else None
        except ValueError as exc:
            raise EmbeddedServerError(
                f"{path} holds no number: write into it the version that the data has, or restore it from a backup"
            ) from exc

    def bring_up_to_date(
        self, version: int = VERSION, steps: Mapping[int, Callable[[Home], None]] = MappingProxyType({})
    ) -> None:
        """Migrate older data, step by step, while no server runs; `steps` lead from a version to the next.

        Cut off anywhere, a step is run again.
        """
        for older in range(self.version() or version, version):
            steps[older](self)
            self._note_version(older + 1)
        self._note_version(version)

    def _note_version(self, version: int) -> None:
        write_private(self.root / "data" / "version", f"{version}\n")

    def require_space(self) -> None:
        free = shutil.disk_usage(self.root).free
        if free < LEAST_FREE_BYTES:
            raise EmbeddedServerError(
                f"the disk of {self.root} has {free // 2**20} MB free and the embedded servers need at least "
                f"{LEAST_FREE_BYTES // 2**20} MB: free some, or choose a directory on another disk by RECS_HOME"
            )

    def read(self, name: str) -> dict[str, Any]:
        """Return a remembered mapping; empty where there is none, or none that can be read."""
        try:
            content = json.loads(self.run(name).read_text())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return {}  # a torn or foreign file is worth no more than none: what it holds is made anew
        return content if isinstance(content, dict) else {}

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Remember a mapping, readable by the owner alone; readers see the old or the new one, never a part."""
        write_private(self.run(name), json.dumps(content, indent=1))

    def credential(self, service: str) -> str:
        """Return the generated password of a service, made at its first use."""
        known = self.read("credentials.json")
        if not isinstance(known.get(service), str):
            known[service] = secrets.token_urlsafe(24)
            self.write("credentials.json", known)
        return str(known[service])

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold a lock file, waiting for it. The kernel lets go of it when its holder dies."""
        descriptor = _open_lock(self.run(name))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def try_lock(self, name: str) -> int | None:
        """Return the descriptor that holds a lock file until it is closed, None where another process holds it."""
        descriptor = _open_lock(self.run(name))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def is_locked(self, name: str) -> bool:
        if not self.run(name).exists():
            return False
        descriptor = self.try_lock(name)
        if descriptor is None:
            return True
        os.close(descriptor)
        return False


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def private_directory(path: Path) -> Path:
    """Make a directory that only its owner can enter, with its parents; returns it."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.stat().st_mode & 0o077:
        path.chmod(0o700)
    return path


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, in one step."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def size_of(path: Path) -> int:
    """Return the bytes of all files under a directory; files may come and go meanwhile."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += (Path(folder) / name).lstat().st_size
            except FileNotFoundError:
                continue
    return total


def log_tail(path: Path, offset: int, lines: int = 12) -> str:
    """Return the last lines that a log gained since it was `offset` bytes long, without Java's stack frames."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            file.seek(max(offset if offset <= size else 0, size - 16384))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    telling = [line for line in text.splitlines() if not line.startswith("\tat ")]
    return "\n".join(f"    {line}" for line in telling[-lines:])
