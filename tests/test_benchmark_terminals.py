"""The load of `make bench ARGS=terminals` sees what it is there to see: late confirms, wrong ones, none."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import pytest

from benchmarks import terminals, terminals_load
from benchmarks.terminals_load import Fleet, address_of
from benchmarks.terminals_peers import Crowd
from gateway.errors import LinkClosed
from gateway.transports.tcp import TcpLink
from gateway.transports.tcp_listener import listen
from protocols.q_gdw376 import messages
from protocols.q_gdw376.connection import Master
from protocols.q_gdw376.frame import Frame, build, parse
from protocols.q_gdw376.stream import FoundFrame, FrameStream
from tests.end_to_end.billing import percentiles
from tests.gateway.session.stage import until

FLEET = 50
HEARTBEAT_S = 1.0
LATE_S = 0.3

Confirm = Callable[[Frame], "bytes | None"]
"""What the stub says to a heartbeat; None: nothing."""

_MASTER = Master()


@dataclass
class Stub:
    """A gateway that confirms logins, asks the last question of those after a login, and answers heartbeats
    as a test wants."""

    confirm: Confirm = _MASTER.confirm
    late: Callable[[int], float] = lambda number: 0.0
    """seconds before the confirm of the heartbeat with that number"""
    heard: list[Frame] = field(default_factory=list)
    port: int = 0
    _numbers: count[int] = field(default_factory=count)

    async def serve(self, link: TcpLink) -> None:
        stream = FrameStream()
        with contextlib.suppress(LinkClosed):
            while True:
                data, _ = await link.read()
                stream.receive_data(data)
                while isinstance(event := stream.next_event(), FoundFrame):
                    self._answer(event.frame, link)

    def _answer(self, frame: Frame, link: TcpLink) -> None:
        if not frame.prm:
            self.heard.append(frame)
            return
        if messages.decode(frame)[0].fn == terminals_load.LOGIN:
            master = Master()
            master.terminal = frame.terminal
            link.write_now(_MASTER.confirm(frame) + master.send(messages.read_version(), 0.0))
            return
        said = self.confirm(frame)
        if said is not None:
            asyncio.get_running_loop().call_later(self.late(next(self._numbers)), link.write_now, said)


@asynccontextmanager
async def served(stub: Stub) -> AsyncIterator[Stub]:
    listener = await listen("127.0.0.1", 0, stub.serve)
    stub.port = listener.port
    try:
        yield stub
    finally:
        await listener.close()


async def beaten(stub: Stub, seconds: float = 2 * HEARTBEAT_S) -> Fleet:
    """A fleet that has logged in and beaten for so long, or until it had a fault."""
    async with served(stub), asyncio.timeout(30):
        fleet = Fleet("127.0.0.1", stub.port, 0, FLEET, 1, HEARTBEAT_S)
        await fleet.dial()
        await fleet.learn()
        beating = asyncio.create_task(fleet.beat())
        ends: set[asyncio.Future[Any]] = {beating, fleet.faulty}
        await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        beating.cancel()
        if not fleet.faulty.done():
            await fleet.settle()
        fleet.close()
    return fleet


def milliseconds(fleet: Fleet) -> list[float]:
    return [1000 * lasted for lasted in fleet.samples[1::2]]


def fault(fleet: Fleet) -> str:
    assert fleet.faulty.done(), "nothing was wrong to the load"
    return fleet.faulty.result()


async def test_every_heartbeat_is_answered_and_timed() -> None:
    fleet = await beaten(stub := Stub())
    assert not fleet.faulty.done()
    assert len(milliseconds(fleet)) >= FLEET
    assert percentiles(milliseconds(fleet))[0] < 1000 * LATE_S
    told = {frame.terminal: messages.decode(frame)[0].value for frame in stub.heard}
    assert sorted(told) == [address_of(number) for number in range(FLEET)]
    assert all(isinstance(value, messages.TerminalVersion) for value in told.values())


async def test_a_late_confirm_is_seen_in_the_p99() -> None:
    fleet = await beaten(Stub(late=lambda number: LATE_S if number % 20 == 0 else 0.0))
    assert not fleet.faulty.done()
    p50, _, p99 = percentiles(milliseconds(fleet))
    assert p50 < 1000 * LATE_S <= p99


@pytest.mark.parametrize(
    "planted",
    [
        pytest.param({"pseq": lambda frame: (frame.pseq + 1) % 16}, id="PSEQ"),
        pytest.param({"terminal": lambda frame: address_of(FLEET)}, id="terminal"),
        pytest.param({"body": lambda frame: messages.encode_unit(0, 2, 0)}, id="denied"),
        pytest.param(
            {"body": lambda frame: messages.encode_unit(0, 3, 0, messages.UnitConfirm(2, ((0, 1, 0),)))},
            id="a login's",
        ),
        pytest.param({"prm": lambda frame: True}, id="PRM"),
    ],
)
async def test_a_wrong_confirm_is_a_fault(planted: dict[str, Callable[[Frame], object]]) -> None:
    def wrong(heartbeat: Frame) -> bytes:
        changes = {name: make(heartbeat) for name, make in planted.items()}
        return build(replace(parse(_MASTER.confirm(heartbeat)), **changes))  # type: ignore[arg-type]

    assert "answered" in fault(await beaten(Stub(confirm=wrong)))


async def test_a_second_confirm_is_a_fault() -> None:
    fleet = await beaten(Stub(confirm=lambda frame: 2 * _MASTER.confirm(frame)))
    assert "nothing waits for" in fault(fleet)


async def test_a_terminal_that_is_not_answered_is_a_fault() -> None:
    assert "was not answered" in fault(await beaten(Stub(confirm=lambda frame: None), 5 * HEARTBEAT_S))


async def test_peers_dribble_and_come_again() -> None:
    """Bytes of theirs are never a frame, and one that is closed dials again."""
    stub = Stub()
    async with served(stub), asyncio.timeout(20):
        crowd = Crowd([("127.0.0.1", stub.port)], silent=5, dribbling=5)
        await crowd.dial()
        assert crowd.connected == 10
        dribbling = asyncio.create_task(crowd.dribble())
        await until(lambda: crowd.dribbled >= 5, 10)
        crowd.cut(3)
        await until(lambda: crowd.connected >= 13, 10)
        dribbling.cancel()
        await crowd.close()
    assert crowd.closed == 3
    assert not stub.heard


def test_the_change_of_the_p99_is_that_of_all_turns_together() -> None:
    def turn(name: str, answers: list[float]) -> terminals.Phase:
        return terminals.Phase(name, 0.0, 1.0, {}, answers)

    alone = [turn("A1", [1.0] * 98 + [2.0] * 2), turn("A2", [1.0] * 100)]
    assert terminals.p99(alone[:1]) == 2.0
    assert terminals.p99(alone) == 1.0
