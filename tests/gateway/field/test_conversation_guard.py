"""What does more than ask goes to nobody but a simulator of ours: not a byte of it, nor of its file."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.errors import InputError, LinkClosed
from gateway.field import own_simulator
from gateway.field.conversation import Piece, Role
from gateway.field.conversation_guard import Door, danger, refuse_danger
from gateway.field.line import READS as READ_FUNCTIONS
from gateway.field.line import NotARead
from gateway.transports import channel as channels
from gateway.transports import tcp_listener, udp, ways
from gateway.transports.channel import Channel
from gateway.transports.link import Link
from gateway.transports.memory import pair
from gateway.transports.ways import Listening
from protocols.dlt645.frame import Frame as MeterFrame
from protocols.dlt645.frame import build as meter_frame
from protocols.q_gdw376.frame import parse
from protocols.q_gdw376.identifiers import identifier
from protocols.q_gdw376.items import ITEMS, Item
from tests.gateway.field.talk import (
    CONTROLS,
    DEVICE,
    METER,
    READS,
    TRIP,
    asked,
    dangerous_rows,
    file_of,
    forwarded,
    read,
    told,
)
from tests.gateway.transports.waiting import until

runner = CliRunner()
DANGEROUS_FUNCTIONS = [control for control in range(0x80) if control not in READ_FUNCTIONS]
CLASSES = {
    "1CH on a line": ("meter", TRIP),
    "1CH forwarded": ("master", forwarded(TRIP)),
    "1AH forwarded": ("master", forwarded(meter_frame(MeterFrame(METER, 0x1A, bytes(8))))),
    "14H forwarded": ("master", forwarded(meter_frame(MeterFrame(METER, 0x14, bytes(13))))),
    "03H forwarded": ("master", forwarded(meter_frame(MeterFrame(METER, 0x03, bytes(8))))),
    "01 F2": ("master", asked(0x01, identifier(0, 2) + bytes(16))),
    "03 F1": ("master", asked(0x03, identifier(0, 1) + bytes(1))),
    "04 F3": ("master", asked(0x04, identifier(0, 3) + bytes(28 + 16))),
    "04 F10": ("master", asked(0x04, identifier(0, 10) + bytes(2 + 16))),
    "05 F1": ("master", asked(0x05, identifier(1, 1) + bytes(1 + 16))),
    "05 F2": ("master", asked(0x05, identifier(1, 2) + bytes(16))),
    "06 F12": ("master", asked(0x06, identifier(0, 12) + bytes(8 + 16))),
    "0F F1": ("master", asked(0x0F, identifier(0, 1) + bytes(16 + 16))),
    "10 F10": ("master", asked(0x10, identifier(0, 10) + bytes(9 + 16))),
    "0F F1 as a terminal": ("terminal", told(0x0F, identifier(0, 1) + bytes(16))),
    "05 F1 as a terminal": ("terminal", asked(0x05, identifier(1, 1) + bytes(1 + 16))),
}
"""One of each class of danger."""


def row_frame(item: Item) -> bytes:
    pn = 0 if item.pn_kind.startswith("p0") else 1
    return asked(item.afn, identifier(pn, item.fn) + bytes(16))


def word_of(role: str) -> str:
    return {"meter": "to_meter", "master": "to_terminal", "terminal": "from_terminal"}[role]


@asynccontextmanager
async def counting(kind: str) -> AsyncIterator[tuple[str, list[bytes], list[str]]]:
    """A peer that writes down what reaches it: its address, the bytes, and who came."""
    heard: list[bytes] = []
    came: list[str] = []

    async def on_link(link: Link) -> None:
        came.append(link.peer)
        with suppress(LinkClosed):
            while True:
                data, _ = await link.read()
                heard.append(data)

    listener = await (tcp_listener if kind == "tcp" else udp).listen("127.0.0.1", 0, on_link)
    try:
        yield f"{kind}://127.0.0.1:{listener.port}", heard, came
    finally:
        await listener.close()


@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize("name", CLASSES)
async def test_a_file_with_danger_in_it_is_refused_before_anybody_is_called(
    tmp_path: Path, name: str, kind: str
) -> None:
    role, raw = CLASSES[name]
    good = {"meter": read("02010100"), "master": READS[0], "terminal": told(0x02, identifier(0, 1), prm=True)}
    direction = word_of(role)
    file = file_of(tmp_path / "danger.jsonl", Piece(0.0, direction, good[role]), Piece(1.0, direction, raw))
    async with counting(kind) as (place, heard, came):
        words = ["replay", str(file), place, "--fast", "--wait", "50"]
        words += [] if role == "meter" else ["--as", role]
        result = await asyncio.to_thread(runner.invoke, app, words)
        assert (heard, came) == ([], [])
    assert result.exit_code == 1, result.output
    assert "line 2" in result.stderr


async def test_the_counting_peer_counts(tmp_path: Path) -> None:
    file = file_of(tmp_path / "harmless.jsonl", Piece(0.0, "to_terminal", READS[0]))
    async with counting("tcp") as (place, heard, _):
        words = ["replay", str(file), place, "--as", "master", "--fast", "--wait", "50"]
        result = await asyncio.to_thread(runner.invoke, app, words)
        assert b"".join(heard) == READS[0]
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("item", dangerous_rows(), ids=lambda item: f"{item.afn:02X} F{item.fn}")
async def test_every_class_marked_dangerous_is_refused_at_the_door_as_well(item: Item) -> None:
    await refused_at_the_door(row_frame(item), "master")


@pytest.mark.parametrize("control", DANGEROUS_FUNCTIONS, ids=lambda control: f"{control:02X}H")
async def test_every_function_that_does_more_than_read_is_refused_on_a_line_and_forwarded(
    control: int,
) -> None:
    inner = meter_frame(MeterFrame(METER, control, bytes(4)))
    await refused_at_the_door(inner, "meter")
    await refused_at_the_door(forwarded(inner), "master")
    await refused_at_the_door(forwarded(b"\xfe\xfe\xfe\xfe" + inner), "master")


async def refused_at_the_door(raw: bytes, role: Role) -> None:
    piece = Piece(0.0, word_of(role), raw, line=1)
    with pytest.raises(InputError, match="line 1"):
        refuse_danger([piece], role)
    ours, _ = pair()
    with pytest.raises(NotARead):
        await Door(ours, role).say(piece)
    assert ours.writes == []


def test_what_only_asks_may_leave() -> None:
    for raw in READS:
        assert danger(raw, "master") is None, raw.hex()
    for item in ITEMS:
        if item.afn in range(0x09, 0x0F) and item.direction != "down":
            assert danger(asked(item.afn, identifier(0, 1)), "master") is None
    assert danger(asked(0x00, identifier(0, 1), prm=False), "master") is None
    assert danger(told(0x02, identifier(0, 1), prm=True), "terminal") is None
    assert danger(told(0x0C, identifier(0, 2) + bytes(6)), "terminal") is None


TWO_UNITS = asked(0x10, parse(forwarded(read("02010100"))).body[:-16] + identifier(0, 10) + bytes(9 + 16))
TWO_FRAMES = forwarded(read("02010100") + TRIP)
IN_AN_ANSWER = told(0x10, identifier(0, 1) + bytes((31, len(TRIP), 0)) + TRIP)
IN_AN_ITEM = meter_frame(MeterFrame(METER, 0x11, bytes(4) + bytes((byte - 0x33) & 0xFF for byte in TRIP)))
IN_A_READ = asked(0x0C, identifier(0, 2) + row_frame(dangerous_rows()[0]))


@pytest.mark.parametrize(
    ("role", "raw"),
    [
        ("master", TWO_UNITS),
        ("master", TWO_FRAMES),
        ("master", forwarded(b"\x00" + read("02010100"))),
        ("master", forwarded(meter_frame(MeterFrame(METER, 0x9C)))),
        ("master", IN_A_READ),
        ("terminal", IN_AN_ANSWER),
        ("terminal", READS[0]),
        ("meter", IN_AN_ITEM),
        ("meter", READS[0]),
        ("meter", read("02010100") + read("02010100")),
        ("meter", b"\x68\x01"),
        ("master", READS[0] + READS[0]),
        ("master", TRIP),
        ("master", read("02010100")),
        ("master", b"\x68\x01"),
        ("master", asked(0x0D, identifier(0, 161), prm=False)),
        ("master", told(0x0C, identifier(0, 2))),
    ],
)
async def test_nothing_dangerous_hides_in_what_looks_like_a_read(role: Role, raw: bytes) -> None:
    await refused_at_the_door(raw, role)


def unmasked(raw: bytes) -> bytes:
    """Data that look like `raw` on the wire."""
    return bytes((byte - 0x33) & 0xFF for byte in raw)


def test_nothing_dangerous_hides_across_the_border_of_two_reads() -> None:
    """Each of the two is a good read; a meter that misses the first bytes would hear a 1CH."""
    begun = b"\x68" + bytes.fromhex(METER)[::-1] + b"\x68\x1c\x10"
    first = meter_frame(MeterFrame(METER, 0x11, bytes(4) + unmasked(begun)))
    within = begun + first[-2:] + meter_frame(MeterFrame(METER, 0x11, bytes(6)))[:14]
    second = meter_frame(MeterFrame(METER, 0x11, bytes(4) + unmasked(bytes((sum(within) & 0xFF, 0x16)))))
    assert len(within) == 10 + 0x10
    assert (danger(first, "meter"), danger(second, "meter")) == (None, None)
    pieces = [Piece(0.0, "to_meter", raw, 0, line) for line, raw in enumerate((first, second), 1)]
    refuse_danger(pieces[:1], "meter")
    refuse_danger(pieces[1:], "meter")
    with pytest.raises(InputError, match="together hide"):
        refuse_danger(pieces, "meter")


# a simulator of our own


@pytest.mark.parametrize(
    "words",
    [
        "",
        "district --terminals 1",
        "terminal --connect tcp://192.0.2.1:2404",
        "terminal --conn=tcp://192.0.2.1:2404",
        "line --listen serial:///dev/ttyUSB0",
        "line --lis serial:///dev/ttyUSB0",
        "meter --pty",
        "meter --p",
    ],
)
async def test_a_simulator_of_ours_is_on_no_wire_but_ours(words: str) -> None:
    with pytest.raises(InputError, match="--simulator"):
        await own_simulator.start(words.split(), "tcp")


@pytest.mark.parametrize("over", ["tcp", "udp", "pty"])
async def test_only_its_own_living_process_at_the_other_end_is_a_proof(over: own_simulator.Over) -> None:
    trip = Piece(0.0, "to_terminal", CONTROLS[0], line=1)
    mine = await own_simulator.start(shlex.split(DEVICE), over)
    try:
        assert mine.link is not None
        await Door(mine.link, "master", mine).say(trip)
        ours, _ = pair(peer=mine.link.peer)
        with pytest.raises(NotARead):
            await Door(ours, "master", mine).say(trip)
        assert ours.writes == []
        async with counting("tcp") as (place, heard, _):
            stranger = await ways.opening(channels.parse(place))()
            with pytest.raises(NotARead):
                await Door(stranger, "master", mine).say(trip)
            kept, mine.link = mine.link, stranger
            with pytest.raises(NotARead):  # even if it were taken for the simulator's
                await Door(stranger, "master", mine).say(trip)
            mine.link = kept
            assert heard == []
            await stranger.close()
        mine._process.kill()
        await mine._process.wait()
        assert not mine.proves(mine.link)
    finally:
        await mine.close()


async def test_who_dials_in_before_the_simulator_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    strangers: list[Link] = []
    ports: list[int] = []
    real = ways.listen

    async def listen(channel: Channel, on_link: Callable[[Link], Awaitable[None]]) -> Listening:
        made = await real(channel, on_link)
        ports.append(made.port)
        stranger = await udp.connect("127.0.0.1", made.port)
        strangers.append(stranger)
        return made

    monkeypatch.setattr(ways, "listen", listen)
    starting = asyncio.create_task(own_simulator.start(shlex.split(DEVICE), "udp"))
    await until(lambda: bool(strangers))
    await strangers[0].write(b"\x68")
    mine = await starting
    try:
        assert mine.link is not None
        assert mine.proves(mine.link)
        await Door(mine.link, "master", mine).say(Piece(0.0, "to_terminal", CONTROLS[0], line=1))
        assert strangers[0].waiting == 0
    finally:
        await mine.close()
        await strangers[0].close()
