"""What `lingdian relay direct` and its like do: tickets fetched, checked, and used once on a line."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import typer

from gateway.cli.client import Gateway, Refusal
from gateway.cli.invocation import Invocation, NoGateway, say
from gateway.cli.relay_options import PATH
from gateway.cli.scan import timing_of
from gateway.clock import Clock
from gateway.command import Action, canonical
from gateway.errors import InputError
from gateway.field import direct_evidence, relay_line
from gateway.field import ticket as tickets
from gateway.field.direct_evidence import Deed
from gateway.field.line import MeterLine
from gateway.field.machine import Machine
from gateway.field.relay_line import NotSent
from gateway.field.ticket import Ticket
from gateway.session.settings import GENERAL_METER, meter_profiles
from gateway.transports import channel as channels
from gateway.transports import ways
from gateway.transports.channel import Channel


class Done(NamedTuple):
    """What came of a use. shown: does the relay show what was wanted?"""

    path: Path
    deed: Deed
    evidence: dict[str, Any]
    shown: bool

    def words(self) -> str:
        """In one line for a person."""
        deed = self.deed
        if deed.refusal is not None:
            heard = f"the meter refused 电能表拒绝: {', '.join(deed.refusal.reasons)}"
        else:
            heard = "the meter said yes 电能表已应答" if deed.answer else "no answer 无应答"
        word = "not read 未读到" if deed.status is None else f"{deed.status.word:04x}"
        seen = "the relay shows it 继电器已证实" if self.shown else "the relay does not show it yet 尚未证实"
        head = f"{deed.ticket.action} {deed.ticket.meter}"
        return f"{head}: {heard}; status word 3 状态字3 {word}: {seen}"


def machine_of(invocation: Invocation) -> Machine:
    """This machine, as its state folder has it."""
    return Machine(invocation.state.folder)


def fetch(
    gateway: Gateway, command: str, machine: Machine, key: str, path: Path
) -> tuple[Ticket, dict[str, Any]]:
    """A ticket for this machine, checked, and kept in a file that was not there before."""
    pinned = machine.pinned()
    with _new(path) as file:
        body = {"machine": machine.public_key(), "now": Clock().now().isoformat()}
        try:
            told: dict[str, Any] = gateway.post(f"{PATH}/{command}/ticket", body, key=key)
        except (NoGateway, Refusal) as error:
            if isinstance(error, NoGateway) or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                say(f"was the ticket made? 是否开票未知: ask again with --key {key}", error=True)
            raise
        found = tickets.read(told, pinned)
        file.write(canonical(told))
    return found, told


def use(
    invocation: Invocation, action: Action, meter: str, via: str, ticket: Path | None, path: Path | None
) -> Done:
    """Switch the relay, once, and keep the evidence at `path`. Where anything is raised but by this machine's
    own fault, no byte of a control frame has left."""
    way = channels.parse(via)
    if ticket is None:
        raise NotSent(
            "a relay is switched on a direct line only with a ticket 无操作票，不得直连拉合闸:"
            " `lingdian relay ticket ID`, then --ticket FILE"
        )
    machine = machine_of(invocation)
    told = tickets.parsed(read_file(ticket))
    found = checked(told, action, meter, machine, Clock().now())
    raw = tickets.filled(found, _password(invocation, found))
    path = path or Path(f"direct-{found.command}.json")
    with _new(path) as file:
        deed = asyncio.run(_switch(way, found, raw, machine))
        evidence = direct_evidence.signed(deed, told, machine.key())
        try:
            file.write(canonical(evidence))
            file.flush()
        except OSError as error:  # it has been sent: what came of it must not be lost
            spelled = canonical(evidence).decode()
            raise InputError(f"{path} cannot be written 无法写入, keep this 请保存: {spelled}") from error
    shown = deed.status is not None and relay_line.shows(action, deed.status.word)
    return Done(path, deed, evidence, shown)


def checked(told: dict[str, Any], action: Action, meter: str, machine: Machine, now: datetime) -> Ticket:
    """The ticket, after all checks that need neither password nor line. NoTicket, NotSent, InputError."""
    found = tickets.read(told, machine.pinned())
    relay_line.check_meant(found, action, meter)
    relay_line.check_machine(found, machine.public_key())
    relay_line.check_hours(found, now)
    with machine.spending() as spent:
        spent.check(found.id)
    return found


def _password(invocation: Invocation, ticket: Ticket) -> str:
    """As the settings have it, else as the person types it."""
    profiles = meter_profiles({name: one.row() for name, one in invocation.settings.meters.items()})
    profile = profiles.get(ticket.profile) or profiles.get(GENERAL_METER)
    if profile is not None and profile.password:
        return profile.password
    return str(typer.prompt(f"password of meter 电能表密码 {ticket.meter}", hide_input=True, err=True))


async def _switch(way: Channel, ticket: Ticket, raw: bytes, machine: Machine) -> Deed:
    link = await ways.opening(way)()
    try:
        return await relay_line.switch(MeterLine(link, Clock(), timing_of(way, None)), ticket, raw, machine)
    finally:
        await link.close()


def read_file(path: Path) -> bytes:
    """As much of it as any of our files has. InputError."""
    try:
        with path.open("rb") as file:
            return file.read(direct_evidence.LARGEST * 2)
    except OSError as error:
        raise InputError(f"{path} cannot be read 无法读取: {error.strerror}") from error


@contextmanager
def _new(path: Path) -> Iterator[BinaryIO]:
    """A file that was not there before, of this user alone; gone again where the block fails."""
    try:
        path.touch(mode=0o600, exist_ok=False)
    except FileExistsError as error:
        raise InputError(f"{path} is there already 文件已存在: name another with --out") from error
    except OSError as error:
        raise InputError(f"{path} cannot be written 无法写入: {error.strerror}") from error
    try:
        with path.open("wb") as file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise
