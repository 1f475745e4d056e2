"""Class 2 (AFN0D): a body of every row, worked by hand."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from tests.protocols.worked_qgdw376 import (
    A2,
    A2_IS,
    A2_MINUS,
    A2_MINUS_IS,
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
    A17,
    A18,
    A23,
    A23_IS,
    A25_MINUS,
    A25_MINUS_IS,
    BOUGHT,
    BOUGHT_IS,
    CAPACITORS,
    CAPACITORS_IS,
    LOSS,
    LOSS_IS,
    NO_3,
    NO_4,
    NO_5,
    NO_18,
    ON_OFF_2009,
    ON_OFF_2009_IS,
    ON_OFF_2013,
    ON_OFF_2013_IS,
    READ,
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
    TIME_17,
    TIME_18,
    Cases,
    Says,
    all_four,
    demand_set,
    demands,
    energies,
    phase_failures,
    registers,
)

CASES = Cases()
case, by_day, by_month = CASES.case, CASES.by_day, CASES.by_month

by_day((1, 9), *all_four("q1", "q4"))
by_day((2, 10), *all_four("q2", "q3"))
by_month(17, *all_four("q1", "q4"))
by_month(18, *all_four("q2", "q3"))
by_day((3, 4, 11, 12), *demand_set())
by_month((19, 20), *demand_set())
by_day((5, 6, 7, 8), *registers(A13, A13_IS, NO_4))
by_month((21, 22, 23, 24), *registers(A13, A13_IS, NO_4))


def maxima(last: bool) -> tuple[str, Says]:
    names = ("total", "a", "b", "c")
    body = ""
    says: Says = {}
    for name in names[:3]:
        body += A23 + A18
        says |= {f"max_{name}": A23_IS, f"max_{name}_at": TIME_18}
    body += NO_3 + NO_18
    says |= {"max_c": None, "max_c_at": None}
    if last:
        body += "01000002a005ffff"
        says |= dict(zip((f"zero_{name}" for name in names), (1, 512, 1440, 65535), strict=True))
    return body, says


for _put, _with_zero, _without in ((by_day, 25, 26), (by_month, 33, 34)):
    _put(_with_zero, *maxima(True))
    _put(_without, *maxima(False))


def voltages() -> tuple[str, Says]:
    body = ""
    says: Says = {}
    kinds = ("over_high", "under_low", "high", "low", "qualified")
    for place, name in enumerate("abc"):
        for step, kind in enumerate(kinds):
            body += f"{10 * place + step:02x}01"
            says[f"{kind}_{name}"] = 256 + 10 * place + step
    for name in "abc":
        body += A7 + A18 + "eeee" + NO_18
        says |= {f"max_{name}": A7_IS, f"max_{name}_at": TIME_18}
        says |= {f"min_{name}": None, f"min_{name}_at": None}
    return body + A7 * 3, says | {f"average_{name}": A7_IS for name in "abc"}


UNBALANCE = "01000002" + A5 + A18 + A5_MINUS + NO_18
UNBALANCE_IS: Says = {
    "current_minutes": 1,
    "voltage_minutes": 512,
    "current_max": A5_IS,
    "current_max_at": TIME_18,
    "voltage_max": A5_MINUS_IS,
    "voltage_max_at": None,
}
CURRENTS = "0100020003000400050006000700" + (A25_MINUS + A18) * 4
CURRENTS_IS: Says = {"minutes": [1, 2, 3, 4, 5, 6, 7], "maxima": [{"max": A25_MINUS_IS, "at": TIME_18}] * 4}
LOAD_RATE = A5 + A18 + A5_MINUS + NO_18
LOAD_RATE_IS: Says = {"max": A5_IS, "max_at": TIME_18, "min": A5_MINUS_IS, "min_at": None}
for _put, _first in ((by_day, 27), (by_month, 35)):
    _put(_first, *voltages())
    _put(_first + 1, UNBALANCE, UNBALANCE_IS)
    _put(_first + 2, CURRENTS, CURRENTS_IS)
    _put(_first + 3, "01000002", {"over_high": 1, "high": 512})
    _put(_first + 4, LOAD_RATE, LOAD_RATE_IS)
by_day(32, *phase_failures())
by_day(41, CAPACITORS, CAPACITORS_IS)
by_day(42, A13 + NO_4, {"day": A13_IS, "month": None})
for _put, _segments, _loss in ((by_day, 43, 45), (by_month, 44, 46)):
    _put(_segments, "01000002a005", {"minutes": [1, 512, 1440]})
    _put(_loss, LOSS, LOSS_IS)
for _put, _first in ((by_day, 49), (by_month, 51)):
    _put(_first, "95052500", {"minutes": 1429, "resets": 37})
    _put(_first + 1, "01020304", {"counts": [1, 2, 3, 4]})
by_day(53, "78563412", {"bytes": 0x12345678})
by_month(54, "78563412", {"bytes": 0x12345678})
SUMMED = A2 + A18 + A2_MINUS + NO_18 + "a005"
SUMMED_IS = {"max": A2_IS, "max_at": TIME_18, "min": A2_MINUS_IS, "min_at": None, "zero": 1440}
by_day(57, SUMMED, SUMMED_IS)
by_month(60, SUMMED, SUMMED_IS)
by_day((58, 59), *registers(A3_MINUS, A3_MINUS_IS, NO_4))
by_month((61, 62), *registers(A3_MINUS, A3_MINUS_IS, NO_4))
by_month((65, 66), "a005" + A3, {"minutes": 1440, "energy": A3_IS})

CURVES: list[tuple[tuple[int, ...], str, Decimal | int]] = [
    ((73, 74, 138), A2_MINUS, A2_MINUS_IS),
    ((75, 76), A3, A3_IS),
    (tuple(range(81, 89)), A9_MINUS, A9_MINUS_IS),
    ((89, 90, 91), A7, A7_IS),
    ((92, 93, 94, 95), A25_MINUS, A25_MINUS_IS),
    ((97, 98, 99, 100), A13, A13_IS),
    ((101, 102, 103, 104, 145, 146, 147, 148), A11, A11_IS),
    ((105, 106, 107, 108), A5_MINUS, A5_MINUS_IS),
]
TD_C = "00002411260102"
TD_C_IS = {"start": datetime(2026, 11, 24), "density": 1, "n": 2}
for _fns, _one, _is_it in CURVES:
    _none = "ee" * (len(_one) // 2)
    case(0x0D, _fns, TD_C + _none + _one, TD_C_IS | {"values": [None, _is_it]})
for _fn, _name in ((109, "u"), (110, "i")):
    _angles = {f"{_name}a": A5_IS, f"{_name}b": A5_MINUS_IS, f"{_name}c": None}
    case(0x0D, _fn, TD_C + (A5 + A5_MINUS + "eeee") * 2, TD_C_IS | {"angles": [_angles] * 2})
case(0x0D, 217, TD_C + "1020", TD_C_IS | {"values": [16, 32]})
case(
    0x0D,
    218,
    TD_C + ("10" + A12) * 2,
    TD_C_IS | {"values": [{"ratio": 16, "address": A12_IS}] * 2},
)
by_day((113, 114, 115), (A6 + A17) * 19, {"maxima": [{"value": A6_IS, "at": TIME_17}] * 19})
by_day((116, 117, 118), (A5 + A17) * 19, {"maxima": [{"value": A5_IS, "at": TIME_17}] * 19})
by_day((121, 122, 123), "1301000002", {"n": 19, "minutes": [1, 512]})
DC = "01000002" + A2 + A18 + A2_MINUS + NO_18
DC_IS = {
    "high_minutes": 1,
    "low_minutes": 512,
    "max": A2_IS,
    "max_at": TIME_18,
    "min": A2_MINUS_IS,
    "min_at": None,
}
by_day(129, DC, DC_IS)
by_month(130, DC, DC_IS)
for _put, _first in ((by_day, 153), (by_month, 157)):
    for _fn, _one, _is, _none in (
        (_first, A14, A14_IS, NO_5),
        (_first + 1, A11, A11_IS, NO_4),
        (_first + 2, A14, A14_IS, NO_5),
        (_first + 3, A11, A11_IS, NO_4),
    ):
        _phases = {"reading_a": _is, "reading_b": None, "reading_c": _is}
        _put(_fn, READ + _one + _none + _one, READ_IS | _phases)
by_day((161, 163, 169, 171), *energies(A14, A14_IS, NO_5))
by_day((162, *range(164, 169), 170, *range(172, 177)), *energies(A11, A11_IS, NO_4))
by_month((177, 179, *range(201, 209)), *energies(A14, A14_IS, NO_5))
by_month((178, *range(180, 185)), *energies(A11, A11_IS, NO_4))
by_day(range(185, 193), *demands())
by_month(range(193, 197), *demands())
by_day(209, ON_OFF_2009, ON_OFF_2009_IS)
by_day(209, ON_OFF_2013, ON_OFF_2013_IS)
by_day(210, BOUGHT, BOUGHT_IS)
by_day(210, BOUGHT + "0102030405", BOUGHT_IS | {"tail": bytes((1, 2, 3, 4, 5))})
by_day(211, A5 + A5_MINUS, {"current": A5_IS, "voltage": A5_MINUS_IS})
by_month(212, A5 + A5_MINUS, {"current": A5_IS, "voltage": A5_MINUS_IS})
by_month(213, SWITCH_2009, READ_IS | SWITCH_2009_IS)
by_month(213, SWITCH_2013, READ_IS | SWITCH_2013_IS)
by_month(214, SCHEDULE_2009, READ_IS | SCHEDULE_2009_IS)
by_month(214, SCHEDULE_2013, READ_IS | SCHEDULE_2013_IS)
by_month(215, BOUGHT, BOUGHT_IS)
by_month(215, BOUGHT + "0102030405", BOUGHT_IS | {"tail": bytes((1, 2, 3, 4, 5))})
by_month(216, SETTLED, SETTLED_IS)
case(0x0D, 219, "010203", {"rest": b"\1\2\3"})
