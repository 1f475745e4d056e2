"""DL/T 645 frames from words: what `lingdian encode` builds.

Requests that change a meter are built only with a reason, which stands in the permit that is made for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from protocols.dlt645 import commands, control, items, messages
from protocols.dlt645 import frame as dlt645
from protocols.dlt645.command_layouts import control_code
from protocols.dlt645.control_messages import RelayCommand, RelayReply, SecurityRequest, Verb
from protocols.dlt645.fields import Authority
from protocols.dlt645.formats import Moment
from protocols.errors import LocalProtocolError
from protocols.lens.naming import di_of
from protocols.permit import Permit

# A trip that nobody took back within this time is too old to be executed.
_USUAL_VALIDITY = timedelta(minutes=10)
_LEVEL = "02"


@dataclass(frozen=True, slots=True)
class MeterOrder:
    """What a 645 frame shall say.

    address: 12 digits. action: one of REQUESTS or ANSWERS. item: DI or name, where the action has one.
    values: texts, as decoding gives them. at: of a time, a deadline, or a load profile's beginning; now: the
    present wall clock, from which a deadline is reckoned where none is given. number: SEQ, blocks of a load
    profile, or minutes until a meter restores itself.
    """

    address: str
    action: str
    item: str = ""
    values: tuple[str, ...] = ()
    edition: str = "2007"
    level: str = _LEVEL
    password: str = "000000"
    operator: str = "00000000"
    at: datetime | None = None
    now: datetime | None = None
    number: int | None = None

    @property
    def di(self) -> str:
        """LocalProtocolError where no item is named, or none is known by that name."""
        if not self.item:
            raise LocalProtocolError(f"{self.action} needs an item (DI or name)")
        return di_of(self.item, self.edition)

    @property
    def data(self) -> bytes:
        """The item's data, from `values`."""
        if not self.values:
            raise LocalProtocolError(f"{self.action} {self.di} needs a value")
        return items.encode(self.di, [value or None for value in self.values], self.edition)

    @property
    def authority(self) -> Authority:
        """Level, password and operator; 1997 has no operator."""
        return Authority(self.level, self.password, self.operator if self.edition == "2007" else "")

    def one(self, what: str) -> str:
        """The only value."""
        if len(self.values) != 1:
            raise LocalProtocolError(f"{self.action} needs one value: {what}")
        return self.values[0]


def compose_meter(order: MeterOrder, reason: str | None = None) -> bytes:
    """The frame, without lead-in. reason: why a dangerous one is built; None builds none.

    LocalProtocolError where it cannot be sent, or is dangerous and has no reason.
    """
    address = order.address.upper()
    if order.action in ANSWERS:
        return dlt645.build(messages.to_frame(ANSWERS[order.action](order)))
    if order.action == "security":
        return dlt645.build(control.build_security(_security(order), _permit(order, "645 03", reason)))
    if order.action in _VERBS:
        command = _relay(order)
        permit = _permit(order, control.action(command.verb), reason)
        return dlt645.build(control.build_control(command, permit))
    if order.action not in REQUESTS:
        known = ", ".join(sorted((*REQUESTS, *_VERBS, "security", *ANSWERS)))
        raise LocalProtocolError(f"there is no action {order.action!r}; there are {known}")
    message = REQUESTS[order.action](order)
    if isinstance(message, messages.Reading):
        return dlt645.build(messages.to_frame(message))
    assert isinstance(message, commands.Command)
    action = f"645 {control_code(message):02x}"
    permit = None if reason is None else Permit(action, address, reason)
    return dlt645.build(messages.to_frame(message, permit))


def _permit(order: MeterOrder, action: str, reason: str | None) -> Permit | None:
    return None if reason is None else Permit(action, order.address.upper(), reason)


# -- requests -------------------------------------------------------------------------------------


def _read(order: MeterOrder) -> messages.Request:
    extra = b""
    if order.number is not None:
        if not 0 <= order.number <= 99:
            raise LocalProtocolError(f"{order.number} blocks; N is 0..99")
        extra = bytes.fromhex(f"{order.number:02d}")
        if order.at is not None:
            extra += Moment("YYMMDDhhmm").write(f"{order.at:%Y-%m-%d %H:%M}")
    return messages.ReadRequest(order.address.upper(), order.di, extra)


def _follow_up(order: MeterOrder) -> messages.Request:
    sequence = 0 if order.edition == "1997" else 1
    return messages.FollowUpRequest(
        order.address.upper(), order.di, sequence if order.number is None else order.number
    )


def _time(order: MeterOrder) -> messages.Request:
    if order.at is None:
        raise LocalProtocolError("time needs the time to set")
    return commands.BroadcastTime(order.at, order.address.upper(), order.edition)


def _write(order: MeterOrder) -> messages.Request:
    return commands.WriteRequest(order.address.upper(), order.di, order.authority, order.data)


def _write_address(order: MeterOrder) -> messages.Request:
    new = order.one("the new address")
    return commands.WriteAddress(new, order.address.upper(), order.edition)


def _freeze(order: MeterOrder) -> messages.Request:
    """MMDDhhmm, 99 for "every"; nothing or "now" freezes at once."""
    pattern = order.values[0] if order.values else "now"
    digits = "99999999" if pattern == "now" else pattern
    if len(digits) != 8 or not digits.isdecimal():
        raise LocalProtocolError(f"{pattern!r} is no freeze time: now, or MMDDhhmm with 99 for every")
    parts = [None if two == "99" else int(two) for two in (digits[at : at + 2] for at in (0, 2, 4, 6))]
    return commands.Freeze(order.address.upper(), *parts)


