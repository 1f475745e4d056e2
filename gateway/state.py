"""The state folder: the embedded database, the gateway's socket and lock. One gateway owns one folder."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.errors import ConfigurationError, InputError

SOCKET_PATH_LIMIT: Final = 107
"""bytes; sun_path of a Unix socket on Linux"""

_DEMO_MARK: Final = ".lingdian-demo"
_DEMO_MARK_TEXT: Final = "This folder belongs to `lingdian demo`, which empties it at each start.\n"


@dataclass(frozen=True, slots=True)
class State:
    """Paths in one state folder. Nothing is created before `create`."""

    folder: Path

    @property
    def socket(self) -> Path:
        return self.folder / "gateway.sock"

    @property
    def database(self) -> Path:
        return self.folder / "database"

    @property
    def epoch(self) -> Path:
        """What no restore of the database reaches: the newest seal of the relay commands' events."""
        return self.folder / "epoch.json"

    @property
    def ticket_key(self) -> Path:
        """With what tickets for direct lines are signed."""
        return self.folder / "ticket.key"

    @property
    def lock(self) -> Path:
        return self.folder / "gateway.lock"

    def demo(self) -> State:
        """The state of the demo that goes with this one: a folder beside it."""
        return State(self.folder.with_name(f"{self.folder.name}-demo"))

    def create(self) -> None:
        """Make the folder. ConfigurationError where that cannot be, or its path is too long for a socket."""
        if len(os.fsencode(self.socket)) > SOCKET_PATH_LIMIT:
            raise ConfigurationError(
                f"the state folder's path is too long 状态目录路径过长: {self.socket} has more than"
                f" {SOCKET_PATH_LIMIT} bytes; choose a shorter one with --state"
            )
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"cannot make the state folder 无法创建状态目录 {self.folder}: {error.strerror};"
                " choose another with --state"
            ) from error

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Own the folder as its one gateway; InputError names the process that owns it already.

        The kernel drops the lock when the process dies, however that happens.
        """
        self.create()
        with self.lock.open("a+", encoding="ascii") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                owner = file.read(20).strip() or "unknown"
                raise InputError(
                    f"a gateway (process {owner}) already runs on {self.folder} 该状态目录已有网关在运行;"
                    " stop it first, or give this one another folder with --state"
                ) from None
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield

    def claim_demo(self) -> None:
        """Make this folder the demo's. InputError where it holds files that no demo put there."""
        self.create()
        mark = self.folder / _DEMO_MARK
        if not mark.exists() and any(self.folder.iterdir()):
            raise InputError(
                f"{self.folder} holds files that are not the demo's 目录中有非演示文件; move them away first"
            )
        mark.write_text(_DEMO_MARK_TEXT, encoding="ascii")

    def empty_demo(self) -> None:
        """Delete what an earlier demo left, its database stopped before. Call it owning a claimed folder."""
        for entry in self.folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry not in (self.folder / _DEMO_MARK, self.lock):
                entry.unlink()


def default_state() -> State:
    """`$XDG_STATE_HOME/lingdian`, or `~/.local/state/lingdian`."""
    base = os.environ.get("XDG_STATE_HOME", "")
    root = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
    return State(root / "lingdian")
