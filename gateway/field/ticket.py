"""A ticket: the gateway's leave to put one control frame on a direct line, by one machine, within a window.

It holds the frame with its password masked, and a commitment to the whole frame that takes long to try: so
whoever uses it needs the password, and can send no other frame with it. JSON in one spelling, signed with
Ed25519. Both sides use this file: the gateway makes tickets, the machine at the meter reads them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gateway.clock import to_device
from gateway.command import GATED_AS_TRIP, Action, canonical
from gateway.errors import InputError
from protocols.dlt645 import frame as frames
from protocols.dlt645.description import describe
from protocols.errors import RemoteProtocolError

FORMAT: Final = "lingdian relay ticket 1"

LARGEST: Final = 8192
"""Bytes; an honest one has a thousand."""

LONGEST_TRIP: Final = timedelta(minutes=10)
"""No frame that takes power away is good for longer, whoever has signed it."""

CODES: Final[Mapping[Action, str]] = {Action.TRIP: "1a", Action.CLOSE: "1c", Action.PERMIT_CLOSE: "1b"}
"""What may be ticketed, as N1 of 1CH."""

RELAY_CONTROL: Final = 0x1C

_COST: Final = 2**16
"""scrypt's n, with r = 8: 64 MiB and a good part of a second for each password that is tried."""

_SIGNED_AS: Final = b"lingdian relay ticket\0"
_MASKED: Final = "**"
_PASSWORD_AT: Final = range(11, 14)
_MASK: Final = 0x33
_PASSWORD: Final = re.compile("[0-9]{6}")
_MISSHAPEN: Final = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)


class NoTicket(InputError):
    """It is no ticket of this gateway, or not for this: nothing was sent."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """What the gateway allows. Instants are UTC; `until` is the frame's own deadline."""

    id: UUID
    command: UUID
    action: Action
    meter: str
    """asset number"""
    numbers: tuple[str, ...]
    """what the meter may tell as its own number (04000402)"""
    address: str
    profile: str
    """of the meter, under which its password may stand in the settings"""
    frame: str
    """the 645 frame as hex, its password and checksum masked"""
    salt: bytes
    commitment: bytes
    """`committed` of the whole frame"""
    since: datetime
    until: datetime
    machine: str
    """public key of the one machine that may use it, as hex"""
    issued_to: str

    def body(self) -> dict[str, Any]:
        """What is signed; JSON-ready."""
        return {
            "format": FORMAT,
            "ticket": str(self.id),
            "command": str(self.command),
            "action": self.action.value,
            "meter": self.meter,
            "numbers": list(self.numbers),
            "address": self.address,
            "profile": self.profile,
            "frame": self.frame,
            "salt": self.salt.hex(),
            "commitment": self.commitment.hex(),
            "from": _written(self.since),
            "until": _written(self.until),
            "machine": self.machine,
            "issued_to": self.issued_to,
        }


def signed(ticket: Ticket, key: Ed25519PrivateKey) -> dict[str, Any]:
    """The ticket as it is handed out; JSON-ready."""
    body = ticket.body()
    return body | {"signature": key.sign(_SIGNED_AS + canonical(body)).hex()}


def parsed(raw: bytes) -> dict[str, Any]:
    """The JSON object of a file. NoTicket."""
    try:
        told = json.loads(raw.decode("utf-8")) if len(raw) <= LARGEST else None
    except _MISSHAPEN:
        told = None
    if not isinstance(told, dict):
        raise NoTicket("this file is no ticket 不是操作票: take the one that `lingdian relay ticket` wrote")
    return told


def read(told: Mapping[str, Any], gateway: str) -> Ticket:
    """The ticket, if it was signed with this key (the gateway's public one, as hex) and holds together.
    NoTicket."""
    check_signature(told, gateway)
    try:
        ticket = Ticket(
            id=UUID(told["ticket"]),
            command=UUID(told["command"]),
            action=Action(told["action"]),
            meter=str(told["meter"]),
            numbers=tuple(str(one) for one in told["numbers"]),
            address=str(told["address"]),
            profile=str(told["profile"]),
            frame=str(told["frame"]),
            salt=bytes.fromhex(told["salt"]),
            commitment=bytes.fromhex(told["commitment"]),
            since=_instant(told["from"]),
            until=_instant(told["until"]),
            machine=str(told["machine"]),
            issued_to=str(told["issued_to"]),
        )
    except _MISSHAPEN as error:
        raise NoTicket(f"the ticket is not whole 操作票残缺: {type(error).__name__} {error}") from error
    check_frame(ticket)
    return ticket