def _speed(order: MeterOrder) -> messages.Request:
    wanted = order.one("bit/s")
    word = next((word for word, speed in commands.SPEEDS.items() if str(speed) == wanted), None)
    if word is None:
        raise LocalProtocolError(f"no rate word for {wanted} bit/s")
    return commands.ChangeSpeed(order.address.upper(), word, order.edition)


def _password(order: MeterOrder) -> messages.Request:
    if len(order.values) != 2:
        raise LocalProtocolError("password needs two values: the new level and the new password")
    new = Authority(order.values[0], order.values[1], "")
    old = Authority(order.level, order.password, "")
    di = order.di if order.edition == "2007" else ""
    return commands.ChangePassword(order.address.upper(), di, old, new)


def _clear_demand(order: MeterOrder) -> messages.Request:
    if order.edition == "1997":
        raise LocalProtocolError(
            "what 1997 wants in a clear of demand is not confirmed: not built from words"
        )
    return commands.ClearDemand(order.address.upper(), order.authority)


def _clear_meter(order: MeterOrder) -> messages.Request:
    return commands.ClearMeter(order.address.upper(), order.authority)


def _clear_events(order: MeterOrder) -> messages.Request:
    di = order.di if order.item else commands.ALL_EVENTS
    return commands.ClearEvents(order.address.upper(), order.authority, di)


def _output(order: MeterOrder) -> messages.Request:
    wanted = order.one(", ".join(commands.OUTPUTS))
    names = {name: number for number, name in enumerate(commands.OUTPUTS)}
    number = names.get(wanted, int(wanted) if wanted.isdecimal() else -1)
    return commands.SelectOutput(order.address.upper(), number)


def _security(order: MeterOrder) -> SecurityRequest:
    """values: name=hex, high byte first, in the order of the frame."""
    told = []
    for value in order.values:
        name, _, digits = value.partition("=")
        told.append((name, _hex(digits, name)))
    return SecurityRequest(order.address.upper(), order.di, order.operator, tuple(told))


def _relay(order: MeterOrder) -> RelayCommand:
    at = order.at
    if at is None and order.now is not None:
        at = (order.now + _USUAL_VALIDITY).replace(microsecond=0)
    return RelayCommand(order.address.upper(), _VERBS[order.action], order.authority, at, order.number or 0)


def _hex(digits: str, what: str) -> bytes:
    try:
        return bytes.fromhex(digits)
    except ValueError:
        raise LocalProtocolError(f"{what}: {digits!r} is not hex") from None


_VERBS = {verb.word: verb for verb in Verb}

REQUESTS: dict[str, Callable[[MeterOrder], messages.Request]] = {
    "read": _read,
    "read-follow-up": _follow_up,
    "read-address": lambda order: messages.ReadAddressRequest(order.address.upper()),
    "time": _time,
    "write": _write,
    "write-address": _write_address,
    "freeze": _freeze,
    "speed": _speed,
    "password": _password,
    "clear-demand": _clear_demand,
    "clear-meter": _clear_meter,
    "clear-events": _clear_events,
    "output": _output,
}
"""Actions of a master, beside the verbs of 1CH ("trip", "permit-close" …) and "security" (03H)."""


# -- answers --------------------------------------------------------------------------------------


def _answer(order: MeterOrder) -> messages.Reply:
    return messages.ReadReply(order.address, order.di, order.data)


def _refusal(order: MeterOrder) -> messages.Reply:
    if len(order.values) != 2:
        raise LocalProtocolError("answer-refused needs two values: the function and the error word, in hex")
    function, error = (_hex(value, "answer-refused") for value in order.values)
    if len(function) != 1 or not 1 <= len(error) <= 2:
        raise LocalProtocolError("answer-refused: a function has one byte, an error word one or two")
    word = int.from_bytes(error, "big")
    return messages.ErrorReply(order.address, function[0], word, len(error) == 2, order.edition)


def _done(order: MeterOrder) -> messages.Reply:
    function = _hex(order.one("the function in hex"), "answer-done")
    if len(function) != 1:
        raise LocalProtocolError("answer-done: a function has one byte")
    return commands.Done(order.address, function[0], edition=order.edition)


def _relay_answer(order: MeterOrder) -> messages.Reply:
    word = int.from_bytes(_hex(order.values[0], "answer-relay"), "big") if order.values else None
    return RelayReply(order.address, word)


ANSWERS: dict[str, Callable[[MeterOrder], messages.Reply]] = {
    "answer": _answer,
    "answer-address": lambda order: messages.AddressReply(order.address),
    "answer-done": _done,
    "answer-relay": _relay_answer,
    "answer-refused": _refusal,
}
"""Actions of a meter: they change nothing."""

WITHOUT_ITEM = frozenset(
    (
        *(
            "read-address",
            "time",
            "write-address",
            "freeze",
            "speed",
            "clear-demand",
            "clear-meter",
            "output",
        ),
        *("answer-address", "answer-done", "answer-relay", "answer-refused"),
        *_VERBS,
    )
)
"""Actions behind which no item is named."""
