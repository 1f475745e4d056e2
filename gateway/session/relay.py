"""The way to a meter's relay: `gateway.door` over the sessions of this process, and the only caller of what
builds control frames.

A door holds its terminal's channel for the whole of a command's sequence. Reads may be asked again; a control
frame leaves once, at the very moment of its last check, or the link is ended. What comes back counts only if
it is this meter's answer to this frame: all else is silence, for the frame may have been obeyed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Final
from weakref import WeakKeyDictionary

import structlog

from gateway.clock import Clock, from_device, to_device
from gateway.command import RESTORING, Action, MeterFacts, Why
from gateway.door import Accepted, Answer, NotWritten, Prepared, Sealing, Silence, Trouble
from gateway.errors import LingdianError, LinkClosed
from gateway.session import relay_words
from gateway.session.channel import Urgency
from gateway.session.conversation import Outcome, Unsent
from gateway.session.hold import Hold
from gateway.session.meter import MeterRefusal, told_by
from gateway.session.reading_ports import ReadingPorts
from gateway.session.registry import WORKER, Registry
from gateway.session.relay_reads import Known, RelayReads
from gateway.session.settings import MeterProfile
from gateway.session.terminal import TerminalSession
from protocols.dlt645 import control, frame
from protocols.dlt645.connection import Answered as MeterAnswered
from protocols.dlt645.connection import Master as MeterLine
from protocols.dlt645.connection import Refused as MeterRefused
from protocols.dlt645.connection import Unmatched
from protocols.dlt645.control_messages import RelayCommand, RelayReply, SealedCommand, SecurityReply, Verb
from protocols.dlt645.fields import Authority
from protocols.errors import LocalProtocolError, RemoteProtocolError
from protocols.permit import Permit
from protocols.q_gdw376.messages import CARRIER_PORT

log = structlog.get_logger()

VERBS: Final[dict[Action, Verb]] = {
    Action.TRIP: Verb.TRIP,
    Action.CLOSE: Verb.CLOSE,
    Action.PERMIT_CLOSE: Verb.PERMIT_CLOSE,
    Action.KEEP_POWER: Verb.KEEP_POWER,
    Action.RELEASE_KEEP_POWER: Verb.RELEASE_KEEP_POWER,
    Action.ALARM: Verb.ALARM,
    Action.CLEAR_ALARM: Verb.CLEAR_ALARM,
}

SWITCHABLE: Final = "dlt645-2007"
"""The older edition has no relay control."""

TURNS_TO_CLEAR: Final = 3
"""Turns of the loop in which what others have written may leave before a control frame."""

HERE_S: Final = 1.0
"""So long the set of terminals that are here is not counted anew, unless one has come; and never while none
comes or goes: with 10,000 of them that keeps the loop for ten milliseconds."""


class RelayDoors:
    """Satisfies `gateway.door.Doors`. Built once."""

    def __init__(
        self,
        registry: Registry,
        clock: Clock,
        sealing: Sealing | None = None,
        ports: ReadingPorts | None = None,
    ) -> None:
        """sealing: None where no meter is sealed. ports: for terminals that are to pause their reading."""
        self._registry = registry
        self._clock = clock
        self._sealing = sealing
        self._ports = ports
        self._known: WeakKeyDictionary[TerminalSession, Known] = WeakKeyDictionary()
        self._here: frozenset[int] | None = None
        self._counted_at = 0.0
        self._changes = -1
        registry.on_login(self._logged_in)

    def _logged_in(self, session: TerminalSession) -> None:
        self._here = None

    def here(self) -> frozenset[int]:
        """See `Doors`."""
        now = self._clock.monotonic()
        changes = self._registry.changes
        if self._here is None or (changes != self._changes and now - self._counted_at > HERE_S):
            self._here = frozenset(
                session.assets.terminal_id for session in self._registry.sessions() if session.alive
            )
            self._counted_at, self._changes = now, changes
        return self._here

    @asynccontextmanager
    async def open(self, facts: MeterFacts) -> AsyncIterator[RelayDoor | None]:
        """See `Doors`. A close passes all else that waits for the terminal."""
        async with AsyncExitStack() as stack:
            stack.enter_context(self._registry.turnstile.giving_way())
            yield await self._open(facts, stack)

    async def _open(self, facts: MeterFacts, stack: AsyncExitStack) -> RelayDoor | None:
        session = self._registry.session(facts.terminal)
        if session is None or session.assets.terminal_id != facts.terminal_id:
            self._here = None
            return None
        closes = any(one.action in RESTORING for one in facts.open)
        try:
            hold = await stack.enter_async_context(
                session.hold(Urgency.RELAY_CLOSE if closes else Urgency.RELAY)
            )
            if self._ports is not None and session.parts.settings.relay_pauses_reading:
                await self._pause(self._ports, session, hold, facts.port, stack)
        except LinkClosed:
            self._here = None
            return None
        return RelayDoor(session, hold, facts, self._known.setdefault(session, Known()), self._sealing)

    @staticmethod
    async def _pause(
        ports: ReadingPorts, session: TerminalSession, hold: Hold, port: int, stack: AsyncExitStack
    ) -> None:
        if port == CARRIER_PORT and await ports.pause(session, hold, port):
            stack.push_async_callback(ports.resume, session, hold, port)


def prepare_plain(
    facts: MeterFacts, meter: MeterProfile, action: Action, deadline: datetime
) -> Prepared | Trouble:
    """The frame for a meter that is switched in plain, with its password: nobody has to be asked for it.
    deadline: by the meter's own clock."""
    verb, wall = VERBS[action], to_device(deadline).replace(microsecond=0)
    if not meter.level or facts.protocol != SWITCHABLE:
        return Trouble(Why.NOT_SUPPORTED, f"{facts.protocol}, {facts.profile}: no 1CH")
    if meter.sealed:
        return Trouble(Why.SECURITY_MODULE, "a sealed frame is made while the meter is talked to")
    if not meter.password:
        return Trouble(Why.NOT_AUTHENTICATED, f"no password is set for level {meter.level}")
    try:
        authority = Authority(meter.level, meter.password, meter.operator)
        command = RelayCommand(facts.address, verb, authority, wall)
        return _prepared(control.build_control(command, _permit(facts, verb)), wall, ())
    except LocalProtocolError as error:
        return Trouble(Why.NOT_SUPPORTED, str(error))


