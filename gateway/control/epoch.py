"""Is this database the one that we left? A file outside it remembers the newest seal, and when we last lived.

A database that was restored from a backup has forgotten closes, and would send the trips of that day. So it
is compared at every start and at every beat with the file, which no restore of the database reaches; where
they do not agree, or nobody has lived here for long, earlier trips are put on hold and billing is asked for
the closes since. A person releases the hold.
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import structlog

from gateway.clock import Clock
from gateway.control.stores import SwitchStore
from gateway.errors import LingdianError, StorageError
from gateway.storage import chain
from gateway.storage.chain import Seal
from gateway.storage.database import Database

log = structlog.get_logger()

BEAT_SECONDS: Final = 10.0
"""Between two signs of life."""

LONG_STOP: Final = timedelta(hours=1)
"""Nobody lived here for so long: what was decided before may be settled by now."""

AHEAD: Final = timedelta(minutes=5)
"""A sign of life that lies so far in the future shows that our clock was set back."""

SET_BY: Final = "lingdian:epoch"


@dataclass(frozen=True, slots=True)
class Epoch:
    """What the file holds. seal: None before the first one. alive_at: UTC."""

    seal: Seal | None
    alive_at: datetime


class EpochFile(Protocol):
    """A place that no restore of the database reaches."""

    async def load(self) -> Epoch | None:
        """None where it is missing or cannot be understood."""
        ...

    async def keep(self, epoch: Epoch) -> None:
        """Durable when this returns. OSError where that cannot be."""
        ...


class Seals(Protocol):
    """What is asked of the database."""

    async def newest(self) -> Seal | None: ...

    async def seal(self, seal_id: int) -> Seal | None: ...

    async def commands_exist(self) -> bool: ...


class DatabaseSeals:
    """Satisfies `Seals`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(self) -> Seal | None:
        return await chain.newest(self._database)

    async def seal(self, seal_id: int) -> Seal | None:
        return await chain.seal_of(self._database, seal_id)

    async def commands_exist(self) -> bool:
        return await chain.commands_exist(self._database)


class StateFile:
    """Satisfies `EpochFile`: written anew beside itself, synced, and put in place; then its folder is
    synced."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def load(self) -> Epoch | None:
        try:
            return _epoch(await asyncio.to_thread(self._path.read_bytes))
        except (OSError, ValueError, KeyError, TypeError) as error:
            if not isinstance(error, FileNotFoundError):
                log.error("the epoch file cannot be read", path=str(self._path), error=str(error))
            return None

    async def keep(self, epoch: Epoch) -> None:
        await asyncio.to_thread(self._keep, _written(epoch))

    def _keep(self, content: bytes) -> None:
        beside = self._path.with_name(f"{self._path.name}.new")
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _written(epoch: Epoch) -> bytes:
    seal = epoch.seal
    return json.dumps(
        {
            "alive_at": epoch.alive_at.astimezone(UTC).isoformat(),
            "seal": None
            if seal is None
            else {"id": seal.id, "at": seal.at.astimezone(UTC).isoformat(), "digest": seal.digest.hex()},
        }
    ).encode()


def _epoch(content: bytes) -> Epoch:
    told = json.loads(content)
    seal = told["seal"]
    return Epoch(
        None if seal is None else Seal(seal["id"], _instant(seal["at"]), bytes.fromhex(seal["digest"])),
        _instant(told["alive_at"]),
    )


def _instant(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"{text} has no zone")
    return at


class _Found(NamedTuple):
    """since: the last instant that is known for certain; None: none is."""

    reason: str
    since: datetime | None


class Keeper:
    """Compares at start, then beats. `start` must have returned before the first trip is claimed."""

    def __init__(
        self,
        file: EpochFile,
        seals: Seals,
        switches: SwitchStore,
        clock: Clock,
        *,
        beat_seconds: float = BEAT_SECONDS,
    ) -> None:
        self._file = file
        self._seals = seals
        self._switches = switches
        self._clock = clock
        self._beat_seconds = beat_seconds
        self._one = asyncio.Lock()
        self._last: Epoch | None = None

    async def start(self) -> str | None:
        """Why the gateway starts in hold; None where all is as it was left. StorageError, OSError: nothing is
        known, no trip may be sent; try again."""
        async with self._one:
            kept = await self._file.load()
            found = await self._not_as_left(kept)
            if found is not None:
                await self._hold(found, kept)
            await self._keep()
            return None if found is None else found.reason

    async def beat(self) -> None:
        """A sign of life, and the newest seal. A database put back under our feet is noticed here."""
        async with self._one:
            kept = await self._file.load() or self._last
            if (found := await self._behind(kept)) is not None:
                await self._hold(found, kept)
            await self._keep()

    async def on_sealed(self, seal: Seal) -> None:
        """For `chain.Sealer`: the file follows each seal."""
        try:
            await self.beat()
        except (StorageError, OSError) as error:
            log.error("the epoch file does not follow", seal=seal.id, error=str(error))

    async def run(self) -> None:
        """Beat for as long as this runs."""
        while True:
            await self._clock.sleep(self._beat_seconds)
            try:
                await self.beat()
            except (LingdianError, OSError) as error:
                log.error("no sign of life could be kept", error=str(error))

    async def _not_as_left(self, kept: Epoch | None) -> _Found | None:
        now = self._clock.now()
        if kept is None:
            if await self._seals.commands_exist():
                newest = await self._seals.newest()
                since = None if newest is None else newest.at
                return _Found("the epoch file is missing or damaged, and there are commands", since)
            return None
        behind = await self._behind(kept)
        if behind is not None:
            return behind
        if not await self._seals.commands_exist():
            return None
        last = kept.alive_at.isoformat()
        if kept.alive_at - now > AHEAD:
            return _Found(f"our clock shows a time before the last sign of life ({last})", now)
        if now - kept.alive_at >= LONG_STOP:
            return _Found(f"no sign of life since {last}", kept.alive_at)
        return None

    async def _behind(self, kept: Epoch | None) -> _Found | None:
        if kept is None or kept.seal is None:
            return None
        found = await self._seals.seal(kept.seal.id)
        if found is None:
            newest = await self._seals.newest()
            since = None if newest is None else newest.at
            reason = f"the database does not know seal {kept.seal.id}: it was restored from before it"
            return _Found(reason, since)
        if found.digest != kept.seal.digest:
            # From where on the two went apart nobody knows.
            reason = f"seal {kept.seal.id} of the database is another one: it was restored and went on apart"
            return _Found(reason, None)
        return None

    async def _hold(self, found: _Found, kept: Epoch | None) -> None:
        """Hold what was accepted until now, by our clock or by the one that was set back."""
        log.error("relay trips are on hold", reason=found.reason, closes_since=str(found.since))
        now = self._clock.now()
        at = now if kept is None else max(now, kept.alive_at)
        await self._switches.hold(found.reason, found.since, SET_BY, at)

    async def _keep(self) -> None:
        epoch = Epoch(await self._seals.newest(), self._clock.now())
        await self._file.keep(epoch)
        self._last = epoch
