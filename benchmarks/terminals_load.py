"""The other side of `terminals`: many terminals that log in and beat, and peers that do neither.

`python -m benchmarks.terminals_load fleet …` and `… peers …` are processes of their own; they say JSON lines
and go on until SIGTERM. An answer is timed from the write of a heartbeat to the arrival of its confirm, each
confirm is checked field by field, and whatever is not as it must be ends the process with a `fault`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import signal
import sys
import time
from array import array
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

import uvloop

from benchmarks.terminals_peers import DIALLED_AT_ONCE, TICK_S, Crowd
from gateway.clock import to_device
from protocols.q_gdw376 import messages
from protocols.q_gdw376.frame import Frame, build
from protocols.q_gdw376.link import LINK_STATE_CODE, LINK_TEST_CODE, RESPONSE_CODE, confirm_body
from protocols.q_gdw376.messages import encode_unit
from protocols.q_gdw376.stream import FoundFrame, FrameStream
from protocols.q_gdw376.values import (
    Archive,
    ArchiveQuery,
    ArchiveRecord,
    Clock,
    TerminalPorts,
    TerminalVersion,
)

AREA: Final = "3701"
LINK_TEST: Final = 0x02
LOGIN, HEARTBEAT = 1, 3

LOGIN_SECONDS: Final = 600.0
ANSWER_SECONDS: Final = 20.0
"""A heartbeat without a confirm for so long is a fault."""

_CONFIRM_ALL: Final = encode_unit(0, 1, 0)
_DENY_ALL: Final = encode_unit(0, 2, 0)


def address_of(number: int) -> str:
    """Terminal `number` (0 and up) as the assets write it."""
    return f"{AREA}{number + 1:04x}"


def meter_of(number: int, pn: int) -> str:
    """The meter at point `pn` of terminal `number`: 12 digits."""
    return f"{number + 1:08d}{pn:04d}"


def fault_of(frame: Frame, terminal: str, pseq: int, fn: int) -> str:
    """Why `frame` is not the confirm of that terminal's AFN02 with that PSEQ and Fn; "" where it is."""
    wanted = Frame(
        terminal=terminal,
        up=False,
        prm=False,
        function=LINK_STATE_CODE,
        afn=0,
        body=frame.body,
        msa=frame.msa,
        pseq=pseq,
        protocol_id=frame.protocol_id,
    )
    if frame != wanted:
        return f"{terminal} F{fn} PSEQ {pseq} was answered by {frame}"
    if frame.body not in (_CONFIRM_ALL, confirm_body(LINK_TEST, ((0, fn, 0),))):
        return f"{terminal} F{fn} was answered by units {frame.body.hex(' ')}"
    return ""


