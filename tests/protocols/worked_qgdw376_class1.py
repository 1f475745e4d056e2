"""Class 1 (AFN0C): a body of every row, worked by hand."""

from __future__ import annotations

from decimal import Decimal

from tests.protocols.worked_qgdw376 import (
    A1,
    A1_LATER,
    A2,
    A2_IS,
    A3,
    A3_IS,
    A3_MINUS,
    A3_MINUS_IS,
    A5,
    A5_IS,
    A5_MINUS,
    A5_MINUS_IS,
    A6,
    A6_IS,
    A7,
    A7_IS,
    A9,
    A9_IS,
    A9_MINUS,
    A9_MINUS_IS,
    A11,
    A11_IS,
    A12,
    A12_IS,
    A13,
    A13_IS,
    A14,
    A14_IS,
    A14_ONE,
    A25,
    A25_IS,
    A25_MINUS,
    A25_MINUS_IS,
    ACTIVE_REACTIVE,
    BOUGHT,
    BOUGHT_IS,
    CAPACITORS,
    CAPACITORS_IS,
    CLOCK,
    CLOCK_LATER,
    LOSS,
    LOSS_IS,
    NO_3,
    NO_4,
    NO_5,
    ON_OFF_2009,
    ON_OFF_2009_IS,
    ON_OFF_2013,
    ON_OFF_2013_IS,
    READ,
    READ_AT,
    READ_IS,
    SCHEDULE_2009,
    SCHEDULE_2009_IS,
    SCHEDULE_2013,
    SCHEDULE_2013_IS,
    SETTLED,
    SETTLED_IS,
    SWITCH_2009,
    SWITCH_2009_IS,
    SWITCH_2013,
    SWITCH_2013_IS,
    Cases,
    D,
    all_four,
    demand_set,
    demands,
    energies,
    per_phase,
    phase_failures,
    registers,
)

CASES = Cases()
case = CASES.case

case(0x0C, 2, A1, {"clock": CLOCK})
case(0x0C, 3, "05" + "00" * 29 + "80", {"mask": 5 | 0x80 << 240})
case(0x0C, 4, "06", {"state": {"reporting": 2, "talk": 1}})
case(
    0x0C,
    5,
    "0181" + "020304050607" + "08090a0b0c0d",
    {
        "keep_power": 1,
        "groups": 0x81,
        "settings": [
            {"scheme": 2, "slots": 3, "power": 4, "energy": 5, "power_rounds": 6, "energy_rounds": 7},
            {"scheme": 8, "slots": 9, "power": 10, "energy": 11, "power_rounds": 12, "energy_rounds": 13},
        ],
    },
)
case(
    0x0C,
    6,
    "010204" + A2 + "85" + "0102030405",
    {
        "trip": 1,
        "remind": 2,
        "groups": 4,
        "states": [{"limit": A2_IS, "factor": D(-5), "states": [1, 2, 3, 4, 5]}],
    },
)
case(0x0C, 7, "07fe", {"ec1": 7, "ec2": 254})
case(0x0C, 8, "0020" + "00" * 6, {"mask": 1 << 13})
case(0x0C, 9, "0281", {"state": 2, "changed": 0x81})
case(0x0C, 10, "0001000078563412", {"day": 256, "month": 0x12345678})
case(
    0x0C,
    11,
    "01" + "1f2c01032a0105" + A1 + A1_LATER,
    {
        "n": 1,
        "ports": [
            {
                "port": 31,
                "total": 300,
                "flags": 3,
                "read": 298,
                "key_read": 5,
                "started_at": CLOCK,
                "ended_at": CLOCK_LATER,
            }
        ],
    },
)
case(0x0C, (17, 18, 24, 73), A2, {"value": A2_IS})
case(0x0C, range(19, 23), *registers(A3, A3_IS, NO_4))
case(0x0C, 23, A3_MINUS, {"value": A3_MINUS_IS})
case(
    0x0C,
    25,
    READ
    + A9
    + A9_MINUS
    + NO_3
    + A9
    + A9_MINUS * 4
    + A5
    + A5_MINUS
    + A5 * 2
    + A7 * 2
    + "eeee"
    # Ia, Ib, Ic, I0, then S.
    + A25
    + A25_MINUS
    + NO_3
    + A25
    + A9 * 3
    + NO_3,
    {
        "read_at": READ_AT,
        "p_total": A9_IS,
        "p_a": A9_MINUS_IS,
        "p_b": None,
        "p_c": A9_IS,
        **{f"q_{name}": A9_MINUS_IS for name in ("total", "a", "b", "c")},
        "pf_total": A5_IS,
        "pf_a": A5_MINUS_IS,
        "pf_b": A5_IS,
        "pf_c": A5_IS,
        "u_a": A7_IS,
        "u_b": A7_IS,
        "u_c": None,
        "i_a": A25_IS,
        "i_b": A25_MINUS_IS,
        "i_c": None,
        "i_0": A25_IS,
        "s_total": A9_IS,
        "s_a": A9_IS,
        "s_b": A9_IS,
        "s_c": None,
    },
)
case(0x0C, 26, *phase_failures())
case(
    0x0C,
    27,
    READ + A1 + "78563412" + ("563412" + A1) * 4 + "030000" + A1_LATER,
    {
        "read_at": READ_AT,
        "clock": CLOCK,
        "battery": 12345678,
        "operations": [{"count": 123456, "at": CLOCK}] * 4 + [{"count": 3, "at": CLOCK_LATER}],
    },
)
case(
    0x0C,
    28,
    READ + "0100020010000000000000000080" + "0002" * 7,
    {"read_at": READ_AT, "changes": [1, 2, 16, 0, 0, 0, 0x8000], "words": [0x200] * 7},
)
case(0x0C, (29, 30), READ + LOSS, READ_IS | LOSS_IS)
case(0x0C, (31, 32), *per_phase(ACTIVE_REACTIVE, (A14, A11, A14_ONE, NO_4)))
case(0x0C, (33, 37), *all_four("q1", "q4"))
case(0x0C, (34, 38), *all_four("q2", "q3"))
case(0x0C, (35, 36, 39, 40), *demand_set())
case(0x0C, range(41, 49), *registers(A13, A13_IS, NO_4))
case(
    0x0C,
    49,
    "000000120024" + A5_MINUS + "eeee" + A5,
    {"ua": D(0), "ub": D(120), "uc": D(240), "ia": A5_MINUS_IS, "ib": None, "ic": A5_IS},
)
case(
    0x0C,
    57,
    "03" + (A7 + "eeee" + A6 + "eeee") * 3,
    {"n": 3, "phases": [{"voltages": [A7_IS, None], "currents": [A6_IS, None]}] * 3},
)
case(0x0C, 58, "02" + A5 + A5_MINUS, {"n": 2, "ratios": [A5_IS, A5_MINUS_IS]})
case(0x0C, 65, "020301", {"mode": 2, "mask": 0x0103})
case(0x0C, 66, CAPACITORS, CAPACITORS_IS)
case(0x0C, 67, A13 + NO_4, {"day": A13_IS, "month": None})

