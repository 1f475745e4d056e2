"""The reading file of an engineer without a gateway: CSV to which whole, durable lines are added.

Columns: those of `lingdian export readings`, then address, read_at (by the laptop's clock), clock_offset
(seconds that the meter is ahead), reader, kind. `kind` stands last since its words tell a whole line from one
whose end is lacking. ASCII but for what the caller names: spreadsheets guess encodings.
"""

from __future__ import annotations

import csv
import fcntl
import io
import os
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from gateway.clock import SHANGHAI
from gateway.errors import InputError
from gateway.field.offline import Register
from gateway.model import Kind, Quantity, Source

COLUMNS: Final = (
    *("meter", "quantity", "frozen_at", "total", "t1", "t2", "t3", "t4", "quality", "source"),
    *("address", "read_at", "clock_offset", "reader", "kind"),
)
HEADER: Final = ",".join(COLUMNS).encode() + b"\n"
KINDS: Final = {kind.name.lower(): kind for kind in (Kind.DAY, Kind.LIVE)}
FILE_BYTES: Final = 64 << 20
"""Some 400,000 readings; who has more begins another file."""

Key = tuple[str, str, str]


class ReadingFile:
    """Open for adding, by one program at a time. InputError where the file is another's, or of another kind.

    What a run before left half written at the end is taken off: it was never told to be kept.
    """

    def __init__(self, path: Path, reader: str) -> None:
        """reader: who reads."""
        self.path = path
        self.taken_off = ""
        """the half line that stood at the end; "": none"""
        self._reader = reader
        self._frozen: set[Key] = set()
        self._fd = -1

    def __enter__(self) -> Self:
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                self._take()
            except BaseException:
                os.close(self._fd)
                raise
        except BlockingIOError as error:
            raise InputError(
                f"{self.path} is being added to by another run 文件正被写入; wait for it"
            ) from error
        except OSError as error:
            raise InputError(f"{self.path}: {error.strerror} 无法写入") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def holds(self, address: str, quantity: Quantity, frozen_at: datetime) -> bool:
        """Is that freeze of the meter in the file? A freeze never changes, so it need not be read again."""
        return (address, quantity.label, _instant(frozen_at)) in self._frozen

    def add(self, register: Register, meter: str = "") -> None:
        """Durable when this returns. meter: asset number, where it is known. InputError where the disk is
        full or the file gone."""
        told = register.values[:5] + (None,) * (5 - len(register.values))
        offset = register.clock_offset_s
        cells = (
            meter,
            register.quantity.label,
            _instant(register.frozen_at),
            *("" if value is None else f"{value // 10_000}.{value % 10_000:04d}" for value in told),
            register.quality.name.lower(),
            Source.MANUAL.name.lower(),
            register.address,
            _instant(register.read_at),
            "" if offset is None else str(round(offset)),
            self._reader,
            register.kind.name.lower(),
        )
        self._write(_line(cells))
        self._note(dict(zip(COLUMNS, cells, strict=True)))

    def _take(self) -> None:
        """Lock, look at what is there, and leave the file ending with a whole line."""
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        size = os.fstat(self._fd).st_size
        if size > FILE_BYTES:
            raise InputError(f"{self.path} has more than {FILE_BYTES >> 20} MB 文件过大; begin another one")
        content = b""
        while len(content) < size and (more := os.pread(self._fd, size - len(content), len(content))):
            content += more
        whole, _, tail = content.rpartition(b"\n")
        if content and not content.startswith(HEADER) and not HEADER.startswith(content):
            raise InputError(
                f"{self.path} is no reading file 不是读数文件; its first line would be"
                f" {HEADER.decode().strip()}"
            )
        if not content.startswith(HEADER):
            os.ftruncate(self._fd, 0)
            self._write(HEADER)
            self._sync_folder()
            return
        if tail and _is_whole(tail):
            self._write(b"\n")
            whole = content
        elif tail:
            self.taken_off = tail.decode("utf-8", "replace")
            os.ftruncate(self._fd, len(whole) + 1)
            os.fsync(self._fd)
        for cells in csv.DictReader(io.StringIO(whole.decode("utf-8", "replace"))):
            self._note(cells)

    def _note(self, cells: dict[str, str]) -> None:
        if cells.get("kind") == Kind.DAY.name.lower():
            self._frozen.add((cells["address"], cells["quantity"], cells["frozen_at"]))

    def _write(self, line: bytes) -> None:
        """All of it and durable; half of it is taken off again."""
        before = os.fstat(self._fd).st_size
        try:
            if os.write(self._fd, line) != len(line):
                raise OSError(0, "the disk is full")
            os.fsync(self._fd)
        except OSError as error:
            os.ftruncate(self._fd, before)
            raise InputError(
                f"{self.path}: {error.strerror} 无法写入; what was read before is kept"
            ) from error

    def _sync_folder(self) -> None:
        folder = os.open(self.path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _is_whole(tail: bytes) -> bool:
    """Has the last line all its cells, only its line end being lost, as some editors do?"""
    cells = next(csv.reader([tail.decode("utf-8", "replace")]), [])
    return len(cells) == len(COLUMNS) and cells[-1] in KINDS


def _line(cells: tuple[str, ...]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def _instant(instant: datetime) -> str:
    return instant.astimezone(SHANGHAI).isoformat(timespec="seconds")