class Caller(asyncio.Protocol):
    """One terminal on its link: logs in when it has one, and answers what it is asked about itself."""

    __slots__ = ("_fleet", "_number", "_pseq", "_stream", "_transport", "address", "waiting")

    def __init__(self, fleet: Fleet, number: int) -> None:
        self.address = address_of(number)
        self.waiting: tuple[int, int, float] | None = None
        """PSEQ, Fn and time of the AFN02 that waits for its confirm"""
        self._fleet = fleet
        self._number = number
        self._pseq = number % 16
        self._stream = FrameStream()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is one without saying so
        self._transport = transport
        self._report(LOGIN, encode_unit(LINK_TEST, LOGIN, 0))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._fleet.lost(self)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def beat(self, clock: bytes) -> None:
        """Send a heartbeat; a fault where the one before was never answered. clock: the unit to send."""
        if self.waiting is not None:
            self._fleet.fault(f"{self.address}: F{self.waiting[1]} was not answered")
        elif self._transport is not None:
            self._report(HEARTBEAT, clock)

    def _report(self, fn: int, unit: bytes) -> None:
        self._pseq = (self._pseq + 1) % 16
        frame = self._frame(
            prm=True, function=LINK_TEST_CODE, afn=LINK_TEST, body=unit, pseq=self._pseq, con=True
        )
        assert self._transport is not None
        self.waiting = self._pseq, fn, time.monotonic()
        self._transport.write(frame)

    def _frame(
        self, *, prm: bool, function: int, afn: int, body: bytes, pseq: int, con: bool = False
    ) -> bytes:
        return build(
            Frame(
                terminal=self.address,
                up=True,
                prm=prm,
                function=function,
                afn=afn,
                body=body,
                pseq=pseq,
                con=con,
            )
        )

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        self._stream.receive_data(data)
        while (event := self._stream.next_event()) is not None:
            if not isinstance(event, FoundFrame):
                self._fleet.fault(f"{self.address} heard {event}")
            elif event.frame.prm:
                self._answer(event.frame)
            else:
                self._confirmed(event.frame, now)

    def _confirmed(self, frame: Frame, now: float) -> None:
        if self.waiting is None:
            self._fleet.fault(f"{self.address}: a confirm that nothing waits for: {frame}")
            return
        pseq, fn, sent = self.waiting
        self.waiting = None
        if why := fault_of(frame, self.address, pseq, fn):
            self._fleet.fault(why)
        elif fn == LOGIN:
            self._fleet.logged_in(self)
        else:
            self._fleet.answered(sent, now)

    def _answer(self, asked: Frame) -> None:
        unit = messages.decode(asked)[0]
        match asked.afn, unit.fn:
            case 0x0C, 2:
                said = encode_unit(0x0C, 2, 0, _clock())
            case 0x09, 2:
                said = encode_unit(0x09, 2, 0, TerminalPorts(0, 0, 0, 0, self._fleet.meters, 1024, 1024))
            case 0x09, 1:
                said = encode_unit(
                    0x09, 1, 0, TerminalVersion("LD", "BENCH", "1", None, "", "1376", "1", None)
                )
                self._fleet.asked()
            case 0x0A, 10 if isinstance(unit.value, ArchiveQuery):
                records = tuple(
                    ArchiveRecord(pn, pn, 31, 2400, 30, meter_of(self._number, pn), 4)
                    for pn in unit.value.sequences
                    if pn <= self._fleet.meters
                )
                said = encode_unit(0x0A, 10, 0, Archive(records)) if records else b""
            case _:
                said = b""
        afn = asked.afn if said else 0
        body = said or _DENY_ALL
        assert self._transport is not None
        self._transport.write(
            self._frame(prm=False, function=RESPONSE_CODE, afn=afn, body=body, pseq=asked.pseq)
        )


def _clock() -> Clock:
    shown = to_device(datetime.now(UTC)).replace(microsecond=0)
    return Clock(shown, shown.isoweekday())


class Fleet:
    """Terminals `first` to `first + terminals - 1`, each with one link to `host:port` and `meters` meters."""

    def __init__(
        self, host: str, port: int, first: int, terminals: int, meters: int, heartbeat_s: float
    ) -> None:
        self.meters = meters
        self.samples = array("d")
        """of each answered heartbeat: when it was sent (time.monotonic) and how long its answer took, in s"""
        self.faulty: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """the first thing that was not as it must be"""
        self._host, self._port = host, port
        self._heartbeat_s = heartbeat_s
        self._callers = [Caller(self, number) for number in range(first, first + terminals)]
        self._logged_in = self._asked = 0
        self._all_here, self._all_asked = asyncio.Event(), asyncio.Event()
        self._ending = False
        self._room = asyncio.Semaphore(DIALLED_AT_ONCE)

    # what callers tell

    def fault(self, what: str) -> None:
        if not self.faulty.done():
            self.faulty.set_result(what)

    def lost(self, caller: Caller) -> None:
        if not self._ending:
            self.fault(f"{caller.address} lost its link")

    def logged_in(self, caller: Caller) -> None:
        self._logged_in += 1
        self._room.release()
        if self._logged_in == len(self._callers):
            self._all_here.set()

    def asked(self) -> None:
        """One was asked the last of the questions after a login."""
        self._asked += 1
        if self._asked == len(self._callers):
            self._all_asked.set()

    def answered(self, sent: float, now: float) -> None:
        self.samples.extend((sent, now - sent))

    # what it is for

    async def dial(self) -> float:
        """Have all log in; seconds that it took. TimeoutError after LOGIN_SECONDS; see `faulty`, too."""
        loop = asyncio.get_running_loop()
        began = time.monotonic()
        async with asyncio.timeout(LOGIN_SECONDS):
            for caller in self._callers:
                await self._room.acquire()
                await loop.create_connection(lambda one=caller: one, self._host, self._port)  # type: ignore[misc]
            await self._all_here.wait()
        return time.monotonic() - began

    async def learn(self) -> None:
        """Wait until the gateway has asked all about themselves."""
        async with asyncio.timeout(LOGIN_SECONDS):
            await self._all_asked.wait()

    async def beat(self) -> None:
        """Heartbeats of all, spread evenly over their period, for as long as this runs."""
        count = len(self._callers)
        began = time.monotonic()
        sent = 0
        while True:
            due = int((time.monotonic() - began) / self._heartbeat_s * count)
            if sent < due:
                unit = encode_unit(LINK_TEST, HEARTBEAT, 0, _clock())
                while sent < due:
                    self._callers[sent % count].beat(unit)
                    sent += 1
            await asyncio.sleep(TICK_S)

    async def settle(self) -> None:
        """Wait for the answers that are still to come; then links may end. A fault where one does not."""
        end = time.monotonic() + ANSWER_SECONDS
        while silent := [one.address for one in self._callers if one.waiting is not None]:
            if time.monotonic() > end:
                self.fault(f"{len(silent)} terminals were not answered, {silent[0]} among them")
                break
            await asyncio.sleep(0.05)
        self._ending = True

    def close(self) -> None:
        """End all links."""
        self._ending = True
        for caller in self._callers:
            caller.close()


