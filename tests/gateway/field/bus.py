"""A two-wire line with meters of both editions, on a pseudo-terminal: who has another speed hears rubbish,
and of several that speak at once the sum comes back.

`python -m tests.gateway.field.bus` lets five hang there until it is stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import termios
import tty
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from protocols.dlt645 import messages
from protocols.dlt645.connection import Asked, Slave
from protocols.dlt645.fields import EDITION_1997
from protocols.dlt645.frame import LEAD_IN, build, matches
from protocols.dlt645.messages import ErrorReply, Message, ReadRequest
from simulator.clock import seconds
from simulator.meter import Meter
from tests.simulator.household import NOON, plan_of

SPEED_OF = {getattr(termios, f"B{speed}"): speed for speed in (600, 1200, 2400, 4800, 9600, 19_200, 38_400)}
BITS_A_BYTE = 11

ANSWERS_1997 = {
    "9010": bytes.fromhex("56341200"),
    "c011": bytes.fromhex("000012"),
    "c020": b"\x00",
    "b611": bytes.fromhex("2002"),
}


@dataclass(slots=True, eq=False)
class OnTheLine:
    """A meter. by_byte: it compares whole bytes, as the standard has it; delay_s: until it answers."""

    address: str
    speed: int = 2400
    edition: str = "2007"
    by_byte: bool = False
    delay_s: float = 0.0
    locked: bool = False
    """13H is not answered"""
    shy: bool = False
    """nor is anything with wildcards"""
    heard: list[bytes] = field(default_factory=list)
    """what reached it as a frame"""
    _slave: Slave = field(init=False)
    _meter: Meter = field(init=False)

    def __post_init__(self) -> None:
        self._slave = Slave(self.edition)
        self._meter = Meter(replace(plan_of(), address=self.address, number=self.address))

    def answer(self, data: bytes) -> bytes:
        """What it says to bytes of its own speed."""
        if self.edition == "2007":
            return self._answer_2007(data)
        self._slave.receive_data(data, 0.0)
        said = b""
        while (event := self._slave.next_event()) is not None:
            if isinstance(event, Asked) and isinstance(event.message, ReadRequest):
                said += self._answer_1997(event.message)
        return said

    def _answer_2007(self, data: bytes) -> bytes:
        asked = data.lstrip(bytes([LEAD_IN]))[1:7][::-1].hex().upper()
        kind = data.lstrip(bytes([LEAD_IN]))[8:9]
        if not self._means_me(asked) or (kind == b"\x13" and self.locked):
            return b""
        self._meter.receive_data(data, seconds(NOON))
        return self._meter.data_to_send()

    def _answer_1997(self, request: ReadRequest) -> bytes:
        if not self._means_me(request.address):
            return b""
        data = ANSWERS_1997.get(request.di)
        if request.di == "c032":
            data = bytes.fromhex(self.address)[::-1]
        if data is not None:
            return self._slave.send_data(request, self.address, data, 0.0)
        refusal: Message = ErrorReply(self.address, 0x01, 0x02, edition=EDITION_1997)
        return build(messages.to_frame(refusal))

    def _means_me(self, asked: str) -> bool:
        if self.shy and asked != self.address:
            return False
        if self.by_byte and any(("A" in pair) and pair != "AA" for pair in _pairs(asked)):
            return False
        return matches(asked, self.address)


def _pairs(address: str) -> list[str]:
    return [address[at : at + 2] for at in range(0, 12, 2)]


def summed(said: list[tuple[float, bytes]], byte_s: float) -> bytes:
    """What comes of several that speak, each beginning at its time: a 0 wins over a 1."""
    line: dict[int, int] = {}
    for at, data in said:
        begins = round(at / byte_s)
        for place, byte in enumerate(data, begins):
            line[place] = line.get(place, 0xFF) & byte
    return bytes(line[place] for place in sorted(line))


def garbled(data: bytes) -> bytes:
    """What another speed makes of it: half the bytes, with other bits."""
    return bytes((byte * 7 + 0x5D) & 0xFF for byte in data[::2])


class Line:
    """The line; `device` is the port at which one asks. Runs in the loop that is running."""

    def __init__(
        self, meters: Iterable[OnTheLine], *, echo: bool = False, pace: float = 0.0, hurry: float = 1.0
    ) -> None:
        """pace: how much of the time that bytes take on a real line they take here; hurry: how much faster
        than real time all goes."""
        self.meters = list(meters)
        self.echo = echo
        self.pace = pace
        self.hurry = hurry
        self.master, self.slave = os.openpty()
        tty.setraw(self.master)
        os.set_blocking(self.master, False)
        self.device = os.ttyname(self.slave)
        self.questions: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._timers: set[asyncio.TimerHandle] = set()
        self._loop.add_reader(self.master, self._heard)

    @property
    def speed(self) -> int:
        """bit/s that the port is set to."""
        return SPEED_OF[termios.tcgetattr(self.slave)[5]]

    def _heard(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            data = os.read(self.master, 4096)
            self.questions.append(data)
            if self.echo:
                self._say(data)
            self._pass_on(data)

    def _pass_on(self, data: bytes) -> None:
        byte_s = BITS_A_BYTE / self.speed
        at_speed = [(meter, data if meter.speed == self.speed else garbled(data)) for meter in self.meters]
        said = [(meter.delay_s, meter.answer(heard)) for meter, heard in at_speed]
        said = [(delay, answer) for delay, answer in said if answer]
        groups: list[list[tuple[float, bytes]]] = []
        for delay, answer in sorted(said):
            ends = max((at + len(one) * byte_s for at, one in groups[-1]), default=0.0) if groups else 0.0
            if groups and delay < ends:
                groups[-1].append((delay, answer))
            else:
                groups.append([(delay, answer)])
        for group in groups:
            self._later(group[0][0] + self.pace * len(data) * byte_s, summed(group, byte_s))

    def _later(self, delay_s: float, data: bytes) -> None:
        if delay_s <= 0:
            self._say(data)
        else:
            self._timers.add(self._loop.call_later(delay_s / self.hurry, self._say, data))

    def _say(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(self.master, data)

    def close(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._loop.remove_reader(self.master)
        for end in (self.master, self.slave):
            os.close(end)


@contextmanager
def hung_up(*meters: OnTheLine, echo: bool = False, pace: float = 0.0, hurry: float = 1.0) -> Iterator[Line]:
    line = Line(meters, echo=echo, pace=pace, hurry=hurry)
    try:
        yield line
    finally:
        line.close()


FIVE = (
    ("202311050012", 2400, "2007"),
    ("202311050013", 2400, "2007"),
    ("202311060012", 2400, "2007"),
    ("000000451237", 1200, "1997"),
    ("202408110457", 9600, "2007"),
)
"""Three that collide at one speed, one of the old edition at another, one quick."""


def five() -> list[OnTheLine]:
    return [OnTheLine(address, speed, edition) for address, speed, edition in FIVE]


async def _hang() -> None:
    with hung_up(*five(), pace=1.0) as line:
        print(line.device, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_hang())
