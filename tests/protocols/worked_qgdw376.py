"""Values of appendix A and shapes that several rows of class 1 and class 2 share, worked by hand as hex and
what it says. M is 1 or 2 throughout."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

D = Decimal
Says = dict[str, Any]
Case = tuple[int, tuple[int, ...], str, Says]
"""AFN, Fns, data, what they say."""
Fns = int | tuple[int, ...] | range


class Cases(list[Case]):
    """Worked bodies, written down one by one."""

    def case(self, afn: int, fns: Fns, body: str, says: Says) -> None:
        self.append((afn, (fns,) if isinstance(fns, int) else tuple(fns), body, says))

    def by_day(self, fns: Fns, body: str, says: Says) -> None:
        """AFN0D with Td_d."""
        self.case(0x0D, fns, DAY + body, {"td_d": THE_DAY, **says})

    def by_month(self, fns: Fns, body: str, says: Says) -> None:
        """AFN0D with Td_m."""
        self.case(0x0D, fns, MONTH + body, {"td_m": THE_MONTH, **says})


# -- values by hand, from appendix A of the sheet -----------------------------------------------------

READ = "0508241126"
READ_AT = datetime(2026, 11, 24, 8, 5)
DAY, THE_DAY = "231126", date(2026, 11, 23)
MONTH, THE_MONTH = "1026", "2026-10"
A1, CLOCK = "300508245126", datetime(2026, 11, 24, 8, 5, 30)
A1_LATER, CLOCK_LATER = "450508245126", datetime(2026, 11, 24, 8, 5, 45)
A17, TIME_17 = "15083110", "10-31 08:15"
A18, TIME_18 = "150831", "31 08:15"
NO_17, NO_18 = "eeeeeeee", "eeeeee"
A2, A2_IS = "25a1", D("12.5")
A2_MINUS, A2_MINUS_IS = "2591", D(-125)
A3, A3_IS = "45230100", D(12345)
A3_MINUS, A3_MINUS_IS = "45230150", D("-12345E+3")
A5, A5_IS = "9909", D("99.9")
A5_MINUS, A5_MINUS_IS = "2581", D("-12.5")
A6, A6_IS = "2581", D("-1.25")
A7, A7_IS = "0122", D("220.1")
A9, A9_IS = "563412", D("12.3456")
A9_MINUS, A9_MINUS_IS = "563492", D("-12.3456")
A11, A11_IS = "50341200", D("1234.50")
A12, A12_IS = "129078563412", "123456789012"
A13, A13_IS = "50341200", D("12.3450")
A14, A14_IS = "0056341200", D("1234.5600")
A14_ONE, A14_ONE_IS = "0100000000", D("0.0001")
A23, A23_IS = "563412", D("12.3456")
A25, A25_IS = "001700", D("1.700")
A25_MINUS, A25_MINUS_IS = "501180", D("-1.150")
NO_3, NO_4, NO_5 = "eeeeee", "eeeeeeee", "eeeeeeeeee"


# -- shapes that several rows have --------------------------------------------------------------------


def registers(one: str, one_is: Decimal, none: str) -> tuple[str, Says]:
    """M = 2: total, the same again, no value."""
    return f"02{one}{one}{none}", {"M": 2, "total": one_is, "tariffs": [one_is, None]}


def all_four(first: str, second: str) -> tuple[str, Says]:
    """M = 1: active (A.14), reactive, and two quadrants (A.11)."""
    body = READ + "01" + A14 + A14_ONE + A11 + NO_4 + NO_4 + A11 + A11 + A11
    return body, {
        "read_at": READ_AT,
        "M": 1,
        "active_total": A14_IS,
        "active": [A14_ONE_IS],
        "reactive_total": A11_IS,
        "reactive": [None],
        f"{first}_total": None,
        first: [A11_IS],
        f"{second}_total": A11_IS,
        second: [A11_IS],
    }


def demand_set() -> tuple[str, Says]:
    """M = 1: active demands, their times, reactive demands, their times."""
    return READ + "01" + A23 + NO_3 + A17 + NO_17 + NO_3 + A23 + NO_17 + A17, {
        "read_at": READ_AT,
        "M": 1,
        "active": [A23_IS, None],
        "active_at": [TIME_17, None],
        "reactive": [None, A23_IS],
        "reactive_at": [None, TIME_17],
    }


def demands() -> tuple[str, Says]:
    """M = 1: each demand with its time."""
    return READ + "01" + A23 + A17 + NO_3 + NO_17, {
        "read_at": READ_AT,
        "M": 1,
        "demands": [{"demand": A23_IS, "at": TIME_17}, {"demand": None, "at": None}],
    }


def energies(one: str, one_is: Decimal, none: str) -> tuple[str, Says]:
    body, says = registers(one, one_is, none)
    return READ + body, {"read_at": READ_AT, **says}


def phase_failures() -> tuple[str, Says]:
    counts = "1200030004000599"
    minutes = "563412030000040000050000"
    names = ("total", "a", "b", "c")
    says: Says = {"read_at": READ_AT}
    says |= dict(zip((f"count_{name}" for name in names), (12, 3, 4, 9905), strict=True))
    says |= dict(zip((f"minutes_{name}" for name in names), (123456, 3, 4, 5), strict=True))
    says |= dict(zip((f"start_{name}" for name in names), (TIME_17, None, None, TIME_17), strict=True))
    says |= dict(zip((f"end_{name}" for name in names), (None, TIME_17, None, None), strict=True))
    times = A17 + NO_17 + NO_17 + A17 + NO_17 + A17 + NO_17 + NO_17
    return READ + counts + minutes + times, says


LOSS = A14 + A14_ONE
LOSS_IS = {"copper": A14_IS, "iron": A14_ONE_IS}
CAPACITORS = "01000000" * 9 + "00010000" * 9
CAPACITORS_IS = {"seconds": [1] * 9, "counts": [256] * 9}


def per_phase(names: tuple[str, str, str, str], parts: tuple[str, str, str, str]) -> tuple[str, Says]:
    is_ = {A14: A14_IS, A14_ONE: A14_ONE_IS, A11: A11_IS, NO_4: None}
    one = dict(zip(names, (is_[part] for part in parts), strict=True))
    return READ + "".join(parts) * 3, {"read_at": READ_AT, "phases": [one] * 3}


ACTIVE_REACTIVE = ("forward_active", "forward_reactive", "reverse_active", "reverse_reactive")
SWITCH_2009 = READ + "1200" + READ + "0300" + NO_5
SWITCH_2009_IS = {"program_count": 12, "program_at": READ_AT, "cover_count": 3, "cover_at": None}
SWITCH_2013 = READ + "563412" + A1 + "030000" + A1_LATER
SWITCH_2013_IS = {"program_count": 123456, "program_at": CLOCK, "cover_count": 3, "cover_at": CLOCK_LATER}
SCHEDULE_2009 = READ + "1200" + READ + "0300" + NO_5
SCHEDULE_2009_IS = {"clock_count": 12, "clock_at": READ_AT, "schedule_count": 3, "schedule_at": None}
SCHEDULE_2013 = READ + "563412" + A1 + A1_LATER + "030000" + A1_LATER
SCHEDULE_2013_IS = {
    "clock_count": 123456,
    "clock_before": CLOCK,
    "clock_after": CLOCK_LATER,
    "schedule_count": 3,
    "schedule_at": CLOCK_LATER,
}
BOUGHT = READ + "1200" + A14 + A14_ONE + A11 * 5 + NO_4
BOUGHT_IS = {
    "read_at": READ_AT,
    "buys": 12,
    "money_left": A14_IS,
    "money_total": A14_ONE_IS,
    "energy_left": A11_IS,
    "overdraft": A11_IS,
    "bought": A11_IS,
    "credit_limit": A11_IS,
    "alarm": A11_IS,
    "fault": None,
}
SETTLED = READ + "01" + A14 + A14_ONE + A14_ONE + NO_5
SETTLED_IS = {
    "read_at": READ_AT,
    "M": 1,
    "settled_total": A14_IS,
    "settled": [A14_ONE_IS],
    "unsettled_total": A14_ONE_IS,
    "unsettled": [None],
}
ON_OFF_2009 = READ + "11" + READ + NO_5
ON_OFF_2009_IS = {"read_at": READ_AT, "state": 0x11, "last_on": READ_AT, "last_off": None}
ON_OFF_2013 = READ + "00" + A1 + A1_LATER
ON_OFF_2013_IS = {"read_at": READ_AT, "state": 0, "last_on": CLOCK, "last_off": CLOCK_LATER}
READ_IS = {"read_at": READ_AT}
