"""The journal's file: what is durable, what is not, and what becomes of damage."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from gateway.control.journal_file import JournalError, JournalFile, OsFolder
from tests.gateway.control.crash_folder import CrashFolder, full_disk

ONE: dict[str, Any] = {"kind": "accepted", "n": 1, "cause": "复电"}
TWO: dict[str, Any] = {"kind": "read", "n": 2}
THREE: dict[str, Any] = {"kind": "read", "n": 3}


def journal(folder: CrashFolder, size: int = 4096) -> JournalFile:
    file = JournalFile(folder, size=size)
    file.rewrite(file.load().records)
    return file


def records(folder: CrashFolder) -> list[dict[str, Any]]:
    return JournalFile(folder).load().records


def test_what_was_appended_outlives_a_crash() -> None:
    folder = CrashFolder()
    file = journal(folder)
    file.append(ONE)
    file.append(TWO)
    assert records(folder.crash()) == [ONE, TWO]
    assert len(folder.durable()) == 4096  # its room is taken already


def test_a_line_that_was_not_synced_is_not_there_and_a_torn_one_is_passed_over() -> None:
    folder = CrashFolder()
    file = journal(folder)
    file.append(ONE)

    def dies(operation: str) -> None:
        if operation == "sync":
            raise OSError(errno.EIO, "Input/output error")

    folder.hook = dies
    with pytest.raises(JournalError, match="Input/output error"):
        file.append(TWO)
    assert records(folder.crash()) == [ONE]
    torn = folder.crash(torn=True)
    assert records(torn) == [ONE]
    assert JournalFile(torn).load().damaged == 0
    again = journal(torn)
    again.append(THREE)
    assert records(torn.crash()) == [ONE, THREE]


def test_a_file_that_failed_once_is_not_trusted_before_it_is_written_anew() -> None:
    folder = CrashFolder()
    file = journal(folder)
    file.append(ONE)
    folder.hook = full_disk
    with pytest.raises(JournalError, match="No space left on device"):
        file.append(TWO)
    folder.hook = lambda operation: None
    assert not file.fits(TWO)
    with pytest.raises(JournalError):
        file.append(TWO)
    file.rewrite([ONE])
    file.append(TWO)
    assert records(folder.crash()) == [ONE, TWO]


@pytest.mark.parametrize("operation", ["create", "reserve", "write", "sync", "rename", "sync folder"])
def test_a_rewrite_that_fails_leaves_the_old_lines(operation: str) -> None:
    folder = CrashFolder()
    file = journal(folder)
    file.append(ONE)

    def fails(what: str) -> None:
        if what == operation:
            raise OSError(errno.ENOSPC, "No space left on device")

    folder.hook = fails
    if operation == "reserve":  # it does without its room
        file.rewrite([ONE])
    else:
        with pytest.raises(JournalError):
            file.rewrite([ONE])
    assert records(folder.crash()) == [ONE]


def test_damage_in_the_middle_is_told_and_the_rest_is_kept() -> None:
    folder = CrashFolder()
    file = journal(folder)
    for record in (ONE, TWO, THREE):
        file.append(record)
    inode = folder.durable_names["closes.journal"]
    inode.durable = inode.durable.replace(b'"n":2', b'"n":7')
    loaded = JournalFile(folder).load()
    assert loaded.records == [ONE, THREE]
    assert loaded.damaged == 1


def test_it_never_grows_beyond_its_size() -> None:
    folder = CrashFolder()
    file = journal(folder, size=200)
    while file.fits(ONE):
        file.append(ONE)
    with pytest.raises(JournalError, match="full"):
        file.append(ONE)
    assert len(folder.durable()) == 200
    with pytest.raises(JournalError):
        file.rewrite([ONE] * 10)
    assert file.used <= 200


def test_on_a_real_disk_file_and_folder_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    file = JournalFile(OsFolder(tmp_path), size=8192)
    assert file.load().records == []
    file.rewrite([ONE])
    assert synced == [str(tmp_path / "closes.journal.new"), str(tmp_path)]
    synced.clear()
    file.append(TWO)
    assert synced == [str(tmp_path / "closes.journal")]
    assert JournalFile(OsFolder(tmp_path)).load().records == [ONE, TWO]
    path = tmp_path / "closes.journal"
    assert (path.stat().st_size, path.stat().st_mode & 0o777) == (8192, 0o600)
    missing = JournalFile(OsFolder(tmp_path / "nowhere"))
    with pytest.raises(JournalError, match="无法读写"):
        missing.rewrite([])