def check_signature(told: Mapping[str, Any], gateway: str) -> None:
    """NoTicket unless every word of it was signed with this key."""
    try:
        body = {name: value for name, value in told.items() if name != "signature"}
        known = Ed25519PublicKey.from_public_bytes(bytes.fromhex(gateway))
        known.verify(bytes.fromhex(told["signature"]), _SIGNED_AS + canonical(body))
        if body["format"] != FORMAT:
            raise ValueError(body["format"])
    except (InvalidSignature, *_MISSHAPEN) as error:
        raise NoTicket(
            "the ticket was not signed by the gateway whose key is pinned here, or was changed since"
            " 操作票签名无效: ask for a new one, or compare keys with `lingdian relay ticket-key`"
        ) from error


def check_frame(ticket: Ticket) -> None:
    """NoTicket unless the frame in it is the one that its words promise: verb, address, deadline."""
    said = _said(ticket)
    wanted = (CODES.get(ticket.action), ticket.address, f"{to_device(ticket.until):%y%m%d%H%M%S}")
    if None in wanted or said != wanted:
        raise NoTicket(f"the ticket's frame does not say what the ticket says 帧与操作票不符: {said}")
    if ticket.action in GATED_AS_TRIP and ticket.until - ticket.since > LONGEST_TRIP:
        raise NoTicket("a trip's ticket is good for ten minutes at most 跳闸操作票有效期过长")


def _said(ticket: Ticket) -> tuple[object, object, object]:
    """Verb, address and deadline of the masked frame, whatever password is put in."""
    try:
        frame = frames.parse(_with_password(ticket.frame, "000000"))
    except (RemoteProtocolError, *_MISSHAPEN) as error:
        raise NoTicket(f"the ticket's frame is none 操作票中的帧无效: {error}") from error
    told = describe(frame) if frame.control == RELAY_CONTROL else {}
    return told.get("relay_cmd"), frame.address, told.get("valid_until_yymmddhhmmss")


def filled(ticket: Ticket, password: str) -> bytes:
    """The whole frame. NoTicket where it is not the one that the gateway has committed to: a wrong password.
    Takes a good part of a second."""
    if not _PASSWORD.fullmatch(password):
        raise NoTicket("a meter's password is six digits 密码须为六位数字")
    raw = _with_password(ticket.frame, password)
    check_commitment(ticket, raw)
    return raw


def check_commitment(ticket: Ticket, raw: bytes) -> None:
    """NoTicket unless `raw` is the frame whose hash the gateway has kept."""
    if committed(raw, ticket.salt) != ticket.commitment:
        raise NoTicket(
            "with this password it is not the frame that the gateway has signed 密码与操作票不符: give the"
            " password that the gateway has for this meter"
        )


def committed(raw: bytes, salt: bytes) -> bytes:
    """What a ticket tells of a frame: slow on purpose, since a password has six digits."""
    return hashlib.scrypt(raw, salt=salt, n=_COST, r=8, p=1, maxmem=_COST * 2048, dklen=32)


def _with_password(shown: str, password: str) -> bytes:
    told = shown.split()
    hidden = [place for place, one in enumerate(told) if one == _MASKED]
    if hidden != [*_PASSWORD_AT, len(told) - 2]:
        raise ValueError("it hides something else than a password")
    raw = bytearray(bytes.fromhex("".join("00" if one == _MASKED else one for one in told)))
    for place, byte in zip(_PASSWORD_AT, bytes.fromhex(password)[::-1], strict=True):
        raw[place] = (byte + _MASK) & 0xFF
    raw[-2] = sum(raw[:-2]) & 0xFF
    return bytes(raw)


def _written(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()


def _instant(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError("an instant without its zone")
    return at.astimezone(UTC)
