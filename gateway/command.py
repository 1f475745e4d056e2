"""The words of relay commands: what may be asked of a relay, where a command stands, why it may not be sent.

Closed enums and frozen values that every room may use. What leads from one state to another is decided in
`control.states`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid4

from gateway.errors import StorageError
from gateway.model import PointRole, RelayKind


class Action(StrEnum):
    """What is done to a meter's relay. `restore`, which billing may ask for, is resolved at acceptance."""

    TRIP = "trip"
    CLOSE = "close"
    PERMIT_CLOSE = "permit-close"
    """the customer presses the button"""
    KEEP_POWER = "keep-power"
    RELEASE_KEEP_POWER = "release-keep-power"
    ALARM = "alarm"
    CLEAR_ALARM = "clear-alarm"


RESTORING: Final = frozenset({Action.CLOSE, Action.PERMIT_CLOSE})
"""Actions that give power back: never limited, never refused for good, never blocked by a brake."""
GATED_AS_TRIP: Final = frozenset({Action.TRIP, Action.RELEASE_KEEP_POWER})
"""Actions that take power away, or the protection of it: every gate of a trip stands before them."""


class State(StrEnum):
    """Where a command stands."""

    REQUESTED = "requested"
    HELD = "held"
    QUEUED = "queued"
    SENDING = "sending"
    UNCERTAIN = "uncertain"
    ACKNOWLEDGED = "acknowledged"
    FIELD = "field"
    VERIFIED = "verified"
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"


ENDS: Final = frozenset(
    {State.VERIFIED, State.REFUSED, State.FAILED, State.CANCELLED, State.EXPIRED, State.SUPERSEDED}
)
"""Nothing follows these."""
MAY_HAVE_LEFT: Final = frozenset({State.SENDING, State.UNCERTAIN, State.ACKNOWLEDGED})
"""States in which the meter may have the frame, or may still act on it."""


class BlockKind(StrEnum):
    """Why a customer or a point must not be cut off, from a time until a time."""

    KEEP_POWER = "keep-power"
    COMPLAINT = "complaint"
    BANK_LOCK = "bank-lock"
    MEDICAL = "medical"
    WEATHER = "weather"
    PROTECTED_CLASS = "protected-class"
    OTHER = "other"


class Why(StrEnum):
    """Why a command is held, refused, waits or ended, from this closed list. See `WHY_TEXT`."""

    BLOCKED = "blocked"
    BRAKE = "brake"
    WEATHER_HALT = "weather_halt"
    OUTSIDE_HOURS = "outside_hours"
    NO_CAUSE = "no_cause"
    NO_NOTICE = "no_notice"
    OPEN_CLOSE = "open_close"
    OPEN_TRIP = "open_trip"
    UNKNOWN_METER = "unknown_meter"
    NOT_INSTALLED = "not_installed"
    NO_RELAY = "no_relay"
    NOT_CUSTOMER = "not_customer"
    OVER_LIMIT = "over_limit"
    NEEDS_APPROVAL = "needs_approval"
    SHADOW = "shadow"
    HOLD_AFTER_RESTORE = "hold_after_restore"
    BILLING_SAYS_NO = "billing_says_no"
    BILLING_SILENT = "billing_silent"
    CONTESTED = "contested"
    METER_CLOCK = "meter_clock"
    METER_CLOCK_UNKNOWN = "meter_clock_unknown"
    WRONG_METER = "wrong_meter"
    METER_SILENT = "meter_silent"
    TERMINAL_ABSENT = "terminal_absent"
    KEEP_POWER_ON = "keep_power_on"
    REFUSED_BY_METER = "refused_by_meter"
    NOT_AUTHENTICATED = "not_authenticated"
    DEADLINE = "deadline"
    SUSPENDED = "suspended"
    NOT_SUPPORTED = "not_supported"
    SECURITY_MODULE = "security_module"
    OUR_CLOCK = "our_clock"
    WAITING_FOR_LOAD = "waiting_for_load"
    NOT_EXECUTED = "not_executed"
    NO_ANSWER = "no_answer"
    NEWER_INTENT = "newer_intent"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    BY_PERSON = "by_person"
    RELAY_READ = "relay_read"


