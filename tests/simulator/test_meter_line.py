"""Meters that speak for themselves: on a line in memory with each of its faults, and on real wires."""

from __future__ import annotations

import asyncio
import os
import termios
import tty
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest

from protocols.dlt645 import messages
from protocols.dlt645.commands import ChangeSpeed, SpeedReply
from protocols.dlt645.frame import build
from protocols.dlt645.messages import AddressReply, Message, ReadAddressRequest, ReadReply, ReadRequest
from protocols.dlt645.stream import FoundFrame, FrameStream
from protocols.permit import Permit
from protocols.wire import int_to_bcd
from simulator.bus import Making
from simulator.clock import wall
from simulator.district import District, MeterPlan, Quantity
from simulator.line import Ending
from simulator.meter_line import Hanging, LineFaults, MeterLine, Modem, made
from tests.simulator.playing import DAY, NINE, line_on, until

PLANS = [
    meter for meter in District(7, 1, 40, DAY).terminals[0].meters if meter.meter_class == "single_phase"
][:3]
NEW, OLD = PLANS[0], replace(PLANS[1], edition="1997")
TOTAL, TOTAL_1997, BLOCK_1997 = "00010000", "9010", "901f"


def line_of(
    *hanging: tuple[MeterPlan, int],
    faults: LineFaults | None = None,
    paced: bool = False,
    modem: Modem | None = None,
) -> MeterLine:
    return MeterLine(
        [Hanging(made(plan, Making()), plan.address, baud) for plan, baud in hanging],
        Counter(),
        faults=faults,
        paced=paced,
        modem=modem,
    )


def question(message: Message) -> bytes:
    permit = Permit("645 17", message.address, "a test") if isinstance(message, ChangeSpeed) else None
    return build(messages.to_frame(message, permit), 4)


def asked(line: MeterLine, message: Message, at: float = NINE) -> list[tuple[float, bytes]]:
    """What the line says to a question, each piece with its time."""
    line.receive_data(question(message), at)
    said = []
    while line.ending is None and (due := line.next_timeout()) is not None and due < at + 20:
        said += [(due, chunk) for chunk in line.chunks(due)]
    return said


def understood(said: bytes, edition: str = "2007") -> list[Message]:
    stream = FrameStream()
    stream.receive_data(said)
    stream.end()
    found = []
    while (event := stream.next_event()) is not None:
        if isinstance(event, FoundFrame):
            found.append(messages.from_frame(event.frame, edition))
    return found


def heard(line: MeterLine, message: Message, edition: str = "2007", at: float = NINE) -> list[Message]:
    return understood(b"".join(chunk for _, chunk in asked(line, message, at)), edition)


def energy(plan: MeterPlan, at: float = NINE) -> bytes:
    return int_to_bcd(plan.at(Quantity.FORWARD_ACTIVE, wall(at))[0], 4)


# -- in memory -------------------------------------------------------------------------------------


def test_each_meter_answers_in_its_own_edition() -> None:
    line = line_of((NEW, 2400), (OLD, 2400))
    assert heard(line, ReadRequest(NEW.address, TOTAL)) == [ReadReply(NEW.address, TOTAL, energy(NEW))]
    assert heard(line, ReadRequest(OLD.address, TOTAL_1997), "1997") == [
        ReadReply(OLD.address, TOTAL_1997, energy(OLD))
    ]
    block = b"".join(int_to_bcd(each, 4) for each in OLD.at(Quantity.FORWARD_ACTIVE, wall(NINE)))
    assert heard(line, ReadRequest(OLD.address, BLOCK_1997), "1997") == [
        ReadReply(OLD.address, BLOCK_1997, block)
    ]
    assert heard(line, ReadRequest(OLD.address, TOTAL)) == []
    assert heard(line, ReadRequest(NEW.address, TOTAL_1997), "1997") == []


@pytest.mark.parametrize(("di", "months"), [("9410", 0), ("9810", 1)])
def test_a_1997_meter_keeps_the_ends_of_two_months(di: str, months: int) -> None:
    first = DAY.replace(day=1)
    midnight = first if not months else (first - timedelta(days=1)).replace(day=1)
    (reply,) = heard(line_of((OLD, 1200)), ReadRequest(OLD.address, di), "1997")
    assert reply == ReadReply(
        OLD.address, di, int_to_bcd(OLD.at_midnight(Quantity.FORWARD_ACTIVE, midnight)[0], 4)
    )


def test_what_a_1997_meter_has_not_got_it_refuses() -> None:
    (reply,) = heard(line_of((OLD, 1200)), ReadRequest(OLD.address, "9999"), "1997")
    assert isinstance(reply, messages.ErrorReply)


def test_a_meter_of_another_speed_hears_rubbish_and_one_can_be_told_another() -> None:
    line = line_of((NEW, 2400), (PLANS[2], 9600))
    line.speed = 2400
    ask = ReadRequest(PLANS[2].address, TOTAL)
    assert heard(line, ask) == []
    assert len(heard(line, ReadRequest(NEW.address, TOTAL))) == 1
    line.speed = 9600
    assert len(heard(line, ask, at=NINE + 5)) == 1
    assert heard(line, ChangeSpeed(PLANS[2].address, 0x08), at=NINE + 10) == [
        SpeedReply(PLANS[2].address, 0x08)
    ]
    assert heard(line, ask, at=NINE + 15) == []
    line.speed = 2400
    assert len(heard(line, ask, at=NINE + 20)) == 1


