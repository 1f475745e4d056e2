"""What one machine keeps of relay work: its key, the gateway's key that it trusts, the tickets it has spent.

All of it in the state folder, readable by its owner only. Whoever puts an older copy of the folder back has
forgotten spent tickets: it is never to be restored, as the folder of a gateway is not.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Final
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.errors import ConfigurationError, InputError

_KEY: Final = re.compile("[0-9a-f]{64}")


def public(key: Ed25519PrivateKey) -> str:
    """The public half, as hex."""
    return key.public_key().public_bytes_raw().hex()


def is_key(text: str) -> bool:
    """Has it the form of a public key?"""
    return _KEY.fullmatch(text) is not None


def own_key(path: Path) -> Ed25519PrivateKey:
    """The private key of this file, made once, with rights 0600. ConfigurationError where it cannot be had,
    or others may read it."""
    try:
        if not path.exists():
            _place(path, Ed25519PrivateKey.generate().private_bytes_raw().hex())
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise ConfigurationError(f"{path} may be read by others 密钥文件权限过宽: chmod 600, and ask why")
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text(encoding="ascii")))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the key {path} cannot be used 密钥无法使用: {error}") from error


def _place(path: Path, content: str) -> None:
    """Durable when this returns; of two that begin together the first one's stays."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    with open(beside, "x", encoding="ascii", opener=_private) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(beside, path)
    except FileExistsError:
        pass
    finally:
        beside.unlink()
    _sync_folder(path.parent)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@dataclass(frozen=True, slots=True)
class Machine:
    """One state folder, as the place of relay work at meters. Nothing is made before it is needed."""

    folder: Path

    def key(self) -> Ed25519PrivateKey:
        """This machine's own. With it goes its list of spent tickets: where that is gone while the key is
        there, ConfigurationError, since a ticket could be used twice."""
        path = self.folder / "machine.key"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not path.exists():
                with open(self._spent, "a", encoding="ascii", opener=_private):
                    pass
                _sync_folder(self.folder)
        except OSError as error:
            raise ConfigurationError(f"{self.folder} cannot be used 状态目录无法使用: {error}") from error
        if not self._spent.exists():
            raise ConfigurationError(
                f"{self._spent} is gone: it is not known which tickets were used 已用操作票记录缺失; delete"
                f" {path} too, and ask for new tickets"
            )
        return own_key(path)

    def public_key(self) -> str:
        """By which a ticket names this machine. See `key`."""
        return public(self.key())

    @property
    def _spent(self) -> Path:
        return self.folder / "tickets.spent"

    def pinned(self) -> str:
        """The gateway's public key. ConfigurationError where none is pinned."""
        try:
            key = (self.folder / "ticket-key.pinned").read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                "no gateway's key is pinned here 未固定网关公钥: `lingdian relay ticket-key --pin` in its"
                " house"
            ) from error
        if not is_key(key):
            raise ConfigurationError(f"the pinned key in {self.folder} is none 固定的公钥无效: pin it anew")
        return key

    def pin(self, key: str, *, anew: bool) -> None:
        """Trust tickets signed with it. ConfigurationError where another one is pinned, unless `anew`."""
        path = self.folder / "ticket-key.pinned"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if anew:
                path.unlink(missing_ok=True)
            if not path.exists():
                _place(path, key)
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be written 无法写入: {error}") from error
        if self.pinned() != key:
            raise ConfigurationError(
                "another key is pinned here 已固定其他公钥: --pin --replace, if you know why it has changed"
            )

    @contextmanager
    def spending(self) -> Iterator[Spent]:
        """The spent tickets, for this process alone as long as the block lasts. InputError where they cannot
        be read: then nothing may be sent."""
        try:
            file = self._spent.open("r+", encoding="ascii")
        except OSError as error:
            raise InputError(f"{self._spent} cannot be read 已用操作票记录无法读取: {error}") from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield Spent(file)


@dataclass(frozen=True, slots=True)
class Spent:
    """Made by `Machine.spending`. One ticket a line: its number, and when."""

    file: IO[str]

    def check(self, ticket: UUID) -> None:
        """InputError where it was used here."""
        self.file.seek(0)
        for line in self.file:
            if line.startswith(str(ticket)):
                raise InputError(
                    f"ticket {ticket} was used here before 操作票已使用: it is good for one frame, whatever"
                    " became of that; ask what the gateway says of the command"
                )

    def note(self, ticket: UUID, at: datetime) -> None:
        """Durable when this returns. OSError."""
        self.file.seek(0, os.SEEK_END)
        # a line that was cut off by a crash stays what it is
        self.file.write(f"\n{ticket} {at.isoformat()}\n")
        self.file.flush()
        os.fsync(self.file.fileno())
