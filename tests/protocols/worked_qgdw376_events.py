"""Event records (AFN0E): a body of every ERC in every shape of it, worked by hand."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

D = Decimal

AT = "0508241126"
WHEN = datetime(2026, 11, 24, 8, 5)
# D15 and p300 (12CH); p300 alone.
BEGAN, OVER = "2c81", "2c01"
STARTED, ENDED, POINT = {"number": 300, "start": 1}, {"number": 300, "start": 0}, {"number": 300}
VOLTS = "00221922eeee"
U = {"ua": D("220.0"), "ub": D("221.9"), "uc": None}
AMPERES = "005000501180eeeeee"
I = {"ia": D("5.000"), "ib": D("-1.150"), "ic": None}  # noqa: E741 - the standard's letter
A14, KWH = "0056341200", D("1234.5600")
A11, KVARH = "50341200", D("1234.50")
CLOCK = "300508245126"
CLOCKED = datetime(2026, 11, 24, 8, 5, 30)
LATER, LATER_AT = "450508245126", datetime(2026, 11, 24, 8, 5, 45)
COVER = {"count": 123456, "opened_at": CLOCKED, "closed_at": LATER_AT, "energies": [KVARH] * 12}
COVER_BODY = AT + OVER + "563412" + CLOCK + LATER + A11 * 12
SEVEN = [0x0102, 0x0203, 0x0304, 0x0405, 0x0506, 0x0607, 0x0708]
SEVEN_WORDS = "0201030204030504060507060807"
PURCHASE = "554523010000100000000500004523011002000040"
PURCHASED = {
    "order": 0x11223344,
    "mode": 0x55,
    "bought": D(12345),
    "alarm": D(1000),
    "trip": D(500),
    "before": D(-12345),
    "after": D("2E+3"),
}
PW = "000102030405060708090a0b0c0d0e0f"

BODIES: list[tuple[int, str, dict[str, Any]]] = [
    (
        1,
        AT + "02" + "56322e31" + "56322e32",
        {
            "at": WHEN,
            "flags": {"initialised": 0, "version_changed": 1},
            "version_before": "V2.1",
            "version_after": "V2.2",
        },
    ),
    (2, AT + "03", {"at": WHEN, "flags": {"terminal": 1, "points": 1}}),
    # p0 F1, p9 F25.
    (
        3,
        AT + "05" + "00000100" + "01020103",
        {"at": WHEN, "msa": 5, "changed": [((0, 1),), ((9, 25),)]},
    ),
    (4, AT + "0281", {"at": WHEN, "changed": 2, "state": 0x81}),
    (5, AT + "01" + "25a1" + "2591", {"at": WHEN, "rounds": 1, "power": D("12.5"), "power_after": D(-125)}),
    (
        6,
        AT + "03" + "02" + "04" + "2581" + "25a1" + "2591",
        {
            "at": WHEN,
            "group": 3,
            "rounds": 2,
            "kind": {"slot": 0, "factory_rest": 0, "suspension": 1, "floating": 0},
            "power": D(125),
            "power_after": D("12.5"),
            "limit": D(-125),
        },
    ),
    (
        7,
        AT + "03" + "02" + "01" + "45230100" + "02000040",
        {"at": WHEN, "group": 3, "rounds": 2, "kind": 1, "energy": D(12345), "limit": D("2E+3")},
    ),
    (8, AT + OVER + "21", {"at": WHEN, "point": POINT, "flags": 0x21}),
    (
        9,
        AT + BEGAN + "41" + VOLTS + AMPERES + A14,
        {"at": WHEN, "point": STARTED, "flags": 0x41, **U, **I, "active": KWH},
    ),
    (
        10,
        AT + OVER + "82" + VOLTS + AMPERES + A14,
        {"at": WHEN, "point": ENDED, "flags": 0x82, **U, **I, "active": KWH},
    ),
    (
        11,
        AT + BEGAN + "0000001200242581eeee9909" + A14,
        {
            "at": WHEN,
            "point": STARTED,
            "ua": D(0),
            "ub": D("120.0"),
            "uc": D("240.0"),
            "ia": D("-12.5"),
            "ib": None,
            "ic": D("99.9"),
            "active": KWH,
        },
    ),
    (12, AT + BEGAN, {"at": WHEN, "point": STARTED}),
    (
        13,
        AT + OVER + "0a",
        {
            "at": WHEN,
            "point": ENDED,
            "flags": {"programmed": 0, "phase_failures": 1, "voltage_losses": 0, "other_bits": 8},
        },
    ),
    (14, AT + "3009241126", {"off": WHEN, "on": datetime(2026, 11, 24, 9, 30)}),
    (14, "03" + AT + "eeeeeeeeee", {"flags": {"normal": 1, "valid": 1}, "off": WHEN, "on": None}),
    (14, "eeeeeeeeee" + AT + AMPERES, {"off": None, "on": WHEN, "currents": [*I.values()]}),
    (
        15,
        AT + BEGAN + "81" + "050000" + "2581" * 19,
        {"at": WHEN, "point": STARTED, "flags": 0x81, "orders": 5, "values": [b"\x25\x81"] * 19},
    ),
    (
        16,
        AT + "82" + "01" + "25a1",
        {"at": WHEN, "port": {"number": 2, "start": 1}, "flags": 1, "value": D("12.5")},
    ),
    (
        17,
        AT + OVER + "02" + "5601" + "9909" + VOLTS + AMPERES,
        {"at": WHEN, "point": ENDED, "flags": 2, "voltage": D("15.6"), "current": D("99.9"), **U, **I},
    ),
    (
        18,
        AT + BEGAN + "02" + "0301" + "9909" + "3412" + "0022",
        {
            "at": WHEN,
            "point": STARTED,
            "flags": {"overvoltage": 0, "device": 1, "circuit": 0},
            "capacitors": 0x0103,
            "power_factor": D("99.9"),
            "reactive": b"\x34\x12",
            "voltage": D("220.0"),
        },
    ),
    (19, AT + "03" + "44332211" + PURCHASE, {"at": WHEN, "group": 3, **PURCHASED}),
    (19, AT + "44332211" + PURCHASE, {"at": WHEN, **PURCHASED}),
    (20, AT + PW + "0a", {"at": WHEN, "pw": bytes(range(16)), "msa": 10}),
    (20, AT + "3412" + "0a", {"at": WHEN, "pw": b"\x34\x12", "msa": 10}),
    (21, AT + "04", {"at": WHEN, "code": 4}),
    (
        22,
        AT + "83" + "45230100" + "00100000" + "0f" + "45230110" + "02" + A14 * 2 + "01" + A14,
        {
            "at": WHEN,
            "group": {"number": 3, "start": 1},
            "compared": D(12345),
            "reference": D(1000),
            "relative": 15,
            "absolute": D(-12345),
            "n": 2,
            "compared_points": [KWH, KWH],
            "m": 1,
            "reference_points": [KWH],
        },
    ),
    (
        23,
        AT + "03" + "02" + "01" + "45230100" + "02000040",
        {"at": WHEN, "group": 3, "rounds": 2, "kind": 1, "energy": D(12345), "limit": D("2E+3")},
    ),
    (
        24,
        AT + BEGAN + "45" + VOLTS,
        {"at": WHEN, "point": STARTED, "flags": {"a": 1, "b": 0, "c": 1, "kind": 1}, **U},
    ),
    (
        25,
        AT + OVER + "82" + AMPERES,
        {"at": WHEN, "point": ENDED, "flags": {"a": 0, "b": 1, "c": 0, "kind": 2}, **I},
    ),
    (
        26,
        AT + BEGAN + "40" + "563412" + "000010",
        {
            "at": WHEN,
            "point": STARTED,
            "flags": {"kind": 1},
            "power": D("12.3456"),
            "limit": D(10),
        },
    ),
    (
        27,
        AT + OVER + A14 + "eeeeeeeeee",
        {"at": WHEN, "point": POINT, "before": KWH, "after": None},
    ),
    *(
        (
            erc,
            AT + BEGAN + A14 + "0000351200" + "05",
            {"at": WHEN, "point": STARTED, "before": KWH, "after": D("1235"), "threshold": 5},
        )
        for erc in (28, 29)
    ),
    (30, AT + BEGAN + A14 + "08", {"at": WHEN, "point": STARTED, "active": KWH, "threshold": 8}),
    (
        31,
        AT + BEGAN + "0000241126" + A14 + A11,
        {
            "at": WHEN,
            "point": STARTED,
            "read_at": datetime(2026, 11, 24),
            "active": KWH,
            "reactive": KVARH,
        },
    ),
    (31, AT + OVER + A14 + A11, {"at": WHEN, "point": ENDED, "active": KWH, "reactive": KVARH}),
    (32, AT + "00001000" + "ffff0f00", {"at": WHEN, "month": 0x100000, "limit": 0x0FFFFF}),
    (33, AT + OVER + SEVEN_WORDS * 2, {"at": WHEN, "point": POINT, "changes": SEVEN, "words": SEVEN}),
    (34, AT + BEGAN + "01", {"at": WHEN, "point": STARTED, "flags": 1}),
    (
        35,
        AT + "1f" + "02" + "12907856341223" + "01" + "21436587092180" + "00",
        {
            "at": WHEN,
            "port": 31,
            "n": 2,
            "meters": [
                {
                    "address": "123456789012",
                    "signal": {"quality": 3, "a": 1, "b": 0, "c": 0},
                    "protocol": {"code": 1},
                },
                {
                    "address": "210987654321",
                    "signal": {"quality": 0, "a": 0, "b": 0, "c": 1},
                    "protocol": {"code": 0},
                },
            ],
        },
    ),
    (36, AT + "02" + "03", {"at": WHEN, "changed": 2, "state": 3}),
    (36, AT + "02000000" + "03000001", {"at": WHEN, "changed": 2, "state": 0x01000003}),
    *((erc, COVER_BODY, {"at": WHEN, "point": POINT, **COVER}) for erc in (37, 38, 42)),
    (
        39,
        AT + OVER + "eeeeeeeeee" + "eeeeeeeeee" + "eeeeeeee",
        {"at": WHEN, "point": ENDED, "read_at": None, "active": None, "reactive": None},
    ),
    (
        40,
        AT + BEGAN + "02" + "129078563412" + "02",
        {"at": WHEN, "point": STARTED, "kind": 2, "address": "123456789012", "field": 2},
    ),
    (41, OVER + CLOCK + LATER, {"point": POINT, "before": CLOCKED, "after": LATER_AT}),
]
