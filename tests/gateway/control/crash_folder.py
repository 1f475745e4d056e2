"""A folder in memory that forgets at a crash whatever was not synced: contents and names apart."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Inode:
    """What is on the disk, and what was written since."""

    durable: bytes = b""
    pending: list[tuple[bytes, int]] = field(default_factory=list)

    @property
    def seen(self) -> bytes:
        """As the running system reads it."""
        return _applied(self.durable, self.pending)


def _applied(content: bytes, writes: list[tuple[bytes, int]]) -> bytes:
    known = bytearray(content)
    for one, offset in writes:
        known.extend(bytes(max(0, offset + len(one) - len(known))))
        known[offset : offset + len(one)] = one
    return bytes(known)


class CrashFile:
    """Satisfies `journal_file.File`."""

    def __init__(self, inode: Inode, folder: CrashFolder) -> None:
        self._inode = inode
        self._folder = folder

    def reserve(self, size: int) -> None:
        self._folder.hook("reserve")
        self._inode.pending.append((bytes(max(0, size - len(self._inode.seen))), len(self._inode.seen)))

    def write(self, content: bytes, offset: int) -> None:
        self._folder.hook("write")
        self._inode.pending.append((content, offset))

    def sync(self) -> None:
        self._folder.hook("sync")
        self._inode.durable, self._inode.pending = self._inode.seen, []

    def close(self) -> None:
        pass


class CrashFolder:
    """Satisfies `journal_file.Folder`. hook: called with the name of each operation; it may raise OSError."""

    def __init__(self) -> None:
        self.hook: Callable[[str], None] = lambda operation: None
        self.names: dict[str, Inode] = {}
        self.durable_names: dict[str, Inode] = {}

    def read(self, name: str) -> bytes:
        self.hook("read")
        if name not in self.names:
            raise FileNotFoundError(name)
        return self.names[name].seen

    def create(self, name: str) -> CrashFile:
        self.hook("create")
        self.names[name] = Inode()
        return CrashFile(self.names[name], self)

    def open(self, name: str) -> CrashFile:
        self.hook("open")
        return CrashFile(self.names[name], self)

    def rename(self, name: str, then: str) -> None:
        self.hook("rename")
        self.names[then] = self.names.pop(name)

    def sync(self) -> None:
        self.hook("sync folder")
        self.durable_names = dict(self.names)

    def durable(self, name: str = "closes.journal") -> bytes:
        """What a crash now would leave of it."""
        inode = self.durable_names.get(name)
        return b"" if inode is None else inode.durable

    def crash(self, *, torn: bool = False) -> CrashFolder:
        """The folder after the machine has died. torn: half of what was being written had got there."""
        after = CrashFolder()
        for name, inode in self.durable_names.items():
            half = [(content[: len(content) // 2], offset) for content, offset in inode.pending]
            after.names[name] = Inode(_applied(inode.durable, half if torn else []))
        after.durable_names = dict(after.names)
        return after


def full_disk(operation: str) -> None:
    """A hook: nothing more can be written."""
    if operation in ("reserve", "write", "create"):
        raise OSError(errno.ENOSPC, "No space left on device")
