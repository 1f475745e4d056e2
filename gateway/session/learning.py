"""What is asked of a terminal about itself: version and buffers, clock, archive. Protocol words stay in
here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from gateway.clock import to_device
from gateway.errors import InputError, LinkClosed, StorageError
from gateway.model import ArchiveRecord
from gateway.session import asking
from gateway.session.channel import Urgency
from gateway.session.clockwatch import ClockCheck, refuse_across_midnight
from gateway.session.conversation import Outcome
from protocols.errors import LocalProtocolError
from protocols.permit import Permit
from protocols.q_gdw376 import messages
from protocols.q_gdw376.connection import Answered, Confirmed, Denied, Silent

if TYPE_CHECKING:
    from gateway.session.terminal import TerminalSession

log = structlog.get_logger()

LAST_SEQUENCE: Final = 2040
"""Of an archive (AFN04 F10)."""

EMPTY_SEQUENCES: Final = 128
"""So many sequence numbers in a row without a record are taken for the end of an archive."""

SAMPLE: Final = 16
"""Archive records that are looked at again at each login: another device in this terminal's place differs in
nearly all of them, and a whole archive would take dozens of exchanges."""

LEARN_TIMEOUT_S: Final = 15.0
"""For what a terminal knows without asking a meter. A terminal that never answers must not hold up others."""

_Value = TypeVar("_Value")


def value_of(outcome: Outcome, kind: type[_Value]) -> _Value | None:
    """The first value of that kind in an answer; None where there is none."""
    if isinstance(outcome, Answered):
        for frame in outcome.frames:
            for unit in messages.decode(frame):
                if isinstance(unit.value, kind):
                    return unit.value
    return None


def denial(outcome: Outcome) -> str:
    """Why it was denied, for a person: vendors use ERR codes of their own, so the number is shown."""
    if isinstance(outcome, Denied):
        for unit in messages.decode(outcome.frame):
            if isinstance(unit.value, messages.UnitConfirm):
                errors = sorted({error for _, _, error in unit.value.results if error})
                return "ERR " + ", ".join(f"{error:02X}" for error in errors)
        return "all denied"
    return "no answer" if isinstance(outcome, Silent) else "an answer of another kind"


async def learn(session: TerminalSession) -> None:
    """At login: the clock, AFN09 F2, the archive, AFN09 F1. A denial is an answer, and so is silence about
    AFN09, which some terminals do not know. Silence about clock or archive ends it, and the next `ready`
    tries again. Raises LinkClosed."""
    async with session.parts.learning_at_once:
        if not session.clock_told:
            outcome = await _read_clock(session, Urgency.LEARN, LEARN_TIMEOUT_S)
            if isinstance(outcome, Silent):
                log.info("terminal is silent about itself", terminal=session.address)
                return
        await _keep_clock(session)
        ports = value_of(await _once(session, messages.read_ports()), messages.TerminalPorts)
        if ports is not None:
            session.rx_buffer = ports.rx_buffer or None
            session.tx_buffer = ports.tx_buffer or None
        session.learned = await _learn_archive(session)
        if session.learned and session.version is None:
            version = await _once(session, messages.read_version())
            session.version = _one_of_all(value_of(version, messages.TerminalVersion))
    await correct_clock(session)


@lru_cache(maxsize=1024)
def _one_of_all(version: messages.TerminalVersion | None) -> messages.TerminalVersion | None:
    """The same object for equal versions: of tens of thousands of terminals most are of a few kinds."""
    return version


async def _once(session: TerminalSession, request: messages.Request) -> Outcome:
    """Ask what can be done without: briefly, and without repeats."""
    return await session.exchange(request, Urgency.LEARN, reply_timeout=LEARN_TIMEOUT_S, repeated=False)


async def _learn_archive(session: TerminalSession) -> bool:
    """Read the archive if it was never read, else look at some of it again. False after silence."""
    held = session.assets.archive
    if held is not None:
        sample = sorted(held)[:: max(1, len(held) // SAMPLE)][:SAMPLE]
        outcome = await _archive_part(session, sample or [1], Urgency.LEARN)
        if isinstance(outcome, Silent):
            return False
        found = _entries(outcome)
        same = all(held.get(pn) == address for _, pn, address in found if pn)
        if found and same:
            session.trust_archive(session.assets.archive)
            return True
        if found:
            log.warning("the archive is not what it was; read anew", terminal=session.address)
    try:
        await read_archive(session, Urgency.LEARN)
    except InputError as error:
        log.warning("the archive is not known", terminal=session.address, why=str(error))
        if isinstance(error, ArchiveSilent):
            return False
        session.trust_archive(None)
    return True


class ArchiveSilent(InputError):
    """The terminal did not answer when asked for its archive."""


async def archive_records(session: TerminalSession, urgency: Urgency) -> list[ArchiveRecord]:
    """See `TerminalSession.archive_records`."""
    records = {
        record.sequence: _ours(record)
        for outcome in await _archive(session, urgency)
        for frame in outcome.frames
        for unit in messages.decode(frame)
        if isinstance(unit.value, messages.Archive)
        for record in unit.value.records
        if record.pn
    }
    return [records[sequence] for sequence in sorted(records)]


async def _archive(session: TerminalSession, urgency: Urgency) -> list[Answered]:
    """The whole archive, as answered part by part. Sequence numbers need not be those of the points, so it
    ends only where all points of the assets were found, or a long stretch is empty."""
    wanted = {point.pn for point in session.assets.points}
    highest = max(wanted, default=0)
    step = asking.archive_records_that_fit(session.tx_buffer)
    answers: list[Answered] = []
    empty = 0
    for start in range(1, LAST_SEQUENCE + 1, step):
        sequences = range(start, min(start + step, LAST_SEQUENCE + 1))
        outcome = await _archive_part(session, sequences, urgency)
        if isinstance(outcome, Silent):
            raise ArchiveSilent(f"terminal {session.address} does not answer when asked for its archive")
        if start == 1 and not isinstance(outcome, Answered):
            raise InputError(f"terminal {session.address} does not give its archive: {denial(outcome)}")
        found = {pn for _, pn, _ in _entries(outcome) if pn}
        if found and isinstance(outcome, Answered):
            answers.append(outcome)
            wanted -= found
            empty = 0
            continue
        empty += step
        if start > highest and (not wanted or empty >= EMPTY_SEQUENCES):
            break
    return answers


async def _archive_part(session: TerminalSession, sequences: Iterable[int], urgency: Urgency) -> Outcome:
    return await session.exchange(
        messages.read_archive(list(sequences)), urgency, reply_timeout=LEARN_TIMEOUT_S
    )


def _entries(outcome: Outcome) -> list[tuple[int, int, str]]:
    if not isinstance(outcome, Answered):
        return []
    return [entry for frame in outcome.frames for entry in asking.archive_entries(frame)]


def _ours(record: messages.ArchiveRecord) -> ArchiveRecord:
    return ArchiveRecord(
        record.sequence,
        record.pn,
        record.port,
        record.baud,
        record.protocol,
        record.address,
        record.tariffs,
        record.collector,
        record.user_class,
        record.password,
        record.integer_digits,
        record.decimal_digits,
    )


async def read_archive(session: TerminalSession, urgency: Urgency) -> dict[int, str]:
    """See `TerminalSession.read_archive`."""
    archive = {
        pn: address
        for outcome in await _archive(session, urgency)
        for _, pn, address in _entries(outcome)
        if 1 <= pn <= LAST_SEQUENCE
    }
    session.trust_archive(archive)
    try:
        await session.parts.store.save_archive(session.assets.terminal_id, archive, session.parts.clock.now())
    except StorageError as error:
        log.warning("the archive was read but not kept", terminal=session.address, why=str(error))
    return archive


async def write_archive(session: TerminalSession, records: Sequence[ArchiveRecord]) -> None:
    """See `TerminalSession.write_archive`."""
    step = messages.ARCHIVE_RECORDS_A_FRAME
    permit = Permit("376 04 f10", session.address, "archive records given by a person")
    for start in range(0, len(records), step):
        part = [messages.ArchiveRecord(**asdict(record)) for record in records[start : start + step]]
        try:
            request = messages.write_archive(part, permit=permit)
        except LocalProtocolError as error:
            raise InputError(f"an archive record cannot be sent: {error}") from error
        outcome = await session.exchange(request, Urgency.PERSON)
        if not isinstance(outcome, Confirmed):
            raise InputError(
                f"terminal {session.address} did not take archive records {part[0].sequence} to "
                f"{part[-1].sequence}: {denial(outcome)}; read the archive back"
            )


async def read_clock(session: TerminalSession, urgency: Urgency) -> ClockCheck | None:
    """See `TerminalSession.read_clock`."""
    outcome = await _read_clock(session, urgency, None)
    return outcome if isinstance(outcome, ClockCheck) else None


async def _read_clock(
    session: TerminalSession, urgency: Urgency, reply_timeout: float | None
) -> ClockCheck | Outcome:
    clock = session.parts.clock
    outcome = await session.exchange(messages.read_clock(), urgency, reply_timeout=reply_timeout)
    told = value_of(outcome, messages.Clock)
    if told is None or told.at is None:
        return outcome
    return session.told_time(told.at, clock.now())


async def set_clock(session: TerminalSession, urgency: Urgency) -> ClockCheck:
    """See `TerminalSession.set_clock`."""
    before = await read_clock(session, urgency)
    if before is None:
        raise InputError(f"terminal {session.address} does not tell its time")
    right = to_device(session.parts.clock.now())
    shown = right + timedelta(seconds=before.offset_s)
    refuse_across_midnight(shown, right, session.parts.settings.clock_midnight_guard_s)
    outcome = await session.exchange(messages.set_clock(right.replace(microsecond=0)), urgency)
    if not isinstance(outcome, Confirmed):
        raise InputError(f"terminal {session.address} did not take the time: {denial(outcome)}")
    log.warning("clock set", terminal=session.address, shown=f"{shown:%F %T}", right=f"{right:%F %T}")
    after = await read_clock(session, urgency)
    if after is None:
        raise InputError(f"terminal {session.address} took the time, but does not tell it back")
    await _keep_clock(session)
    return after


async def correct_clock(session: TerminalSession) -> None:
    """By policy: set a clock that is off, where that is allowed now."""
    if not session.parts.settings.correct_clock or not session.clock_off:
        return
    try:
        await set_clock(session, Urgency.LEARN)
    except LinkClosed:
        return
    except InputError as error:
        log.warning("the clock stays off", terminal=session.address, why=str(error))


async def _keep_clock(session: TerminalSession) -> None:
    watch = session.clock_watch
    if watch.offset is None or watch.at is None:
        return
    try:
        await session.parts.store.note_clock(session.assets.terminal_id, watch.offset, watch.at)
    except StorageError as error:
        log.warning("the clock offset was not kept", terminal=session.address, why=str(error))