HOURLY: list[tuple[tuple[int, ...], str, Decimal]] = [
    ((81, 82, 121), A2, A2_IS),
    ((83, 84), A3_MINUS, A3_MINUS_IS),
    (tuple(range(89, 97)), A9_MINUS, A9_MINUS_IS),
    ((97, 98, 99), A7, A7_IS),
    ((100, 101, 102, 103), A25_MINUS, A25_MINUS_IS),
    ((105, 106, 107, 108), A13, A13_IS),
    ((109, 110, 111, 112), A11, A11_IS),
    ((113, 114, 115, 116), A5_MINUS, A5_MINUS_IS),
]
for _fns, _one, _is in HOURLY:
    _none = "ee" * (len(_one) // 2)
    # Half hours of 23 o'clock.
    case(0x0C, _fns, "2302" + _one + _none, {"hour": "23", "density": 2, "values": [_is, None]})

case(0x0C, (129, 131, 137, 139, *range(153, 161)), *energies(A14, A14_IS, NO_5))
case(0x0C, (130, *range(132, 137), 138, *range(140, 145)), *energies(A11, A11_IS, NO_4))
case(0x0C, range(145, 153), *demands())
case(0x0C, 161, ON_OFF_2009, ON_OFF_2009_IS)
case(0x0C, 161, ON_OFF_2013, ON_OFF_2013_IS)
case(0x0C, 162, A1 + A1_LATER, {"read_at": CLOCK, "clock": CLOCK_LATER})
case(0x0C, 165, SWITCH_2009, READ_IS | SWITCH_2009_IS)
case(0x0C, 165, SWITCH_2013, READ_IS | SWITCH_2013_IS)
case(0x0C, 166, SCHEDULE_2009, READ_IS | SCHEDULE_2009_IS)
case(0x0C, 166, SCHEDULE_2013, READ_IS | SCHEDULE_2013_IS)
case(0x0C, 167, BOUGHT, BOUGHT_IS)
case(0x0C, 167, BOUGHT + "0102030405", BOUGHT_IS | {"tail": bytes((1, 2, 3, 4, 5))})
case(0x0C, 168, SETTLED, SETTLED_IS)
case(
    0x0C,
    169,
    "1f02" + "02" + A12 * 2 + "00",
    {
        "port": 31,
        "n": 2,
        "routes": [{"level": 2, "relays": [A12_IS, A12_IS]}, {"level": 0, "relays": []}],
    },
)
case(
    0x0C,
    170,
    "1f02010f01" + A1 + A1_LATER + "03",
    {
        "port": 31,
        "routes": 2,
        "phases": 1,
        "quality": 15,
        "result": 1,
        "last_ok": CLOCK,
        "last_fail": CLOCK_LATER,
        "fails": 3,
    },
)
case(0x0C, (177, 178), "010203", {"rest": b"\1\2\3"})
