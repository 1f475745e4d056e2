"""A made meter with a relay behind a made terminal, and a door to it. The meter reads and builds its bytes by
hand: nothing of it is the gateway's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from gateway.clock import Clock, from_device, to_device
from gateway.command import Action, MeterFacts
from gateway.door import Answer, NotWritten, Prepared, Trouble
from gateway.errors import StorageError
from gateway.model import PointRole, RelayKind
from gateway.session.reading_ports import ReadingPorts
from gateway.session.relay import RelayDoor, RelayDoors
from gateway.session.settings import MeterProfile, SessionSettings
from protocols.q_gdw376 import messages
from protocols.q_gdw376.frame import Frame
from protocols.q_gdw376.messages import encode_unit
from tests.gateway.session.stage import ADDRESS, Device, Stage, assets, noon_clock, point, stage

METER = "202311050012"
"""Of the worked examples E11 to E14 of the fact sheet."""
PASSWORD = "123456"

FACTS = MeterFacts(
    meter_id=1001,
    meter=METER,
    address=METER,
    terminal_id=7,
    terminal=ADDRESS,
    pn=1,
    port=31,
    protocol="dlt645-2007",
    profile="",
    role=PointRole.CUSTOMER,
    relay_kind=RelayKind.BUILT_IN,
    area_id=1,
    organisation_id=1,
    shadow=False,
    customer="C1",
    protected=False,
    restore_mode="close",
    intent=0,
)
PLAIN = MeterProfile(password=PASSWORD, operator="00000001")
SEALED = MeterProfile(level="98", operator="00000001")

ONE_O_CLOCK = from_device(datetime(2026, 11, 24, 13))
E11 = bytes.fromhex("68120005112320681C1035896745343333334D33333346574459BE16")
"""The worked example: trip 202311050012 until 13:00, level 02, password 123456, operator 00000001."""


def answer(control: int, data: bytes = b"", address: str = METER) -> bytes:
    """A meter's frame, built by hand, with a lead-in."""
    body = (
        b"\x68"
        + bytes.fromhex(address)[::-1]
        + bytes([0x68, control, len(data)])
        + bytes((byte + 0x33) & 0xFF for byte in data)
    )
    return b"\xfe\xfe" + body + bytes([sum(body) & 0xFF, 0x16])


OURS = answer(0x9C)
"""The meter's yes to a control frame."""


@dataclass
class RelayMeter:
    """Answers what it is asked by `items` and `says`; keeps whole frames that would switch something."""

    clock: Clock
    items: dict[str, bytes | None] = field(default_factory=dict)
    """DI (eight hex digits, high byte first) -> data after it; None: no such data"""
    says: dict[int, bytes | Callable[[bytes], bytes]] = field(default_factory=dict)
    """control code -> whole answer"""
    ahead_s: float = 0.0
    asked: list[str] = field(default_factory=list)
    controls: list[bytes] = field(default_factory=list)
    before: Callable[[str], None] = lambda di: None

    def __post_init__(self) -> None:
        self.items.setdefault("04000402", bytes.fromhex(METER)[::-1])
        self.items.setdefault("04000503", b"\x00\x00")
        self.says.setdefault(0x1C, answer(0x9C))

    def hear(self, content: bytes) -> bytes:
        assert content[0] == content[7] == 0x68
        assert content[-1] == 0x16
        assert content[-2] == sum(content[:-2]) & 0xFF
        control = content[8]
        data = bytes((byte - 0x33) & 0xFF for byte in content[10:-2])
        if control != 0x11:
            self.controls.append(content)
            said = self.says.get(control, b"")
            return said if isinstance(said, bytes) else said(content)
        di = data[3::-1].hex()
        self.asked.append(di)
        self.before(di)
        if (instead := self.says.get(0x11)) is not None:
            return instead if isinstance(instead, bytes) else instead(content)
        told = self.items.get(di, self.wall(di))
        return answer(0xD1, b"\x02") if told is None else answer(0x91, data[:4] + told)

    def wall(self, di: str) -> bytes | None:
        """Its clock, by whichever name it is asked."""
        shown = to_device(self.clock.now() + timedelta(seconds=self.ahead_s))
        date = bytes([shown.isoweekday() % 7]) + bytes.fromhex(f"{shown:%d%m%y}")
        time = bytes.fromhex(f"{shown:%S%M%H}")
        return {"0400010c": time + date, "04000101": date, "04000102": time}.get(di)

    def switches(self) -> list[bytes]:
        """The 1CH frames that reached it."""
        return [frame for frame in self.controls if frame[8] == 0x1C]


