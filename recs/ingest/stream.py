"""Files as a stream of bytes: hashed while read, unpacked where gzip, in blocks of bounded size."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from pathlib import Path
from typing import BinaryIO

from recs.errors import InputError

BLOCK_BYTES = 1 << 18
#: Enough to tell the format of a file by.
HEAD_BYTES = 1 << 16

GZIP_MAGIC = b"\x1f\x8b"
PARQUET_MAGIC = b"PAR1"
_OTHER_MAGIC = {
    b"PK\x03\x04": "a zip archive",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
    b"SQLite format 3": "an SQLite database",
    b"%PDF": "a PDF file",
}

ALLOWED = "a JSON array, JSON Lines, CSV, gzip of any of these, or Parquet is allowed"


class DamagedStream(Exception):  # noqa: N818 - becomes a Reject
    """What is left of the file cannot be unpacked or read."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class _Hashing(io.RawIOBase):
    """The file itself; every byte that is read goes through the hash."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self.digest = hashlib.sha256()
        self.done = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        count = self._file.readinto(buffer)  # type: ignore[attr-defined]
        self.digest.update(memoryview(buffer)[:count])
        self.done += count
        return int(count)

    def close(self) -> None:
        self._file.close()
        super().close()


class ByteStream:
    """One input file, opened. Raises InputError where it cannot be read or can hold no records."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if path.is_dir():
                raise InputError(f"cannot read {path}: it is a directory; {ALLOWED}")
            if path.exists() and not path.is_file():
                # A pipe gives its bytes once, and inputs are opened twice: to check them all, then to read.
                raise InputError(f"cannot read {path}: it is not a regular file; write it to one first")
            file = path.open("rb", buffering=0)
        except FileNotFoundError as exc:
            raise InputError(f"cannot read {path}: there is no such file") from exc
        except (OSError, ValueError) as exc:
            raise InputError(f"cannot read {path}: {exc}") from exc
        self._raw = _Hashing(file)
        try:
            self.size = path.stat().st_size
            buffered = io.BufferedReader(self._raw, BLOCK_BYTES)
            head = buffered.peek(HEAD_BYTES)
            if not head:
                raise InputError(f"cannot read {path}: it is empty; {ALLOWED}")
            for magic, name in _OTHER_MAGIC.items():
                if head.startswith(magic):
                    raise InputError(f"cannot read {path}: it is {name}; {ALLOWED}, text in UTF-8")
            self.is_parquet = head.startswith(PARQUET_MAGIC)
            self._gzip = head.startswith(GZIP_MAGIC)
            self._file: io.BufferedIOBase = gzip.GzipFile(fileobj=buffered, mode="rb") if self._gzip else buffered
            self._plain = buffered
            self._damage: DamagedStream | None = None
            self.head = b"" if self.is_parquet else self._read_head()
        except OSError as exc:
            self._raw.close()
            raise InputError(f"cannot read {path}: {exc}") from exc
        except BaseException:
            self._raw.close()
            raise
        self._pending = self.head

    def _read_head(self) -> bytes:
        """Return the first bytes after unpacking; damage that is met here is kept for the reader to find."""
        head = b""
        while len(head) < HEAD_BYTES:
            try:
                block = self._read_block()
            except DamagedStream as exc:
                self._damage = exc
                break
            if not block:
                break
            head += block
        if not head and self._damage is None:
            raise InputError(f"cannot read {self.path}: it is empty once unpacked; {ALLOWED}")
        return head

    def _read_block(self) -> bytes:
        if self._damage is not None:
            raise self._damage
        try:
            return self._file.read1(BLOCK_BYTES)
        except EOFError as exc:
            raise DamagedStream("gzip_truncated", f"the gzip file ends before its data does: {exc}") from exc
        except (gzip.BadGzipFile, zlib.error) as exc:
            raise DamagedStream("gzip_damaged", f"the gzip file is damaged: {exc}") from exc
        except OSError as exc:
            raise DamagedStream("unreadable", f"the file cannot be read on: {exc}") from exc

    def read(self) -> bytes:
        """Return the next block, empty at the end; raises DamagedStream, after all that could be read."""
        if self._pending:
            block, self._pending = self._pending, b""
            return block
        return self._read_block()

    @property
    def bytes_done(self) -> int:
        """Bytes of the file itself, compressed where it is, read up to here."""
        return self._raw.done

    def sha256(self) -> str:
        """Return the sha256, hex, of the whole file itself; reads what has not been read."""
        while not self._raw.closed and self._plain.read1(BLOCK_BYTES):
            pass
        return self._raw.digest.hexdigest()

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._file.close()
        self._plain.close()
