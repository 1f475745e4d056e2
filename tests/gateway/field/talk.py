"""Frames of a terminal's conversation, dangerous ones among them, and a master that says what it is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

from gateway.errors import LinkClosed
from gateway.field.conversation import Cutter, Piece
from gateway.transports.link import Link
from protocols.dlt645.frame import Frame as MeterFrame
from protocols.dlt645.frame import build as meter_frame
from protocols.q_gdw376 import messages
from protocols.q_gdw376.frame import Frame, build, parse
from protocols.q_gdw376.identifiers import identifier
from protocols.q_gdw376.items import ITEMS, Item

TERMINAL = "02001001"
METER = "310000000002"
"""behind its carrier module (port 31), of seed 7 with four meters"""
STANDS = "--seed=7 --day=2026-11-23 --clock-start=2026-11-24T12:00:00+08:00 --clock-stands"
DEVICE = f"terminal --meters=4 {STANDS}"
LINE = f"line --meters=3 --meters-1997=1 {STANDS}"
LINE_METER = "310000000002"
DAY = date(2026, 11, 23)

TRIP = meter_frame(MeterFrame(METER, 0x1C, bytes.fromhex("02563412 00000010 1a00003012241126")))
"""1CH, trip, by password level 02, valid until 26-11-24 12:30"""


def asked(afn: int, body: bytes, pseq: int = 0, *, prm: bool = True) -> bytes:
    """A frame to the terminal."""
    return build(
        Frame(terminal=TERMINAL, up=False, prm=prm, function=11 if prm else 0, afn=afn, body=body, pseq=pseq)
    )


def forwarded(content: bytes, pseq: int = 0) -> bytes:
    return asked(0x10, messages.forward(31, content, 5.0, 100).body, pseq)


def read(di: str, meter: str = METER) -> bytes:
    """11H of 2007."""
    return meter_frame(MeterFrame(meter, 0x11, bytes.fromhex(di)[::-1]))


def told(afn: int, body: bytes, *, prm: bool = False) -> bytes:
    """A frame of the terminal."""
    return build(Frame(terminal=TERMINAL, up=True, prm=prm, function=8, afn=afn, body=body))


READS: Sequence[bytes] = (
    asked(0x0C, messages.read_clock().body, 1),
    asked(0x09, messages.read_version().body, 2),
    asked(0x0A, messages.read_archive((1, 2, 3, 4)).body, 3),
    asked(0x0D, messages.read_frozen(161, (1, 2, 3, 4), DAY).body, 4),
    asked(0x0C, messages.read_present(129, (2,)).body, 5),
    forwarded(b"\xfe\xfe" + read("00010000"), 6),
    forwarded(read("04000102"), 7),
)
"""What only asks; the meter's clock (04000102) and the terminal's are among it."""

CONTROLS: Sequence[bytes] = (
    forwarded(TRIP, 8),
    asked(0x05, identifier(0, 52) + bytes(16), 9),
    asked(0x01, identifier(0, 2) + bytes(16), 10),
    forwarded(read("04000503"), 11),
)
"""A trip of a meter through the terminal, two deeds that our terminal denies, and the relay's status word."""


def dangerous_rows() -> list[Item]:
    """Every class whose way down is marked dangerous."""
    return [item for item in ITEMS if item.danger and item.direction != "up"]


async def master(link: Link, script: Sequence[bytes], done: Callable[[], None]) -> None:
    """Confirm what the terminal says of its own accord, and ask one thing after another."""
    cutter, waiting = Cutter(), list(script)
    try:
        while True:
            data, settle = await link.read()
            await settle()
            for cut in cutter.take(data):
                frame = parse(cut.raw)
                if frame.prm:
                    confirm = asked(0x00, identifier(0, 1), frame.pseq, prm=False)
                    await link.write(confirm)
                if waiting:
                    await link.write(waiting.pop(0))
                elif not frame.prm:
                    done()
    except LinkClosed:
        return


def file_of(path: Path, *pieces: Piece) -> Path:
    path.write_text("".join(piece.as_json() + "\n" for piece in pieces), encoding="utf-8")
    return path