@dataclass
class Pauses:
    """Where pauses are written down, in memory."""

    rows: set[tuple[int, int]] = field(default_factory=set)
    away: bool = False
    log: list[str] = field(default_factory=list)

    async def add(self, terminal_id: int, port: int, at: datetime) -> None:
        self._here()
        self.rows.add((terminal_id, port))
        self.log.append("add")

    async def remove(self, terminal_id: int, port: int) -> None:
        self._here()
        self.rows.discard((terminal_id, port))
        self.log.append("remove")

    async def all(self) -> Sequence[tuple[int, int]]:
        self._here()
        return sorted(self.rows)

    def _here(self) -> None:
        if self.away:
            raise StorageError("the database is away")


class Bench:
    """Stage, terminal, meter and doors."""

    def __init__(self, made: Stage, device: Device, meter: RelayMeter, sealing: Any, pauses: Pauses) -> None:
        self.made = made
        self.device = device
        self.meter = meter
        self.pauses = pauses
        self.ports = ReadingPorts(made.registry, pauses, made.clock)
        self.doors = RelayDoors(made.registry, made.clock, sealing, self.ports)

    def forwards(self) -> list[messages.Forward]:
        """What the terminal was asked to pass on, so far."""
        values = [messages.decode(frame)[0].value for frame in self.device.requests(0x10)]
        return [value for value in values if isinstance(value, messages.Forward)]

    @asynccontextmanager
    async def door(self, facts: MeterFacts = FACTS) -> AsyncIterator[RelayDoor]:
        async with self.doors.open(facts) as door:
            assert door is not None
            yield door

    def passes_on(self, device: Device) -> None:
        """The terminal forwards to the meter, and its answers back."""
        device.answers[0x10, 1] = self.forward

    def forward(self, asked: Frame) -> list[bytes]:
        value = messages.decode(asked)[0].value
        assert isinstance(value, messages.Forward)
        return [encode_unit(0x10, 1, 0, messages.Forwarded(value.port, self.meter.hear(value.content)))]


@asynccontextmanager
async def bench(
    profile: MeterProfile = PLAIN,
    *,
    speed: float = 1.0,
    clock: Clock | None = None,
    sealing: Any = None,
    **changes: Any,
) -> AsyncIterator[Bench]:
    """changes: of the session settings."""
    settings = replace(SessionSettings(meters={"default": profile}), **changes)
    clock = clock or noon_clock(speed)
    known = assets(replace(point(1), meter=METER, address=METER), point(2))
    async with stage(known, settings=settings, clock=clock) as made:
        device = await made.logged_in()
        await made.session().ready()
        one = Bench(made, device, RelayMeter(clock), sealing, Pauses())
        one.passes_on(device)
        yield one


async def turns(number: int = 5) -> None:
    """Let others have a few turns of the loop."""
    for _ in range(number):
        await asyncio.sleep(0)


def yes() -> Trouble | None:
    return None


async def sent(door: RelayDoor, action: Action = Action.TRIP, deadline: datetime = ONE_O_CLOCK) -> Answer:
    """Prepare, write, hear."""
    prepared = await door.prepare(action, deadline)
    assert isinstance(prepared, Prepared), prepared
    written = await door.write(prepared, yes)
    assert not isinstance(written, NotWritten), written
    return await written