def _permit(facts: MeterFacts, verb: Verb) -> Permit:
    return Permit(control.action(verb), facts.address, f"relay command for {facts.meter}")


class RelayDoor(RelayReads):
    """Satisfies `gateway.door.Door`. Made by `RelayDoors.open`."""

    def __init__(
        self, session: TerminalSession, hold: Hold, facts: MeterFacts, known: Known, sealing: Sealing | None
    ) -> None:
        super().__init__(session, hold, facts, known)
        self._sealing = sealing
        self._profile = session.parts.settings.meter(facts.profile)
        self._handed_over: set[bytes] = set()
        self._hearing: asyncio.Task[Answer] | None = None

    @property
    def worker(self) -> str:
        """See `Door`."""
        return WORKER

    @property
    def generation(self) -> int:
        """See `Door`."""
        return self._session.generation

    @property
    def contested(self) -> bool:
        """See `Door`."""
        return self._session.contested

    # what controls

    async def prepare(self, action: Action, deadline: datetime) -> Prepared | Trouble:
        """See `Door`."""
        facts, meter = self._facts, self._profile
        if not meter.sealed or facts.protocol != SWITCHABLE:
            return prepare_plain(facts, meter, action, deadline)
        verb, wall = VERBS[action], to_device(deadline).replace(microsecond=0)
        try:
            return await self._sealed(verb, wall, _permit(facts, verb))
        except LocalProtocolError as error:
            return Trouble(Why.NOT_SUPPORTED, str(error))

    async def _sealed(self, verb: Verb, wall: datetime, permit: Permit) -> Prepared | Trouble:
        """Authenticate (03H), and have the command sealed for that session."""
        if self._sealing is None:
            return Trouble(Why.SECURITY_MODULE, "none is configured")
        number = await self._number()
        if isinstance(number, Trouble):
            # A close is tried all the same: the number of the nameplate is what the chip was made for.
            if number.why is Why.TERMINAL_ABSENT or not relay_words.is_number(self._facts.meter):
                return number
            number = self._facts.meter
        address, operator = self._facts.address, self._profile.operator
        factor = control.diversifier(number)
        try:
            challenge = await self._sealing.authenticate(factor)
            request = control.authentication(address, operator, challenge.cipher, challenge.random, number)
            session = await self._authenticate(
                control.build_security(
                    request, Permit(control.SECURITY_ACTION, address, "identity authentication")
                )
            )
            if isinstance(session, Trouble):
                return session
            reply, tried = session
            made = await self._sealing.seal(
                control.control_plaintext(verb, wall), reply.value("random"), reply.value("esam"), factor
            )
        except LingdianError as error:
            return Trouble(Why.SECURITY_MODULE, str(error))
        authority = control.sealed_authority(operator, wants_word=self._profile.status_word)
        block = control.sealed_block(made.cipher, made.mac, self._profile.sealed_order)
        command = SealedCommand(address, authority, block)
        return _prepared(control.build_sealed_control(command, verb, permit), wall, tried)

    async def _authenticate(self, asked: frame.Frame) -> tuple[SecurityReply, tuple[str, ...]] | Trouble:
        """The meter's random 2 and chip number, with both frames for the evidence."""
        line = _line()
        content = line.send_control(asked, 0.0)
        answer = await self._forward(content, only_reads=False)
        if isinstance(answer, MeterRefusal):
            return relay_words.trouble(answer)
        event = _heard(line, answer)
        if isinstance(event, MeterRefused):
            said = relay_words.refused(event.error, answer)
            return Trouble(said.why, ", ".join(said.words))
        reply = event.reply if isinstance(event, MeterAnswered) else None
        if not isinstance(reply, SecurityReply) or not (reply.value("random") and reply.value("esam")):
            return Trouble(Why.METER_SILENT, f"no answer to the authentication: {answer.hex(' ')}")
        return reply, (content.hex(" "), answer.hex(" "))

    async def write(
        self, prepared: Prepared, last_check: Callable[[], Trouble | None]
    ) -> Awaitable[Answer] | NotWritten:
        """See `Door`. A frame is handed over once: a second time it is silence, and stays here."""
        line = _line()
        try:
            request = self._request(self._own(prepared, line))
        except (LocalProtocolError, RemoteProtocolError) as error:
            return NotWritten(Trouble(Why.NOT_SUPPORTED, str(error)))
        if prepared.sha256 in self._handed_over:
            return _at_once(Silence("this very frame has left already; it is not repeated"))
        for _ in range(TURNS_TO_CLEAR):
            if not self._hold.unsent:
                break
            await asyncio.sleep(0)
        objections: list[Trouble] = []

        def allowed() -> bool:
            trouble = last_check()
            if trouble is not None:
                objections.append(trouble)
            return trouble is None

        sent = self._hold.hand_over(request, allowed, reply_timeout=self._patience_s)
        if objections:
            return NotWritten(objections[0])
        if isinstance(sent, Unsent) and sent.certain:
            return NotWritten(Trouble(Why.TERMINAL_ABSENT, sent.detail))
        self._handed_over.add(prepared.sha256)
        if isinstance(sent, Unsent):
            return _at_once(Silence(f"the link was ended: {sent.detail}"))
        self._hearing = asyncio.create_task(_hear(sent, line, prepared.frame), name="relay answer")
        return self._hearing

    def _own(self, prepared: Prepared, line: MeterLine) -> bytes:
        """The bytes of a frame that is what it says, and for this meter. LocalProtocolError otherwise."""
        asked = frame.parse(prepared.frame)
        if asked.address != self._facts.address:
            raise LocalProtocolError(f"a frame for {asked.address} at the door of {self._facts.address}")
        content = line.send_control(asked, 0.0)
        if hashlib.sha256(content).digest() != prepared.sha256:
            raise LocalProtocolError("the frame is not the one whose hash is known")
        return content


