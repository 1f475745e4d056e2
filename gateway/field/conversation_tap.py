"""Write down what is said: by listening on a line, or from between a terminal and its master."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.clock import Clock
from gateway.errors import LinkClosed
from gateway.field.conversation import (
    FROM_METER,
    FROM_TERMINAL,
    TO_METER,
    TO_TERMINAL,
    Cut,
    Cutter,
    Piece,
)
from gateway.transports.link import Link
from protocols.lens.places import Family

Keep = Callable[[Piece], None]


async def record(link: Link, clock: Clock, keep: Keep, quiet_s: float) -> None:
    """Listen, and say nothing, until cancelled; quiet_s: what ends a broken frame. Raises LinkClosed."""
    cutter = Cutter()
    began = heard_at = clock.monotonic()
    while True:
        data, settle = await link.read()
        now = clock.monotonic()
        told = [cut.piece(heard_at - began) for cut in cutter.end()] if now - heard_at > quiet_s else []
        heard_at = now
        for piece in told + [cut.piece(now - began) for cut in cutter.take(data)]:
            keep(piece)
        await settle()


async def tap(device: Link, master: Link, clock: Clock, keep: Keep, quiet_s: float) -> None:
    """Pass on every byte between the two, as it comes, and write down both directions, until one of the links
    ends (LinkClosed; the other is closed then) or it is cancelled. device: where the terminal or the meters
    are. A piece is kept before it goes on, so that no answer stands before its question. What is no whole
    frame goes on as well, and is kept under the direction in which it went."""
    began = clock.monotonic()
    up = _Way((FROM_METER, FROM_TERMINAL), clock, began, keep, quiet_s)
    down = _Way((TO_METER, TO_TERMINAL), clock, began, keep, quiet_s)
    running = [asyncio.ensure_future(up.pass_on(device, master))]
    running.append(asyncio.ensure_future(down.pass_on(master, device)))
    try:
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for one in done:
            one.result()
    finally:
        for one in running:
            one.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for way in (up, down):
            way.end()
        for link in (device, master):
            await link.close()


class _Way:
    """One direction of a tap. words: its name, for a meter's frames and for a terminal's."""

    def __init__(
        self, words: tuple[str, str], clock: Clock, began: float, keep: Keep, quiet_s: float
    ) -> None:
        self._words = words
        self._clock = clock
        self._began = self._heard_at = began
        self._keep = keep
        self._quiet_s = quiet_s
        self._cutter = Cutter()
        self._family = Family.TERMINAL

    async def pass_on(self, source: Link, target: Link) -> None:
        while True:
            data, settle = await source.read()
            now = self._clock.monotonic()
            if now - self._heard_at > self._quiet_s:
                self.end()
            self._heard_at = now
            self._tell(self._cutter.take(data))
            try:
                await target.write(data)
            except LinkClosed as error:
                raise LinkClosed(f"{error}; what came for it stays here 未能转发") from error
            await settle()

    def end(self) -> None:
        """Nothing more comes to what is held."""
        self._tell(self._cutter.end())

    def _tell(self, cuts: list[Cut]) -> None:
        for cut in cuts:
            self._family = cut.family or self._family
            word = self._words[0 if self._family is Family.METER else 1]
            self._keep(cut.piece(self._heard_at - self._began, word))
