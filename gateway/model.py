"""The words of the house: closed enums and frozen values that every room may use. No behaviour but checks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import NamedTuple


class Quantity(IntEnum):
    """What a register counts. The number is what the database stores."""

    FORWARD_ACTIVE = 1
    REVERSE_ACTIVE = 2
    FORWARD_REACTIVE = 3
    REVERSE_REACTIVE = 4
    REACTIVE_Q1 = 5
    REACTIVE_Q2 = 6
    REACTIVE_Q3 = 7
    REACTIVE_Q4 = 8

    @property
    def label(self) -> str:
        """Name in files and answers: `forward_active`."""
        return self.name.lower()


class Kind(IntEnum):
    """What a reading stands for: the register at midnight, at month's end, or as it is now."""

    DAY = 1
    MONTH = 2
    LIVE = 3


class Source(IntEnum):
    """Where a reading came from; the smaller the number, the more it is believed (design: conflicts)."""

    METER = 1
    """the meter's own dated freeze, read through the terminal or directly; two decimals"""
    TERMINAL = 2
    """the terminal's frozen value, four decimals"""
    PUSHED = 3
    """sent by the terminal of its own accord, four decimals"""
    MANUAL = 4
    """typed in by a person, two decimals"""


class Quality(IntEnum):
    """What is to be known about a reading before it is billed."""

    GOOD = 1
    CONTESTED = 2
    LATE_READ = 3
    CLOCK_OFF = 4
    LIVE_AS_FREEZE = 5


class Reason(StrEnum):
    """Why a due reading is missing: the last failure, from this closed list. See `REASON_TEXT`."""

    NOT_ASKED = "not_asked"
    TERMINAL_ABSENT = "terminal_absent"
    TERMINAL_SILENT = "terminal_silent"
    TERMINAL_DENIED = "terminal_denied"
    NO_VALUE_YET = "no_value_yet"
    LEFT_OUT = "left_out"
    DAMAGED = "damaged"
    BAD_VALUE = "bad_value"
    WRONG_DATE = "wrong_date"
    ARCHIVE_DIFFERS = "archive_differs"
    NOT_IN_ARCHIVE = "not_in_archive"
    CONTESTED = "contested"
    PAST_STORE = "past_store"
    METER_SILENT = "meter_silent"
    METER_REFUSED = "meter_refused"
    METER_FREEZE_MISSING = "meter_freeze_missing"
    WRONG_METER = "wrong_meter"
    ALLOWANCE_USED = "allowance_used"
    NOT_SUPPORTED = "not_supported"
    STORAGE_FAILED = "storage_failed"


REASON_TEXT: dict[Reason, tuple[str, str]] = {
    Reason.NOT_ASKED: ("not asked for yet", "尚未召测"),
    Reason.TERMINAL_ABSENT: ("the terminal is not connected", "终端不在线"),
    Reason.TERMINAL_SILENT: ("the terminal did not answer", "终端无应答"),
    Reason.TERMINAL_DENIED: ("the terminal denied the request", "终端否认"),
    Reason.NO_VALUE_YET: ("the terminal has no value for this day yet", "终端尚无该日数据"),
    Reason.LEFT_OUT: ("the terminal left this point out of its answer", "终端应答缺少该测量点"),
    Reason.DAMAGED: ("the answer was damaged on the way", "应答帧损坏"),
    Reason.BAD_VALUE: ("the value is not a valid number", "数值非法"),
    Reason.WRONG_DATE: ("the value belongs to another day", "日期不符"),
    Reason.ARCHIVE_DIFFERS: (
        "the terminal's archive holds another meter at this point",
        "终端档案与主站不符",
    ),
    Reason.NOT_IN_ARCHIVE: ("the terminal's archive does not hold this point", "终端档案无此测量点"),
    Reason.CONTESTED: ("two devices use this terminal address", "终端地址冲突"),
    Reason.PAST_STORE: ("the day is older than the terminal keeps", "超出终端存储期"),
    Reason.METER_SILENT: ("the meter did not answer the terminal", "电能表无应答"),
    Reason.METER_REFUSED: ("the meter refused the request", "电能表拒绝"),
    Reason.METER_FREEZE_MISSING: ("the meter holds no freeze of this day", "电能表无该日冻结"),
    Reason.WRONG_METER: ("another meter answered", "应答电能表地址不符"),
    Reason.ALLOWANCE_USED: ("this hour's direct meter reads are used up", "本小时直抄次数已满"),
    Reason.NOT_SUPPORTED: ("no request is known for this quantity here", "不支持的数据项"),
    Reason.STORAGE_FAILED: ("the database did not take the value", "入库失败"),
}
"""English and Chinese words for an operator."""


class MeterClass(StrEnum):
    SINGLE_PHASE = "single_phase"
    THREE_PHASE = "three_phase"


class PointRole(StrEnum):
    CUSTOMER = "customer"
    AREA_GATEWAY = "area_gateway"
    FEEDER_HEAD = "feeder_head"
    BUS = "bus"
    FEED_IN = "feed_in"


