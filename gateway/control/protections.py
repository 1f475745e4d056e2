"""Blocks that protect customers from the dark, and their mirror in the meters.

A block holds in our gates from the moment it is kept. A keep-power block is told to the meters as well, by
keep-power commands: the database says which are missing, so nothing is forgotten when we die in between. The
meter is released only by a command that passes every gate of a trip.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import structlog

from gateway.clock import Clock
from gateway.command import Action, BlockKind, Command, canonical
from gateway.control.ask import Ask, NoSuch, NotNow, Unfit, check_text
from gateway.control.requests import Requests
from gateway.control.stores import BlockStore
from gateway.errors import InputError
from gateway.storage.blocks import Mirror, NewBlock, StandingBlock

log = structlog.get_logger()

MIRRORED_BY: Final = "lingdian:blocks"
"""Requester of the keep-power commands that follow a block."""

AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Lifted:
    """released: what became of the meters' keep-power: cancelled before it was sent, or asked to be released.
    kept: meters that stay under keep-power, each with the reason."""

    block: StandingBlock
    released: tuple[Command, ...] = ()
    kept: tuple[tuple[str, str], ...] = ()


class Protections:
    """Adds and lifts blocks."""

    def __init__(self, store: BlockStore, requests: Requests, clock: Clock) -> None:
        self._store = store
        self._requests = requests
        self._clock = clock

    async def add(self, new: NewBlock, by: str) -> StandingBlock:
        """A block. When this has returned no trip of it is written. The same again is the one that stands.

        Unfit; InputError where there is no such customer or point.
        """
        if (new.customer_id is None) is (new.point_id is None):
            raise Unfit(None, "a block protects a customer or a point, one of them 须指定用户或计量点之一")
        check_text("source", new.source)
        check_text("reason", new.reason)
        if not new.source.strip():
            raise Unfit(None, "a block needs its source 须注明来源")
        if new.since.tzinfo is None or (new.until is not None and new.until.tzinfo is None):
            raise Unfit(None, "since and until need a zone 时间缺少时区")
        if new.until is not None and new.until <= new.since:
            raise Unfit(None, "since does not lie before until 时间次序有误")
        block = await self._store.add(new, by, self._clock.now())
        if block.kind is BlockKind.KEEP_POWER:
            await self.mirror()
        return block

    async def mirror(self) -> int:
        """Have every keep-power block in force told to its meters; call it at start and now and then, since
        blocks begin and meters are replaced. Returns how many commands were made."""
        made = 0
        for one in await self._store.unmirrored(self._clock.now(), AT_ONCE):
            ask = Ask(
                meter_id=one.meter_id,
                meter=one.meter,
                verb=Action.KEEP_POWER,
                cause="keep-power block",
                caused_by=f"block {one.block_id}",
            )
            try:
                accepted = await self._requests.put(ask, MIRRORED_BY, f"block {one.block_id} {one.meter_id}")
            except InputError as error:
                log.warning("a keep-power block is not told to its meter", meter=one.meter, error=str(error))
            else:
                made += accepted.new
        return made

    async def lift(self, block_id: int, by: str, reason: str, *, cause: str = "", notice: str = "") -> Lifted:
        """It protects no longer. cause, notice: for the release of the meters from keep-power, which is gated
        as a trip is. The same call again finds what is still to be done. NoSuch, Unfit."""
        check_text("reason", reason)
        if not reason.strip():
            raise Unfit(None, "a reason is required 须填写原因")
        now = self._clock.now()
        block = await self._store.lift(block_id, reason, by, now)
        if block is None:
            raise NoSuch(f"there is no block {block_id} 无此保护")
        released: list[Command] = []
        kept: list[tuple[str, str]] = []
        if block.kind is BlockKind.KEEP_POWER:
            for mirror in await self._store.mirrors(block_id, now):
                outcome = await self._release(mirror, by, cause or reason, notice)
                if isinstance(outcome, Command):
                    released.append(outcome)
                else:
                    kept.append((mirror.meter, outcome))
        return Lifted(block, tuple(released), tuple(kept))

    async def _release(self, mirror: Mirror, by: str, cause: str, notice: str) -> Command | str:
        assert mirror.command_id is not None
        try:
            return await self._requests.cancel(mirror.command_id, by, "its block was lifted")
        except NotNow:
            pass  # the meter has it, or may have it
        ask = Ask(
            meter_id=mirror.meter_id,
            meter=mirror.meter,
            verb=Action.RELEASE_KEEP_POWER,
            cause=cause,
            notice=notice,
            caused_by=f"block {mirror.block_id}",
        )
        # Asked for once in these words; with a notice that was missing it is another request.
        words = hashlib.sha256(canonical(ask.body())).hexdigest()[:16]
        key = f"lift {mirror.block_id} {mirror.command_id} {words}"
        try:
            return (await self._requests.put(ask, by, key)).command
        except InputError as error:
            return str(error)
