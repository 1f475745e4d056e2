"""What a frame costs: a 645 frame to values beside PyPI `dlt645`, and the 376.1 midnight answer a meter."""

from __future__ import annotations

import statistics
from datetime import date, datetime
from functools import partial

from benchmarks.report import console, machine, seconds_a_call, spread_table
from protocols.dlt645 import frame as frame645
from protocols.dlt645 import items, messages
from protocols.q_gdw376 import frame as frame376
from protocols.q_gdw376 import midnight

ENERGY = bytes.fromhex("68120005112320689108333334338967453309 16".replace(" ", ""))
BLOCK = bytes.fromhex(
    "6812000511232068911833323433896745333333343343333833796737333333353 3DE16".replace(" ", "")
)
"""Worked examples E1 and E4 of the DL/T 645 fact sheet: one register, and a block of five."""

METERS_AN_ANSWER = 24


def our_values(raw: bytes) -> tuple[items.Value, ...]:
    """A whole frame to values, with every check."""
    message = messages.from_frame(frame645.parse(raw))
    if not isinstance(message, messages.ReadReply):
        raise TypeError(message)
    return items.decode(message.di, message.data)


def midnight_answer() -> bytes:
    """An F161 answer as terminals send it: four tariffs, values of six to eight digits."""
    read_at = datetime(2026, 11, 24, 0, 35)
    body = b"".join(
        midnight.encode(
            pn,
            161,
            date(2026, 11, 23),
            read_at,
            tuple(12_345_600 + 7_700 * pn + 100 * one for one in range(5)),
        )
        for pn in range(1, METERS_AN_ANSWER + 1)
    )
    return frame376.build(
        frame376.Frame(
            terminal="02001234", group=False, msa=1, up=True, prm=False, function=8, acd=False, fcv=False,
            afn=0x0D, tpv=False, fir=True, fin=True, con=False, pseq=3, body=body, ec=None, tp=None,
        )
    )  # fmt: skip


def run() -> None:
    """Measure and print; the two decoders take turns in one run."""
    from dlt645.common.transform import bcd_to_float  # the rival is imported only where it is measured
    from dlt645.protocol.protocol import DLT645Protocol

    def their_values(raw: bytes) -> list[float]:
        data = DLT645Protocol.deserialize(raw).data[4:]
        return [bcd_to_float(data[at : at + 4], "XXXXXX.XX", "little") for at in range(0, len(data), 4)]

    machine(["construct", "dlt645"])
    rows: list[tuple[str, list[float], float, str]] = []
    ratios = []
    for name, raw in (("one register", ENERGY), ("block of five", BLOCK)):
        if [float(one.value or "nan") for one in our_values(raw)] != their_values(raw):
            raise AssertionError(f"{name}: the two decoders disagree")
        ours, theirs = seconds_a_call(partial(our_values, raw), partial(their_values, raw))
        rows += [
            (f"645 {name}: Lingdian", ours, 1e6, "µs a frame"),
            (f"645 {name}: dlt645", theirs, 1e6, "µs a frame"),
        ]
        ratios.append((name, statistics.median(ours) / statistics.median(theirs)))
    answer = midnight_answer()
    whole, header = seconds_a_call(
        lambda: midnight.rows(frame376.parse(answer)), lambda: frame376.parse(answer)
    )
    rows += [
        (f"376.1 F161 answer, {METERS_AN_ANSWER} meters: frame with every check", header, 1e6, "µs a frame"),
        ("376.1 F161 answer: frame and registers", whole, 1e6 / METERS_AN_ANSWER, "µs a meter"),
    ]
    spread_table("Decoding", rows)
    for name, ratio in ratios:
        console.print(f"645 {name}: Lingdian takes {ratio:.2f} times what dlt645 takes")