# -- as processes ---------------------------------------------------------------------------------


def say(event: str, **words: object) -> None:
    print(json.dumps({"event": event, **words}), flush=True)


def all_descriptors() -> int:
    """Raise the limit of open files to the hard one; what it is then."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


async def run_fleet(given: argparse.Namespace) -> int:
    host, _, port = given.address.rpartition(":")
    fleet = Fleet(host, int(port), given.first, given.terminals, given.meters, given.heartbeat)
    stopped = _stopped()

    async def course() -> None:
        say("logged in", seconds=await fleet.dial())
        await fleet.learn()
        gc.collect()
        gc.freeze()
        say("learned")
        await fleet.beat()

    going = asyncio.create_task(course())
    stopping = asyncio.create_task(stopped.wait())
    ends: set[asyncio.Future[Any]] = {going, stopping, fleet.faulty}
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    going.cancel()
    if not fleet.faulty.done() and stopped.is_set():
        await fleet.settle()
    if fleet.faulty.done():
        say("fault", what=fleet.faulty.result())
        return 1
    if not stopped.is_set():
        going.result()
    given.samples.write_bytes(fleet.samples.tobytes())
    say("end", answers=len(fleet.samples) // 2)
    return 0


async def run_peers(given: argparse.Namespace) -> int:
    addresses = [
        (host, int(port)) for host, _, port in (one.rpartition(":") for one in given.address.split(","))
    ]
    # Strangers are other machines: what their process takes of these cores must not look like the gateway's.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    crowd = Crowd(addresses, given.silent, given.dribbling)
    stopped = _stopped()
    await crowd.dial()
    say("connected", peers=crowd.connected)
    dribbling = asyncio.create_task(crowd.dribble())
    await asyncio.wait({dribbling, asyncio.create_task(stopped.wait())}, return_when=asyncio.FIRST_COMPLETED)
    if not stopped.is_set():
        dribbling.result()
    say("end", connected=crowd.connected, closed=crowd.closed, dribbled=crowd.dribbled)
    return 0


def _stopped() -> asyncio.Event:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    return stopped


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(required=True)
    fleet = kinds.add_parser("fleet")
    fleet.add_argument("--first", type=int, default=0)
    fleet.add_argument("--terminals", type=int, required=True)
    fleet.add_argument("--meters", type=int, required=True)
    fleet.add_argument("--heartbeat", type=float, required=True)
    fleet.add_argument("--samples", type=Path, required=True)
    fleet.set_defaults(run=run_fleet)
    peers = kinds.add_parser("peers")
    peers.add_argument("--silent", type=int, required=True)
    peers.add_argument("--dribbling", type=int, required=True)
    peers.set_defaults(run=run_peers)
    for one in (fleet, peers):
        one.add_argument("--address", required=True, help="HOST:PORT; of peers also several, with commas")
    given = parser.parse_args()
    all_descriptors()
    gc.set_threshold(100_000, 50, 1000)
    run: Callable[[argparse.Namespace], Coroutine[Any, Any, int]] = given.run
    return uvloop.run(run(given))


if __name__ == "__main__":
    sys.exit(main())