def _line() -> MeterLine:
    """Nothing is repeated on it, and nothing waits in it."""
    return MeterLine(reply_timeout=0.0, repeats=0, lead_in=0)


def _prepared(asked: frame.Frame, wall: datetime, tried: tuple[str, ...]) -> Prepared:
    raw = frame.build(asked)
    return Prepared(raw, hashlib.sha256(raw).digest(), relay_words.shown(raw), from_device(wall), tried)


def _at_once(answer: Answer) -> Awaitable[Answer]:
    known: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    known.set_result(answer)
    return known


async def _hear(sent: asyncio.Future[Outcome], line: MeterLine, asked: bytes) -> Answer:
    """What came of a control frame that has left."""
    try:
        answer = told_by(await sent)
    except LinkClosed:
        return Silence("the link ended before an answer")
    if isinstance(answer, MeterRefusal):
        return Silence(answer.detail)
    event, told = _heard(line, answer), relay_words.quoted(answer, asked)
    if isinstance(event, MeterRefused):
        return replace(relay_words.refused(event.error, answer), frame=told)
    if isinstance(event, MeterAnswered) and isinstance(event.reply, RelayReply):
        return Accepted(event.reply.done, told)
    return Silence(f"what came is not its answer: {told}")


def _heard(line: MeterLine, answer: bytes) -> MeterAnswered | MeterRefused | None:
    """The meter's answer among its bytes; None where only others', late or damaged ones are in them."""
    line.receive_data(answer, 0.0)
    while (event := line.next_event()) is not None:
        if isinstance(event, MeterAnswered | MeterRefused):
            return event
        if isinstance(event, Unmatched):
            log.warning("a meter's frame that nobody waits for", frame=event.raw.hex(" "))
    return None