class RelayKind(StrEnum):
    BUILT_IN = "built_in"
    EXTERNAL_SELF_CLOSING = "external_self_closing"
    EXTERNAL_HAND_CLOSING = "external_hand_closing"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Point:
    """A meter where it is installed: terminal point `pn`, from `valid_from` until `valid_to` (half open)."""

    pn: int
    meter_id: int
    meter: str
    """permanent asset number"""
    address: str
    """communication address, 12 decimal digits, high digit first"""
    protocol: str
    """`dlt645-2007` or `dlt645-1997`"""
    meter_class: MeterClass
    role: PointRole
    tariffs: int
    port: int
    ct: int
    pt: int
    profile: str
    valid_from: datetime | None
    valid_to: datetime | None

    def holds_at(self, instant: datetime) -> bool:
        """Was this meter installed here at `instant`? A freeze at the very swap belongs to the new meter."""
        return (self.valid_from is None or self.valid_from <= instant) and (
            self.valid_to is None or instant < self.valid_to
        )


@dataclass(frozen=True, slots=True)
class TerminalAssets:
    """What the company knows of one terminal, and what the terminal says of itself."""

    terminal_id: int
    address: str
    """area code, 4 digits, and terminal address, 4 lower-case hex digits: `02001234`"""
    profile: str
    points: tuple[Point, ...]
    archive: dict[int, str] | None = None
    """pn -> meter address as read from the terminal; None: never read"""


ReadingRow = tuple[
    int,  # meter_id
    int,  # Quantity
    int,  # Kind
    datetime,  # frozen_at, UTC (for LIVE: the read time)
    int | None,  # total, 0.0001 kWh (or kvarh)
    int | None,  # t1
    int | None,  # t2
    int | None,  # t3
    int | None,  # t4
    list[int | None] | None,  # tariffs 5.. where there are any
    datetime | None,  # read_at: when the terminal read the meter, UTC
    datetime,  # collected_at, UTC
    int,  # Source
    int,  # Quality
]
"""One reading on its way to the database: the columns of staging, in order. A tuple, since the midnight path
moves hundreds of thousands a second."""


class Due(NamedTuple):
    """One reading that a business day owes us. A tuple: a million meters have a million of them a night."""

    meter_id: int
    pn: int
    quantity: Quantity
    kind: Kind
    frozen_at: datetime
    """UTC; for business day D it is D+1 00:00 +08:00"""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one due reading was not had this time."""

    meter_id: int
    quantity: Quantity
    kind: Kind
    frozen_at: datetime
    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RawFrame:
    """Bytes kept for a person to look at: damaged, unknown, refused. The store of them is bounded."""

    received_at: datetime
    terminal: str
    """terminal address, or the peer's name where it is not known"""
    direction: str
    """`up` or `down`"""
    reason: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class SignOfLife:
    """When the login `generation` of a terminal was last heard."""

    terminal_id: int
    generation: int
    at: datetime


class EventClass(IntEnum):
    """Which of a terminal's two event memories; the number is the Fn of AFN0E that asks for it."""

    IMPORTANT = 1
    """counted by EC1; ACD tells that some wait"""
    NORMAL = 2
    """counted by EC2"""


@dataclass(frozen=True, slots=True)
class EventRow:
    """One event of a terminal, on its way to the database."""

    pointer: int
    """its place in the terminal's memory, 0..255, which wraps"""
    erc: int
    occurred_at: datetime | None
    """UTC, by the terminal's clock; None where it did not say"""
    pn: int | None
    """measuring point; None where the event is not about one"""
    starts: bool | None
    """it began, or it is over; None where the body does not say"""
    detail: list[dict[str, object]]
    """what else the body says, ready for JSON: name, name_zh, value, unit"""
    reason: str | None
    """why the body is not understood; None: it is"""
    raw: bytes
    """the body as sent, at most 255 bytes"""


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Records of one memory, all that there are from pointer `begin` on, `count` of them (modulo 256)."""

    event_class: EventClass
    begin: int
    count: int
    """0: the rows are of other places, and say nothing of those from `begin` on"""
    rows: tuple[EventRow, ...]
    received_at: datetime
    pushed: bool = False
    """sent by the terminal of its own accord"""
    contested: bool = False
    """two devices use the terminal's address: nobody knows whose events these are"""


@dataclass(frozen=True, slots=True)
class ArchiveRecord:
    """One row of a terminal's meter archive (AFN04/0A F10)."""

    sequence: int
    pn: int
    port: int
    baud: int
    """bits a second; 0 = the terminal's default"""
    protocol: int
    """code of the standard: 30 DL/T 645-2007, 1 DL/T 645-1997, 31 PLC module …"""
    address: str
    tariffs: int
    collector: str = "000000000000"
    user_class: int = 0
    password: bytes = bytes(6)
    integer_digits: int = 6
    decimal_digits: int = 2
