"""What was done with a ticket, as a file that the gateway believes: signed by the machine for which the
ticket was made. Frames of the meter and reads of it stand there whole, our control frame only as the ticket
has it, without its password; no other words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gateway.command import RelayStatus, canonical
from gateway.errors import InputError
from gateway.field import ticket as tickets
from gateway.field.line import READS, may_answer
from gateway.field.ticket import RELAY_CONTROL, NoTicket, Ticket
from protocols.dlt645 import messages
from protocols.dlt645.frame import Frame, parse
from protocols.dlt645.messages import ErrorReply
from protocols.errors import RemoteProtocolError

FORMAT: Final = "lingdian direct evidence 1"
LARGEST: Final = 64 * 1024
MOST_READS: Final = 64

STATUS_WORD_3: Final = "04000503"

WHOLE, PERHAPS, NOTHING = "whole", "perhaps", "nothing"
"""What the line took of the control frame."""

_SIGNED_AS: Final = b"lingdian direct evidence\0"
_MISSHAPEN: Final = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)


class NoEvidence(InputError):
    """It is no evidence of this gateway's tickets, or does not hold together."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A read of the meter. at: UTC, when the question left."""

    at: datetime
    question: bytes
    answer: bytes

    @property
    def data(self) -> bytes:
        """Behind the item's number."""
        return parse(self.answer).data[4:]

    @property
    def di(self) -> str:
        return parse(self.question).data[:4][::-1].hex()


@dataclass(frozen=True, slots=True)
class Deed:
    """One use of a ticket. answer: the meter's to the control frame; b"": none that counts."""

    ticket: Ticket
    written_at: datetime
    left: str
    clock_offset_ms: int | None
    """how far the meter's clock was ahead of the machine's"""
    before: tuple[Asked, ...]
    answer: bytes
    after: tuple[Asked, ...]

    @property
    def status(self) -> RelayStatus | None:
        """The last relay read after the write."""
        words = [one for one in self.after if one.di == STATUS_WORD_3]
        return RelayStatus(int.from_bytes(words[-1].data, "little"), words[-1].at) if words else None

    @property
    def refusal(self) -> ErrorReply | None:
        """The meter's no; None for a yes, and for silence."""
        message = messages.from_frame(parse(self.answer)) if self.answer else None
        return message if isinstance(message, ErrorReply) else None


def signed(deed: Deed, told_ticket: Mapping[str, Any], key: Ed25519PrivateKey) -> dict[str, Any]:
    """The evidence as it is handed in; JSON-ready. told_ticket: as it was handed out."""
    body = {
        "format": FORMAT,
        "ticket": dict(told_ticket),
        "written_at": _written(deed.written_at),
        "left": deed.left,
        "clock_offset_ms": deed.clock_offset_ms,
        "before": [_told(one) for one in deed.before],
        "answer": deed.answer.hex(" "),
        "after": [_told(one) for one in deed.after],
    }
    return body | {"signature": key.sign(_SIGNED_AS + canonical(body)).hex()}


def read(told: Mapping[str, Any], gateway: str) -> Deed:
    """What was done, if the ticket in it was signed with this key and the whole by the ticket's machine, and
    every frame is what it should be. NoEvidence."""
    try:
        body = {name: value for name, value in told.items() if name != "signature"}
        spelled = canonical(body)
        if body["format"] != FORMAT or len(spelled) > LARGEST:
            raise NoEvidence("it is no evidence of a direct line 不是直连证据")
        ticket = tickets.read(body["ticket"], gateway)
        machine = Ed25519PublicKey.from_public_bytes(bytes.fromhex(ticket.machine))
        machine.verify(bytes.fromhex(told["signature"]), _SIGNED_AS + spelled)
        before, after = (tuple(_asked(one, ticket) for one in body[part]) for part in ("before", "after"))
        offset = body["clock_offset_ms"]
        deed = Deed(
            ticket,
            _instant(body["written_at"]),
            str(body["left"]),
            None if offset is None else int(offset),
            before,
            _answer(bytes.fromhex(body["answer"]), ticket),
            after,
        )
        _hold_together(deed)
    except InvalidSignature as error:
        raise NoEvidence("it was not signed by the ticket's machine, or was changed 证据签名无效") from error
    except NoTicket as error:
        raise NoEvidence(str(error)) from error
    except (RemoteProtocolError, *_MISSHAPEN) as error:
        raise NoEvidence(f"the evidence is not whole 证据残缺: {type(error).__name__} {error}") from error
    return deed


def _hold_together(deed: Deed) -> None:
    ticket = deed.ticket
    if deed.left not in (WHOLE, PERHAPS, NOTHING) or len(deed.before) + len(deed.after) > MOST_READS:
        raise NoEvidence("the evidence is not whole 证据残缺: left, before or after")
    if not ticket.since <= deed.written_at < ticket.until:
        raise NoEvidence("written outside the ticket's hours 下发时间不在操作票有效期内")
    if any(one.at <= deed.written_at for one in deed.after):
        raise NoEvidence("what was read afterwards is older than the write 读取早于下发")
    if any(one.di == STATUS_WORD_3 and len(one.data) != 2 for one in deed.after):
        raise NoEvidence("a status word 3 has two bytes 状态字3长度有误")


def _asked(told: Mapping[str, Any], ticket: Ticket) -> Asked:
    question, answer = (bytes.fromhex(told[name]) for name in ("question", "answer"))
    asked, said = parse(question), parse(answer)
    if asked.control not in READS or asked.address != ticket.address:
        raise ValueError("a question that is no read of this meter")
    if not said.from_meter or said.is_error or said.address != asked.address or not may_answer(said, asked):
        raise ValueError("an answer that is none to its question")
    return Asked(_instant(told["at"]), question, answer)


def _answer(raw: bytes, ticket: Ticket) -> bytes:
    if raw and not is_answer(parse(raw), ticket):
        raise ValueError("an answer to something else")
    return raw


def is_answer(said: Frame, ticket: Ticket) -> bool:
    """Is this the meter's answer to a relay command?"""
    return said.from_meter and said.function == RELAY_CONTROL and said.address == ticket.address


def _told(one: Asked) -> dict[str, str]:
    return {"at": _written(one.at), "question": one.question.hex(" "), "answer": one.answer.hex(" ")}


def _written(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()


def _instant(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError("an instant without its zone")
    return at.astimezone(UTC)
