"""One simulated meter with all that is needed to switch it: frames, permits, a witness, a clock."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta

from protocols.dlt645 import control, frame, messages
from protocols.dlt645.control_messages import (
    RelayCommand,
    RelayReply,
    SealedCommand,
    SecurityReply,
    SecurityRequest,
    Verb,
)
from protocols.dlt645.fields import Authority
from protocols.dlt645.frame import Frame
from protocols.dlt645.messages import ErrorReply, ReadReply, ReadRequest
from protocols.permit import Permit
from simulator.clock import seconds
from simulator.control import Setup
from simulator.district import District, MeterPlan
from simulator.ledger import Entry
from simulator.meter import Meter

DAY = date(2026, 11, 23)
NOON = datetime(2026, 11, 24, 12, 0)
DISTRICT = District(7, 1, 60, DAY)
OPERATOR = "00000001"

Sealing = Callable[[bytes, bytes, bytes, bytes], tuple[bytes, bytes]]
"""plaintext, random 2, ESAM, diversifier -> cipher, MAC."""


def plan_of(kind: str = "built_in") -> MeterPlan:
    plan = next(meter for _, meter in DISTRICT.meters() if meter.meter_class == "single_phase")
    return replace(plan, relay_kind=kind, key=plan.key | 1)


class Household:
    """`now` is the right time; `entries` all that its meter witnessed."""

    def __init__(self, setup: Setup | None = None, kind: str = "built_in") -> None:
        self.entries: list[Entry] = []
        self.meter = Meter(plan_of(kind), setup=setup or Setup(), ledger=self.entries.append)
        self.meter.load_ma = 3_000
        self.address = self.meter.plan.address
        self.now = NOON
        self._randoms = itertools.count(1)

    def pass_time(self, **time: float) -> None:
        self.now += timedelta(**time)

    def say(self, said: Frame) -> messages.Message | None:
        """Say one frame; the answer, None for silence."""
        return self.say_raw(frame.build(said))

    def say_raw(self, raw: bytes) -> messages.Message | None:
        self.meter.receive_data(raw, seconds(self.now))
        answer = self.meter.data_to_send()
        return messages.from_frame(frame.parse(answer)) if answer else None

    def command(
        self,
        verb: Verb,
        *,
        deadline: datetime | None = None,
        minutes: int = 0,
        level: str = "02",
        password: str = "123456",
        address: str = "",
    ) -> Frame:
        """A plain 1CH, by default valid for ten minutes by the right time."""
        address = address or self.address
        command = RelayCommand(
            address,
            verb,
            Authority(level, password, OPERATOR),
            deadline or self.now + timedelta(minutes=10),
            minutes,
        )
        return control.build_control(command, Permit(control.action(verb), address, "a test"))

    def switch(self, verb: Verb, minutes: int = 0) -> RelayReply | ErrorReply:
        answer = self.say(self.command(verb, minutes=minutes))
        assert isinstance(answer, RelayReply | ErrorReply)
        return answer

    def secured(self, request: SecurityRequest) -> messages.Message | None:
        permit = Permit(control.SECURITY_ACTION, request.address, "a test")
        return self.say(control.build_security(request, permit))

    def authenticate(self, cipher_1: Callable[[bytes, bytes], bytes]) -> tuple[bytes, bytes] | ErrorReply:
        """Random 2 and ESAM. cipher_1: of random 1 and diversifier."""
        random = next(self._randoms).to_bytes(8, "big")
        cipher = cipher_1(random, control.diversifier(self.address))
        answer = self.secured(control.authentication(self.address, OPERATOR, cipher, random, self.address))
        if isinstance(answer, SecurityReply):
            return answer.value("random"), answer.value("esam")
        assert isinstance(answer, ErrorReply)
        return answer

    def sealed(
        self, verb: Verb, session: tuple[bytes, bytes], seal: Sealing, *, spoil: int = 0, **plain: datetime
    ) -> Frame:
        """A sealed 1CH for an authenticated session. spoil: flips bits of the MAC's last byte."""
        deadline = plain.get("deadline", self.now + timedelta(minutes=10))
        told = control.control_plaintext(verb, deadline)
        cipher, mac = seal(told, *session, control.diversifier(self.address))
        mac = mac[:-1] + bytes([mac[-1] ^ spoil])
        command = SealedCommand(
            self.address, control.sealed_authority(OPERATOR), control.sealed_block(cipher, mac)
        )
        permit = Permit(control.action(verb), self.address, "a test")
        return control.build_sealed_control(command, verb, permit)

    def read(self, di: str) -> bytes:
        answer = self.say(messages.to_frame(ReadRequest(self.address, di)))
        assert isinstance(answer, ReadReply), answer
        return answer.data

    @property
    def word(self) -> set[int]:
        """Bits of status word 3 that are set, as a master reads it."""
        word = int.from_bytes(self.read("04000503"), "little")
        return {bit for bit in range(16) if word >> bit & 1}

    def moves(self) -> list[tuple[float, str]]:
        """Each move of the relay: seconds after NOON, and which."""
        return [(e.at - seconds(NOON), e.decision) for e in self.entries if e.what == "moved"]


def digest(said: Frame) -> str:
    return hashlib.sha256(frame.build(said)).hexdigest()