WHY_TEXT: Final[dict[Why, tuple[str, str]]] = {
    Why.BLOCKED: ("a block protects this customer or point", "该用户或计量点存在停电保护"),
    Why.BRAKE: ("the brake is on: no trip is sent", "紧急制动中，停止一切跳闸"),
    Why.WEATHER_HALT: ("trips are halted for the weather here", "天气原因暂停停电"),
    Why.OUTSIDE_HOURS: ("trips are not allowed at this hour", "不在允许停电时段"),
    Why.NO_CAUSE: ("a cause code is required", "缺少停电原因"),
    Why.NO_NOTICE: ("a notice reference is required", "缺少停电通知凭据"),
    Why.OPEN_CLOSE: ("a close for this meter is still open", "该表有未完成的合闸"),
    Why.OPEN_TRIP: ("a trip for this meter is open already", "该表已有未完成的跳闸"),
    Why.UNKNOWN_METER: ("the meter is not in the assets", "档案中无此电能表"),
    Why.NOT_INSTALLED: ("the meter is not installed any more", "电能表已拆除"),
    Why.NO_RELAY: ("the meter has no relay", "该表无费控继电器"),
    Why.NOT_CUSTOMER: ("the point does not belong to a customer", "非用户计量点"),
    Why.OVER_LIMIT: ("more trips than the limit allows", "超出停电数量限额"),
    Why.NEEDS_APPROVAL: ("a second person must approve", "须第二人批准"),
    Why.SHADOW: ("shadow mode: nothing is sent", "影子模式，不下发"),
    Why.HOLD_AFTER_RESTORE: ("on hold after a restore or a long stop", "恢复或长时间停机后保持"),
    Why.BILLING_SAYS_NO: ("billing says the customer owes nothing", "营销系统确认不欠费"),
    Why.BILLING_SILENT: ("billing did not answer", "营销系统无应答"),
    Why.CONTESTED: ("two devices use this terminal address", "终端地址冲突"),
    Why.METER_CLOCK: ("the meter's clock is off by more than 2 minutes", "电能表时钟偏差超过两分钟"),
    Why.METER_CLOCK_UNKNOWN: ("the meter's clock could not be read", "电能表时钟未读到"),
    Why.WRONG_METER: ("another meter answered at this point", "应答电能表不符"),
    Why.METER_SILENT: ("the meter did not answer", "电能表无应答"),
    Why.TERMINAL_ABSENT: ("the terminal is not connected", "终端不在线"),
    Why.KEEP_POWER_ON: ("the meter is under keep-power", "电能表处于保电状态"),
    Why.REFUSED_BY_METER: ("the meter refused", "电能表拒绝"),
    Why.NOT_AUTHENTICATED: ("the meter wants authentication", "身份认证失效"),
    Why.DEADLINE: ("the meter holds the deadline for passed", "有效截止时间已过"),
    Why.SUSPENDED: ("the meter takes no control until midnight", "电能表挂起至零点"),
    Why.NOT_SUPPORTED: ("the meter does not know this command", "电能表不支持该命令"),
    Why.SECURITY_MODULE: ("the security module did not answer", "加密机无应答"),
    Why.OUR_CLOCK: ("our own clock is not trusted", "主站时钟不可信"),
    Why.WAITING_FOR_LOAD: ("accepted; the meter waits for delay or load", "已接受，等待延时或负荷下降"),
    Why.NOT_EXECUTED: ("the relay shows that it was not executed", "继电器状态显示未执行"),
    Why.NO_ANSWER: ("no answer after the frame may have left", "下发后无应答"),
    Why.NEWER_INTENT: ("a newer command for this meter took its place", "被新命令取代"),
    Why.EXPIRED: ("not sent before its expiry", "过期未下发"),
    Why.CANCELLED: ("cancelled", "已撤销"),
    Why.BY_PERSON: ("decided by a person", "人工处理"),
    Why.RELAY_READ: ("proved by a relay read", "继电器状态已证实"),
}
"""English and Chinese words for an operator."""


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """Status word 3 (04000503) as it was read. at: UTC, when the question left: the word was taken after it,
    and what happened before it is in it."""

    word: int
    at: datetime

    @property
    def open(self) -> bool:
        """Bit 4: the relay is open, the household is dark."""
        return bool(self.word >> 4 & 1)

    @property
    def trip_ordered(self) -> bool:
        """Bit 6: the last command that the meter obeys is a trip."""
        return bool(self.word >> 6 & 1)

    @property
    def alarm(self) -> bool:
        """Bit 7."""
        return bool(self.word >> 7 & 1)

    @property
    def keep_power(self) -> bool:
        """Bit 12."""
        return bool(self.word >> 12 & 1)