def test_two_who_answer_at_once_spoil_it_and_one_does_not() -> None:
    line = line_of((NEW, 2400), (PLANS[2], 2400))
    assert heard(line, ReadAddressRequest()) == []
    assert line._counts["collisions"] == 1
    assert heard(line_of((NEW, 2400)), ReadAddressRequest()) == [AddressReply(NEW.address)]


@pytest.mark.parametrize(
    ("faults", "name", "answers"),
    [
        (LineFaults(noise=1.0), "noise", 1),
        (LineFaults(echo=True), "echo", 2),
        (LineFaults(damage=1.0), "damage", 0),
        (LineFaults(silence=1.0), "silence", 0),
        (LineFaults(drop=1.0), "drop", 0),
        (LineFaults(slow_s=0.05), "slow", 1),
    ],
)
def test_each_fault_does_what_it_says_and_is_counted(faults: LineFaults, name: str, answers: int) -> None:
    line = line_of((NEW, 2400), faults=faults)
    clean = asked(line_of((NEW, 2400)), ReadRequest(NEW.address, TOTAL))
    said = asked(line, ReadRequest(NEW.address, TOTAL))
    assert line._counts[name] == 1
    assert len(understood(b"".join(chunk for _, chunk in said))) == answers
    assert [chunk for _, chunk in said] != [chunk for _, chunk in clean]
    assert (line.ending is Ending.ABORT) == (name == "drop")
    if name == "slow":
        assert said[-1][0] - NINE >= 0.05 * 19


def test_bytes_take_eleven_bits_each_on_a_paced_line() -> None:
    said = asked(line_of((NEW, 1200), paced=True), ReadRequest(NEW.address, TOTAL))
    answer = sum(len(chunk) for _, chunk in said)
    asking = len(question(ReadRequest(NEW.address, TOTAL)))
    assert said[-1][0] - NINE == pytest.approx((asking + answer) * 11 / 1200 + 0.02, abs=0.001)
    assert max(len(chunk) for _, chunk in said) == 1


def test_half_a_question_is_forgotten_after_a_gap() -> None:
    line = line_of((NEW, 2400))
    line.receive_data(question(ReadRequest(NEW.address, TOTAL))[:-3], NINE)
    assert len(heard(line, ReadRequest(NEW.address, TOTAL), at=NINE + 1)) == 1


def test_a_modem_says_who_it_is_and_its_heartbeat() -> None:
    line = line_of((NEW, 2400), modem=Modem(b"DTU7", b"$", 30.0))
    line.dial(NINE)
    assert line.chunks(NINE) == [b"DTU7"]
    assert line.next_timeout() == NINE + 30
    line.handle_timeout(NINE + 30)
    assert line.chunks(NINE + 30) == [b"$"]


# -- on wires --------------------------------------------------------------------------------------


async def said_to(descriptor: int, ask: bytes, *, wait: float) -> bytes:
    """What comes back on a serial port until it has been silent for `wait` seconds."""
    loop = asyncio.get_running_loop()
    came: asyncio.Queue[bytes] = asyncio.Queue()
    loop.add_reader(descriptor, lambda: came.put_nowait(os.read(descriptor, 4096)))
    try:
        os.write(descriptor, ask)
        said = await asyncio.wait_for(came.get(), 20)
        while True:
            try:
                said += await asyncio.wait_for(came.get(), wait)
            except TimeoutError:
                return said
    finally:
        loop.remove_reader(descriptor)


async def test_on_a_pseudo_terminal_the_speed_is_what_the_other_side_set() -> None:
    line = line_of((NEW, 2400), (OLD, 1200), faults=LineFaults(echo=True))
    async with line_on("pty", line, line._counts, listening=True) as played:
        place = (await played.places(1))["line-7"]
        descriptor = os.open(place.device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            for plan, di, speed in ((NEW, TOTAL, 2400), (OLD, TOTAL_1997, 1200)):
                tty.setraw(descriptor, termios.TCSANOW)
                settings = termios.tcgetattr(descriptor)
                settings[4] = settings[5] = getattr(termios, f"B{speed}")
                termios.tcsetattr(descriptor, termios.TCSANOW, settings)
                ask = question(ReadRequest(plan.address, di))
                said = await said_to(descriptor, ask, wait=0.1)
                assert said.startswith(ask)
                (reply,) = understood(said[len(ask) :], plan.edition)
                assert isinstance(reply, ReadReply)
                assert reply.address == plan.address
            assert line._counts["wrong_speed"] == 2
        finally:
            os.close(descriptor)


async def test_a_serial_server_drops_the_link_in_the_middle_of_an_answer_and_takes_the_next() -> None:
    line = line_of((NEW, 2400), faults=LineFaults(drop=1.0))
    async with line_on("tcp://127.0.0.1:0", line, line._counts, listening=True) as played:
        place = (await played.places(1))["line-7"]
        for _ in range(2):
            reader, writer = await asyncio.open_connection(place.host, place.port)
            writer.write(question(ReadRequest(NEW.address, TOTAL)))
            half = await asyncio.wait_for(reader.read(), 20)
            assert half
            assert not understood(half)
            writer.close()
    assert line._counts["drop"] == 2


async def test_a_modem_dials_registers_and_beats() -> None:
    line = line_of((NEW, 2400), modem=Modem(b"DTU7", b"$", 0.05), faults=LineFaults(noise=1.0))
    said = bytearray()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            if not said:
                writer.write(question(ReadRequest(NEW.address, TOTAL)))
            said.extend(data)
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    where = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with line_on(where, line, line._counts):
        await until(lambda: understood(bytes(said)) != [] and said.count(b"$") >= 3)
    server.close()
    assert said.startswith(b"DTU7")
    assert line._counts["registrations"] == 1
