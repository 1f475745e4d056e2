"""Seventeen worked frames, taken apart in full. Public ones are quoted from open material, made ones ours."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime

import pytest

from protocols.q_gdw376 import values
from protocols.q_gdw376.frame import Frame, build, parse
from protocols.q_gdw376.messages import Fields, decode, read


@dataclass(frozen=True)
class Example:
    """A frame, where it is from, and what it says."""

    number: int
    origin: str
    frame: str
    envelope: dict[str, object]
    units: list[tuple[int, int, object]]
    password: str = ""
    raw_units: dict[int, str] = field(default_factory=dict)


def _inner(text: str) -> bytes:
    return bytes.fromhex(text)


EXAMPLES = [
    Example(
        1,
        "public: comment in an open-source head-end",
        "68 32 00 32 00 68 C9 14 03 32 63 00 02 73 00 00 01 00 EB 16",
        {"terminal": "03146332", "up": True, "prm": True, "function": 9, "afn": 2, "con": True, "pseq": 3},
        [(0, 1, None)],
    ),
    Example(
        2,
        "public: same source",
        "68 32 00 32 00 68 C9 00 10 01 00 00 02 70 00 00 01 00 4D 16",
        {"terminal": "10000001", "up": True, "prm": True, "function": 9, "afn": 2, "con": True, "pseq": 0},
        [(0, 1, None)],
    ),
    Example(
        3,
        "public: README of a Go library",
        "68 4A 00 4A 00 68 CB 02 01 04 03 14 00 E0 00 00 01 00 00 25 12 16 28 00 3F 16",
        {
            "terminal": "01020304",
            "up": True,
            "prm": True,
            "function": 11,
            "msa": 10,
            "afn": 0,
            "tpv": True,
            "tp": bytes.fromhex("002512162800"),
        },
        [(0, 1, None)],
    ),
    Example(
        4,
        "public: shared document with field log (130-2005)",
        "68 51 00 51 00 68 4A 05 35 06 08 76 05 70 00 00 40 03 02 40 14 22 49 09 4C 4B 21 16",
        {
            "terminal": "35050806",
            "up": False,
            "prm": True,
            "function": 10,
            "msa": 59,
            "afn": 5,
            "con": True,
            "protocol_id": 1,
        },
        [(0, 31, values.Clock(datetime(2009, 9, 22, 14, 40, 2), 2))],
        password="4c4b",
    ),
    Example(
        5,
        "public: same document",
        "68 39 00 39 00 68 A8 05 35 06 08 00 00 60 00 00 01 00 84 3C 11 16",
        {
            "terminal": "35050806",
            "up": True,
            "prm": False,
            "acd": True,
            "function": 8,
            "afn": 0,
            "ec": (132, 60),
            "protocol_id": 1,
        },
        [(0, 1, None)],
    ),
    Example(
        6,
        "public: test frame of an open-source iOS parser",
        "68 56 00 56 00 68 A8 25 25 01 00 04 0D 60 00 00 01 06 03 07 12 95 05 25 00 12 00 58 16",
        {
            "terminal": "25250001",
            "up": True,
            "prm": False,
            "function": 8,
            "acd": True,
            "afn": 13,
            "ec": (18, 0),
        },
        [(0, 49, {"td_d": date(2012, 7, 3), "minutes": 1429, "resets": 37})],
        raw_units={0: "03071295052500"},
    ),
    Example(
        7,
        "public: same source",
        "68 76 00 76 00 68 88 00 25 01 00 04 0D 64 00 00 04 06 01 14 CB 00 03 00 00 00 01 06 15 01 14 33 00"
        "01 00 75 16",
        {"terminal": "25000001", "up": True, "prm": False, "function": 8, "afn": 13, "ec": None, "pseq": 4},
        [
            (0, 51, {"td_m": "2014-01", "minutes": 203, "resets": 3}),
            (0, 49, {"td_d": date(2014, 1, 15), "minutes": 51, "resets": 1}),
        ],
        raw_units={0: "0114cb000300", 1: "15011433000100"},
    ),
    Example(
        8,
        "made; shape from the open-source head-end",
        "68 4A 00 4A 00 68 0B 14 03 32 63 00 00 63 00 00 04 00 02 00 00 01 00 00 21 16",
        {"terminal": "03146332", "up": False, "prm": False, "function": 11, "afn": 0, "pseq": 3},
        [(0, 3, values.UnitConfirm(2, ((0, 1, 0),)))],
    ),
    Example(
        9,
        "made",
        "68 4A 00 4A 00 68 C9 14 03 32 63 00 02 74 00 00 04 00 30 15 08 24 51 26 D7 16",
        {"terminal": "03146332", "up": True, "prm": True, "function": 9, "afn": 2, "con": True, "pseq": 4},
        [(0, 3, values.Clock(datetime(2026, 11, 24, 8, 15, 30), 2))],
    ),
    Example(
        10,
        "made",
        "68 A2 00 A2 00 68 4A 14 03 32 63 02 05 F5 00 00 40 03 30 15 08 24 51 26 00 00 00 00 00 00 00 00 00"
        "00 00 00 00 00 00 00 05 30 15 08 24 05 98 16",
        {
            "up": False,
            "prm": True,
            "function": 10,
            "msa": 1,
            "afn": 5,
            "con": True,
            "pseq": 5,
            "tp": bytes.fromhex("053015082405"),
        },
        [(0, 31, values.Clock(datetime(2026, 11, 24, 8, 15, 30), 2))],
        password="00" * 16,
    ),
    Example(
        11,
        "made",
        "68 E6 00 E6 00 68 4A 14 03 32 63 02 04 71 00 00 02 01 01 00 01 00 01 00 62 1E 12 90 78 56 34 12 00"
        "00 00 00 00 00 04 09 00 00 00 00 00 00 10 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 C6 16",
        {"up": False, "prm": True, "function": 10, "msa": 1, "afn": 4, "con": True, "pseq": 1},
        [
            (
                0,
                10,
                values.Archive(
                    (
                        values.ArchiveRecord(
                            sequence=1,
                            pn=1,
                            port=2,
                            baud=2400,
                            protocol=30,
                            address="123456789012",
                            tariffs=4,
                            user_class=0x10,
                        ),
                    )
                ),
            )
        ],
        password="00" * 16,
    ),
    Example(
        12,
        "made",
        "68 3E 00 3E 00 68 4B 14 03 32 63 02 0D 62 01 01 01 14 23 11 26 D9 16",
        {"up": False, "prm": True, "function": 11, "msa": 1, "afn": 13, "pseq": 2},
        [(1, 161, values.DayTag(date(2026, 11, 23)))],
    ),
    Example(
        13,
        "made",
        "68 BA 00 BA 00 68 88 14 03 32 63 02 0D 62 01 01 01 14 23 11 26 05 00 24 11 26 04 00 56 34 12 00 00"
        "00 00 03 00 00 50 00 04 00 00 06 00 05 00 EE EE EE EE EE 1E 16",
        {"up": True, "prm": False, "function": 8, "msa": 1, "afn": 13, "pseq": 2},
        [
            (
                1,
                161,
                values.FrozenEnergy(
                    date(2026, 11, 23),
                    datetime(2026, 11, 24, 0, 5),
                    (12_345_600, 3_000_000, 4_005_000, 5_000_600, None),
                ),
            )
        ],
    ),
    Example(
        14,
        "made",
        "68 32 00 32 00 68 4B 14 03 32 63 02 0C 66 01 02 01 10 7F 16",
        {"up": False, "prm": True, "function": 11, "msa": 1, "afn": 12, "pseq": 6},
        [(9, 129, None)],
    ),
    Example(
        15,
        "made; header bytes of the open-source head-end",
        "68 FA 00 FA 00 68 4B 14 03 32 63 02 10 61 00 00 01 00 02 6B 64 64 1C 00 68 12 90 78 56 34 12 68 1C"
        "10 35 33 33 33 44 44 44 44 4D 33 8C 8C 56 64 45 59 80 16 00 00 00 00 00 00 00 00 00 00 00 00 00 00"
        "00 00 D2 16",
        {"up": False, "prm": True, "function": 11, "msa": 1, "afn": 16, "pseq": 1},
        [
            (
                0,
                1,
                values.Forward(
                    2,
                    0x6B,
                    0x64,
                    0x64,
                    _inner("68129078563412681C1035333333444444444D338C8C566445598016"),
                ),
            )
        ],
        password="00" * 16,
    ),
    Example(
        16,
        "made",
        "68 6E 00 6E 00 68 88 14 03 32 63 02 10 61 00 00 01 00 02 0C 00 68 12 90 78 56 34 12 68 9C 00 22 16"
        "10 16",
        {"up": True, "prm": False, "function": 8, "msa": 1, "afn": 16, "pseq": 1},
        [(0, 1, values.Forwarded(2, _inner("68129078563412689C002216")))],
    ),
    Example(
        17,
        "made",
        "68 CA 00 CA 00 68 4B 14 03 32 63 02 10 62 00 00 01 00 02 6B 64 64 10 00 68 12 90 78 56 34 12 68 11"
        "04 36 38 33 37 73 16 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 AD 16",
        {"up": False, "prm": True, "function": 11, "msa": 1, "afn": 16, "pseq": 2},
        [(0, 1, values.Forward(2, 0x6B, 0x64, 0x64, _inner("68129078563412681104363833377316")))],
        password="00" * 16,
    ),
]


@pytest.mark.parametrize(
    "example", EXAMPLES, ids=lambda one: f"{one.number}-{one.origin.split(':')[0].split(';')[0]}"
)
def test_a_worked_example_says_what_its_note_says(example: Example) -> None:
    raw = bytes.fromhex(example.frame)
    frame = parse(raw)
    for name, value in example.envelope.items():
        assert getattr(frame, name) == value, name
    content = read(frame)
    said = [unit.value.plain() if isinstance(unit.value, Fields) else unit.value for unit in content.units]
    assert [
        (unit.pn, unit.fn, value) for unit, value in zip(content.units, said, strict=True)
    ] == example.units
    assert content.password.hex() == example.password
    for place, data in example.raw_units.items():
        assert content.units[place].raw.hex() == data
    assert all(unit.reason is None for unit in content.units if unit.value is not None)
    assert build(frame) == raw


def test_the_examples_without_a_terminal_in_their_note_are_of_one_terminal() -> None:
    made = [parse(bytes.fromhex(example.frame)) for example in EXAMPLES if example.number >= 8]
    assert {frame.terminal for frame in made} == {"03146332"}


def test_units_without_a_type_of_their_own_tell_names_places_and_bytes() -> None:
    _, second = decode(parse(bytes.fromhex(EXAMPLES[6].frame)))
    assert isinstance(second.value, Fields)
    assert [(field.name, field.name_zh, field.offset, field.raw.hex()) for field in second.value] == [
        ("td_d", "日数据时标", 14, "150114"),
        ("minutes", "供电时间", 17, "3300"),
        ("resets", "复位累计次数", 19, "0100"),
    ]


def test_every_frame_here_has_its_own_fields() -> None:
    """A frame is a value: equal when all it says is equal."""
    frames = {parse(bytes.fromhex(example.frame)) for example in EXAMPLES}
    assert len(frames) == len(EXAMPLES)
    assert all(isinstance(frame, Frame) for frame in frames)