@dataclass(frozen=True, slots=True)
class Command:
    """One command as it stands in the database. Instants are UTC."""

    id: UUID
    meter_id: int
    action: Action
    state: State
    version: int
    """raised by every change of the row: a statement names the one it has seen"""
    intent: int
    """the meter's intent version that this command made; the newest wins"""
    requester: str
    cause: str
    created_at: datetime
    notice: str = ""
    customer: str = ""
    caused_by: str = ""
    work_order: str = ""
    label: str = ""
    """the requester's own words"""
    approver: str = ""
    not_before: datetime | None = None
    expires_at: datetime | None = None
    """None: does not expire (closes)"""
    batch: UUID | None = None
    shadow: bool = False
    """all gates, reads and evidence, and no control frame"""
    attempts: int = 0
    """frames that may have left"""
    frame_hash: bytes | None = None
    """SHA-256 of the 645 frame that was last committed before writing"""
    sent_at: datetime | None = None
    valid_until: datetime | None = None
    """of the frame last sent, by our clock with the meter's offset counted in"""
    look_at: datetime | None = None
    """when to look at it next"""
    energised_at: datetime | None = None
    why: Why | None = None
    detail: str = ""
    trace: str = ""


class Proof(StrEnum):
    """What a step rests on, where it needs more than our own decision."""

    NO_BYTE_LEFT = "no byte left"
    NOT_EXECUTED = "a relay read later than the frame's validity shows that it was not executed"
    RELAY_READ = "a relay read after the last write"
    FIELD_REPORT = "a person at the meter"


class Unsure(StorageError):
    """The answer to COMMIT was lost: the desk was kept, or it was not. Look before anything else."""


class Stale(StorageError):
    """Another one has changed the command since it was read: nothing was kept; read it again."""


class KeyTaken(StorageError):
    """The idempotency key was used by another request at the same moment: look what it made."""


class NotInstalled(StorageError):
    """There is no such meter, or it was never installed anywhere."""


@dataclass(frozen=True, slots=True)
class Block:
    """One protection in force."""

    id: int
    kind: BlockKind
    since: datetime
    until: datetime | None
    source: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Trips that may leave within a sliding window: of one area, of one requester, in all."""

    area: int = 50
    requester: int = 500
    all: int = 500
    window: timedelta = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class MeterFacts:
    """What is known of one meter when its desk is opened; all of one transaction."""

    meter_id: int
    meter: str
    address: str
    terminal_id: int
    terminal: str
    pn: int
    port: int
    protocol: str
    profile: str
    role: PointRole
    relay_kind: RelayKind
    area_id: int | None
    organisation_id: int | None
    shadow: bool
    """the organisation is in shadow mode"""
    customer: str
    protected: bool
    """the customer's class must never be tripped"""
    restore_mode: str
    """close, permit or confirm: how billing's `restore` is carried out here"""
    intent: int
    """the newest intent version; 0: none yet"""
    blocks: tuple[Block, ...] = ()
    open: tuple[Command, ...] = ()
    """commands that have not ended, oldest first"""
    brake: bool = False
    weather_halt: bool = False
    hold_since: datetime | None = None
    """on hold after a restore: trips accepted before are void until a person releases them"""
    trip_until: datetime | None = None
    """until when a trip that may have left and is not proved can still be executed, also one that was
    refused: a copy of its frame may find the meter in another mood; None: none was ever sent"""
    copy_until: datetime | None = None
    """the same, of trips that were verified too: a copy of the frame may come after the close"""
    restored_intent: int = 0
    """intent of the newest close, permit-close or keep-power that was ever accepted; no older trip is sent"""
    tripped_intent: int = 0
    """intent of the newest trip of which a frame may have left"""
    relit_intent: int = 0
    """intent of the newest close or permit that was verified"""
    limits: Limits | None = None
    """as two persons have set them; None: those of the rules"""
    installed: bool = True
    """False: it is nowhere now, and place, terminal and customer are those where it was last"""


