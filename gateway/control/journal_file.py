"""A file of lines that outlives a crash: each has its checksum, and is on the disk before anybody is told.

Its room is taken on the disk beforehand, since a full disk is what takes the database away, too. A line that
was being written when the machine died is passed over; so is one that was damaged, and that is told.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import structlog

from gateway.command import canonical
from gateway.errors import StorageError

log = structlog.get_logger()

SIZE: Final = 16 * 1024 * 1024
"""Bytes that the file may have, and has: a few thousand closes with all that was done for them."""

_SUM_DIGITS: Final = 16

Record = Mapping[str, Any]
"""What one line says; see `gateway.command.canonical` for what it may hold."""


class JournalError(StorageError):
    """The journal cannot keep this now. What was to be kept may be found in it all the same after a crash."""


class File(Protocol):
    """One open file. Every method may raise OSError; what is written is durable after `sync` only."""

    def reserve(self, size: int) -> None:
        """Have room for `size` bytes, zeros where nothing was written."""
        ...

    def write(self, content: bytes, offset: int) -> None: ...

    def sync(self) -> None: ...

    def close(self) -> None: ...


class Folder(Protocol):
    """Where the file lies. Every method may raise OSError; a name is durable after `sync` only."""

    def read(self, name: str) -> bytes:
        """FileNotFoundError where there is none."""
        ...

    def create(self, name: str) -> File:
        """A new, empty file, in place of one of that name."""
        ...

    def open(self, name: str) -> File: ...

    def rename(self, name: str, then: str) -> None: ...

    def sync(self) -> None: ...


class OsFile:
    """Satisfies `File`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def reserve(self, size: int) -> None:
        os.posix_fallocate(self._descriptor, 0, size)

    def write(self, content: bytes, offset: int) -> None:
        while content:
            done = os.pwrite(self._descriptor, content, offset)
            content, offset = content[done:], offset + done

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


class OsFolder:
    """Satisfies `Folder`. The folder has to exist."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, name: str) -> bytes:
        return (self._path / name).read_bytes()

    def create(self, name: str) -> OsFile:
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        return OsFile(os.open(self._path / name, flags, 0o600))

    def open(self, name: str) -> OsFile:
        return OsFile(os.open(self._path / name, os.O_RDWR | os.O_CLOEXEC))

    def rename(self, name: str, then: str) -> None:
        (self._path / name).replace(self._path / then)

    def sync(self) -> None:
        descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Loaded(NamedTuple):
    """What a file held. damaged: lines with valid ones behind them that cannot be read: not merely torn."""

    records: list[dict[str, Any]]
    damaged: int


class JournalFile:
    """One file. Its methods wait for the disk: call them from a thread, one at a time.

    `load`, then `rewrite` with what is still wanted, then `append`. After an error the file is not trusted
    any more (what the disk did not take once, it may lose silently the next time): `rewrite` it first.
    """

    def __init__(self, folder: Folder, *, name: str = "closes.journal", size: int = SIZE) -> None:
        self._folder = folder
        self._name = name
        self._size = size
        self._end = 0
        self._trusted = False

    @property
    def used(self) -> int:
        """Bytes of lines."""
        return self._end

    def load(self) -> Loaded:
        """All lines that are whole. JournalError where the file cannot be read."""
        try:
            content = self._folder.read(self._name)
        except FileNotFoundError:
            return Loaded([], 0)
        except OSError as error:
            raise self._error("read", error) from error
        records: list[dict[str, Any]] = []
        damaged = bad = 0
        for line in content.split(b"\n"):
            line = line.strip(b"\0")
            if not line:
                continue
            record = _read(line)
            if record is None:
                bad += 1
                continue
            damaged, bad = damaged + bad, 0
            records.append(record)
        if damaged:
            log.error("lines of the close journal are damaged", file=self._name, lines=damaged)
        elif bad:
            log.warning("the last line of the close journal was not finished", file=self._name)
        return Loaded(records, damaged)

    def fits(self, record: Record, leave: int = 0) -> bool:
        """Can `record` be appended as the file stands, with so many bytes left behind it?"""
        return self._trusted and self._end + len(_line(record)) + leave <= self._size

    def append(self, record: Record) -> None:
        """`record` is durable when this returns. JournalError where it is not, or does not fit."""
        if not self.fits(record):
            raise JournalError(
                f"the close journal is full ({self._end} of {self._size} bytes) 复电日志已满: the database"
                " must come back first"
            )
        content = _line(record)
        try:
            file = self._folder.open(self._name)
            try:
                file.write(content, self._end)
                file.sync()
            finally:
                file.close()
        except OSError as error:
            self._trusted = False
            raise self._error("write", error) from error
        self._end += len(content)

    def rewrite(self, records: Iterable[Record]) -> None:
        """A new file with these lines alone takes the place of the old one, which stays until it is whole.

        JournalError: the old file lies there as before."""
        content = b"".join(_line(record) for record in records)
        if len(content) > self._size:
            raise JournalError(f"the close journal would have {len(content)} bytes 复电日志已满")
        beside = f"{self._name}.new"
        self._trusted = False
        try:
            file = self._folder.create(beside)
            try:
                self._reserve(file)
                file.write(content, 0)
                file.sync()
            finally:
                file.close()
            self._folder.rename(beside, self._name)
            self._folder.sync()
        except OSError as error:
            raise self._error("write", error) from error
        self._end = len(content)
        self._trusted = True

    def _reserve(self, file: File) -> None:
        try:
            file.reserve(self._size)
        except OSError as error:
            log.error("no room is kept for the close journal", file=self._name, error=str(error))

    def _error(self, what: str, error: OSError) -> JournalError:
        return JournalError(
            f"cannot {what} the close journal {self._name} in the state folder ({error.strerror or error})"
            " 无法读写复电日志: make room or mend the disk, then ask again with the same key"
        )


def _line(record: Record) -> bytes:
    content = canonical(record)
    return _sum(content) + b" " + content + b"\n"


def _sum(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest()[:_SUM_DIGITS].encode()


def _read(line: bytes) -> dict[str, Any] | None:
    """What a line says; None where it is not whole."""
    told, _, content = line.partition(b" ")
    if told != _sum(content):
        return None
    try:
        record = json.loads(content)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
