"""Modems that dial in: known by what they say first, and what they say of themselves kept out of frames."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import ConfigurationError, LinkClosed
from gateway.session.direct_line import BetweenFrames, LineSettings
from gateway.session.dtu import LONGEST_REGISTRATION, DtuLines, DtuProfile, dtu
from gateway.session.line_terminal import LineTerminal
from gateway.session.meter import MeterItem, read_item
from gateway.transports.memory import MemoryLink, pair
from protocols.dlt645 import frame as frame645
from tests.gateway.session.line_stage import PATIENT, FarEnd
from tests.gateway.session.stage import Stage, assets, meter_address, noon_clock, stage, until

BY_NAME = DtuProfile(rb"ID=(?P<line>[a-z0-9-]+)\r\n", heartbeats=(b"ping",))
BY_TEXT = DtuProfile(b"\x02hello(?)\x03", line="market", heartbeats=(b"heart\x68", b"hb"))
ADDRESS = "02001234"
LINES = {
    "yard-7": (ADDRESS, PATIENT),
    "market": ("02001235", LineSettings(swallowed=(b"!!",))),
}


def lines(deadline_s: float = 20.0) -> DtuLines:
    return DtuLines((BY_NAME, BY_TEXT), LINES, noon_clock(), deadline_s=deadline_s)


async def says(*parts: bytes, deadline_s: float = 20.0) -> tuple[LineTerminal | None, MemoryLink, MemoryLink]:
    wire, modem = pair(1)
    made = asyncio.create_task(dtu(wire, lines(deadline_s)))
    for part in parts:
        await modem.write(part)
        await until(lambda: not wire.waiting or made.done())
    return await made, wire, modem


@pytest.mark.parametrize(
    ("parts", "address"),
    [
        ([b"ID=yard-7\r\n"], ADDRESS),
        ([b"ID", b"=yard", b"-7\r", b"\nrest"], ADDRESS),
        ([b"\x02hello(?)\x03"], "02001235"),
    ],
)
async def test_a_modem_is_known_by_what_it_says_first(parts: list[bytes], address: str) -> None:
    terminal, _, _ = await says(*parts)
    assert terminal is not None
    assert terminal.address == address
    await terminal.close()


async def test_a_name_that_may_go_on_is_waited_for() -> None:
    known = DtuLines(
        (DtuProfile(rb"(?P<line>[0-9]+)"),),
        {"12": ("02000012", PATIENT), "123": ("02000123", PATIENT)},
        noon_clock(),
    )
    for said, address in ((b"12", "02000012"), (b"123", "02000123")):
        wire, modem = pair(1)
        for byte in said:
            await modem.write(bytes([byte]))
        terminal = await dtu(wire, known)
        assert terminal is not None
        assert terminal.address == address
        await terminal.close()


@pytest.mark.parametrize(
    "parts", [[b"ID=nobody\r\n"], [b"GET / HTTP/1.1\r\n\r\n"], [b"x" * LONGEST_REGISTRATION], []]
)
async def test_a_stranger_is_closed_in_time(parts: list[bytes]) -> None:
    terminal, wire, _ = await says(*parts, deadline_s=0.2)
    assert terminal is None
    assert wire.ended


async def test_one_that_talks_without_end_is_closed_before_its_time() -> None:
    terminal, wire, _ = await says(*[b"x" * 100] * 6, deadline_s=600.0)
    assert terminal is None
    assert wire.ended


async def test_one_that_hangs_up_is_nobody() -> None:
    wire, modem = pair(1)
    modem.abort()
    assert await dtu(wire, lines()) is None


@pytest.mark.parametrize(
    ("registration", "line"), [(b"", "x"), (b"plain", ""), (rb"(?P<line>.", ""), (rb"(?P<line>.)", "x")]
)
def test_a_wrong_profile_is_named(registration: bytes, line: str) -> None:
    with pytest.raises(ConfigurationError, match="registration"):
        DtuProfile(registration, line)


def meter(data: bytes) -> bytes:
    """Any meter: tells its address for any item."""
    asked = frame645.parse(data.lstrip(b"\xfe"))
    said = asked.data[:4] + bytes.fromhex(asked.address)[::-1]
    return b"\xfe" + frame645.build(frame645.Frame(asked.address, 0x91, said))


async def dialled_in(made: Stage, known: DtuLines) -> tuple[LineTerminal, FarEnd]:
    wire, modem = pair(1)
    await modem.write(b"ID=yard-7\r\nping")
    terminal = await dtu(wire, known)
    assert terminal is not None
    before = made.registry.session(ADDRESS)
    made.tasks.append(asyncio.create_task(made.registry.accept(terminal)))
    await until(lambda: made.registry.session(ADDRESS) not in (None, before), 20.0)
    return terminal, FarEnd(modem, meter)


async def test_a_line_works_with_heartbeats_all_around_and_may_dial_in_anew() -> None:
    """The older link ends, so that nobody takes the two for two devices of one address."""
    known = lines()
    async with stage(assets()) as made:
        older, far = await dialled_in(made, known)
        for noise in (b"ping", b"pingpingID=yard-7\r\n"):
            far.noise = noise
            item = await read_item(made.session(), meter_address(1), "04000402", 1)
            assert isinstance(item, MeterItem), item
        assert not older.counts
        newer, again = await dialled_in(made, known)
        assert older.closed.is_set()
        assert not made.registry.contested(ADDRESS)
        assert made.count("takeovers_total") == 0
        item = await read_item(made.session(), meter_address(1), "04000402", 1)
        assert isinstance(item, MeterItem), item
        with pytest.raises(LinkClosed):
            await older.write(b"")
        for one in (far, again):
            await one.stop()
        await newer.close()


async def test_an_older_link_that_does_not_end_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.session.dtu.OLDER_ENDS_S", 0.05)
    known = lines()
    made = []
    for _ in range(2):
        wire, modem = pair(1)
        await modem.write(b"ID=yard-7\r\n.")
        terminal = await dtu(wire, known)
        assert terminal is not None
        made.append((terminal, wire))
    assert [wire.ended for _, wire in made] == [True, False]
    for terminal, _ in made:
        await terminal.close()


FRAMES = st.builds(
    lambda address, data: frame645.build(frame645.Frame(f"{address:012d}", 0x91, data)),
    st.integers(0, 10**12 - 1),
    st.binary(max_size=40) | st.sampled_from([b"", bytes((byte - 0x33) & 0xFF for byte in b"pinghbh")]),
)
TEXTS = (b"ping", b"heart\x68", b"hb", b"h")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(FRAMES, st.sampled_from(TEXTS[:3]), st.just(b"\xfe\xfe")), max_size=12),
    st.randoms(use_true_random=False),
)
def test_texts_are_taken_out_between_frames_and_never_out_of_one(
    parts: list[bytes], chance: random.Random
) -> None:
    between = BetweenFrames(TEXTS[:3])
    data = b"".join(parts)
    passed = b""
    while data:
        size = chance.randint(1, len(data))
        passed += between.passed(data[:size])
        data = data[size:]
    passed += between.rest()
    assert passed == b"".join(part for part in parts if part not in TEXTS)
    assert between.held == 0


def test_without_texts_all_is_passed() -> None:
    assert BetweenFrames(()).passed(b"ping") == b"ping"
    assert BetweenFrames((b"",)).passed(b"ping") == b"ping"