class Used(NamedTuple):
    """Trips that have taken a place within a window: of one area, of one requester, in all."""

    area: int
    requester: int
    all: int


NO_PLACES: Final = Used(0, 0, 0)
"""What counts against all that has no limits."""

PLACE_LASTS: Final = timedelta(seconds=30)
"""A trip that is not claimed within this time of taking its place takes another. Places are counted for the
window and so much longer: a window holds no more trips, whenever in this time each has left."""


class Place(NamedTuple):
    """What one trip found when it asked for a place within the limits. at: since when it has one; None where
    there was no room. used: the places of others."""

    at: datetime | None
    used: Used
    limits: Limits
    area_id: int | None


class Ref(NamedTuple):
    """A command that wants work now."""

    id: UUID
    meter_id: int
    terminal_id: int
    action: Action
    state: State


@dataclass(frozen=True, slots=True)
class NewCommand:
    """What a request asks for, resolved and checked for form."""

    id: UUID
    action: Action
    requester: str
    cause: str
    created_at: datetime
    idempotency_key: str
    body_hash: bytes
    notice: str = ""
    customer: str = ""
    caused_by: str = ""
    work_order: str = ""
    label: str = ""
    not_before: datetime | None = None
    expires_at: datetime | None = None
    batch: UUID | None = None
    shadow: bool = False
    trace: str = ""


def following(command: Command, action: Action, at: datetime, key: str) -> NewCommand:
    """A command of our own that carries on what `command` was for, in the name of who asked for that."""
    return NewCommand(
        id=uuid4(),
        action=action,
        requester=command.requester,
        cause=command.cause,
        created_at=at,
        idempotency_key=key,
        body_hash=b"",
        notice=command.notice,
        customer=command.customer,
        caused_by=str(command.id),
        work_order=command.work_order,
        label=command.label,
        trace=command.trace,
    )


@dataclass(frozen=True, slots=True)
class Change:
    """Columns that a step changes besides the state; a name that is not here stays.

    values: of `Command`'s fields attempts, frame_hash, sent_at, valid_until, look_at, energised_at, approver,
    expires_at.
    """

    values: Mapping[str, Any] = field(default_factory=dict)


NOTHING = Change()


def canonical(body: Mapping[str, Any]) -> bytes:
    """`body` as JSON that has one spelling: keys sorted, no spaces, UTF-8.

    It may hold strings, integers, booleans, null, and lists and objects of these; TypeError for anything
    else, since a float has more than one spelling.
    """
    _only_exact(body)
    return json.dumps(body, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def _only_exact(part: Any) -> None:
    if isinstance(part, Mapping):
        for value in part.values():
            _only_exact(value)
    elif isinstance(part, list | tuple):
        for value in part:
            _only_exact(value)
    elif not isinstance(part, str | int | None):
        raise TypeError(f"{part!r} has more than one spelling in JSON")


def chained(before: bytes, body: Mapping[str, Any]) -> bytes:
    """The hash of an event: SHA-256 over the hash of the one before it (b"" for the first) and its body."""
    return hashlib.sha256(before + canonical(body)).digest()
