"""`lingdian read --via CHANNEL`: straight off meters, where no gateway stands between."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gateway.cli.invocation import progress_console, reason_words, say, show
from gateway.cli.scan import timing_of
from gateway.clock import Clock, business_day, frozen_at
from gateway.errors import InputError, LinkClosed
from gateway.field import offline
from gateway.field.direct import Wish, address_of, read_direct, wish
from gateway.field.line import MeterLine
from gateway.field.offline import NoRegister, Register, Wanted
from gateway.field.offline_file import ReadingFile
from gateway.storage.csv_files import Problems, check_cells, read_rows
from gateway.transports import channel as channels
from gateway.transports import ways
from gateway.transports.channel import Channel

MOST_METERS: Final = 10_000
"""on one list; at two seconds a meter more than a working day"""

FAILURES_SHOWN: Final = 200

_ADDRESS: Final = re.compile(r"[0-9A]{12}", re.IGNORECASE)


def read_via(channel: str, address: str, items: list[str]) -> dict[str, Any]:
    """What `lingdian read` shows. Whatever is no read is refused before the channel is opened: InputError;
    LinkClosed where it cannot be opened, or ends."""
    way = channels.parse(channel)
    meter = address_of(address)
    wishes = [wish(item) for item in items]
    return asyncio.run(_read(way, meter, wishes))


async def _read(way: Channel, address: str, wishes: list[Wish]) -> dict[str, Any]:
    link = await ways.opening(way)()
    try:
        return await read_direct(MeterLine(link, Clock(), timing_of(way, None)), address, wishes)
    finally:
        await link.close()


@dataclass(frozen=True, slots=True)
class Target:
    """A meter to be read. meter: asset number, "" where it is not known; edition: None: to be found out."""

    address: str
    meter: str = ""
    edition: str | None = None


@dataclass(slots=True)
class Round:
    """What came of a round along the meters."""

    file: str
    meters: int = 0
    """that were worked"""
    due: int = 0
    """meters that were to be"""
    kept: int = 0
    already: int = 0
    """freezes that stood in the file before"""
    failures: list[tuple[Target, NoRegister]] = field(default_factory=list)
    ended: str = "complete"
    """`complete`, `interrupted`, or `lost`: the line"""
    why: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "ended": self.ended,
            "meters": self.meters,
            "due": self.due,
            "kept": self.kept,
            "already": self.already,
            "missing": [
                {
                    "meter": target.meter or None,
                    "address": told.address,
                    "quantity": told.quantity.label,
                    "kind": told.kind.name.lower(),
                    "reason": told.reason,
                    "detail": told.detail,
                }
                for target, told in self.failures
            ],
        }


def read_offline(
    channel: str, words: list[str], file: Path, *, meters: Path | None, day: date | None, reader: str
) -> Round:
    """Read the registers of every meter named in `words` or listed in `meters`, and add each to `file` as it
    comes. words: addresses, and quantities (none: forward_active). day: whose closing midnight is wanted;
    None: the newest. Ctrl-C ends it after what was kept.

    InputError before the channel is opened; LinkClosed where it cannot be opened.
    """
    way = channels.parse(channel)
    clock = Clock()
    targets = _targets([address_of(word) for word in words if _ADDRESS.fullmatch(word)], meters)
    labels = [word for word in words if not _ADDRESS.fullmatch(word)] or ["forward_active"]
    today = business_day(clock.now())
    day = day or today - timedelta(days=1)
    if day >= today:
        raise InputError(f"day {day} has not ended 该日尚未结束: its midnight is to come")
    if len(reader) > 60 or not reader.isprintable() or not reader.strip():
        raise InputError("--reader is a name of 1 to 60 printable characters 抄表员姓名无效")
    quantities = tuple(dict.fromkeys(offline.quantity_of(label) for label in labels))
    wanted = Wanted(frozen_at(day), quantities, quantities)
    done = Round(str(file), due=len(targets))
    with ReadingFile(file, f"{reader} (direct line)") as kept:
        if kept.taken_off:
            say(f"{file}: the half-written last line was taken off 已去掉未写完的末行: {kept.taken_off}")
        asyncio.run(_go_round(way, clock, targets, wanted, kept, done))
    return done


def _targets(addresses: list[str], meters: Path | None) -> list[Target]:
    """Each address once; those of the list carry their asset numbers."""
    found = {target.address: target for target in ([] if meters is None else _listed(meters))}
    for address in addresses:
        found.setdefault(address, Target(address))
    if not found:
        raise InputError("no meter is named 未指定电能表: give addresses, or --meters FILE")
    if len(found) > MOST_METERS:
        raise InputError(f"more than {MOST_METERS} meters 电能表过多: split the list")
    return list(found.values())


def _listed(path: Path) -> list[Target]:
    """meters.csv as `lingdian import` takes it, or any with the column `address`. InputError names its first
    bad line: nobody should stand before a meter that the list was to name."""
    from gateway.storage.imports import METER_CHECKS  # brings the database driver along

    problems = Problems(str(path))
    columns = {name: name == "address" for name in METER_CHECKS}
    targets = []
    checks = {name: METER_CHECKS[name] for name in ("address", "meter", "protocol")}
    for line, cells in read_rows(path, columns, problems):
        if "address" not in cells:
            problems.add(line, "address", "", "is empty 不能为空; fill it in")
        elif values := check_cells(cells, checks, line, problems):
            address, meter, protocol = (None if value is None else str(value) for value in values)
            edition = None if protocol is None else protocol.removeprefix("dlt645-")
            targets.append(Target(address or "", meter or "", edition))
    if problems.told:
        raise InputError(problems.told[0])
    return targets


async def _go_round(
    way: Channel, clock: Clock, targets: list[Target], wanted: Wanted, kept: ReadingFile, done: Round
) -> None:
    link = await ways.opening(way)()
    line = MeterLine(link, clock, timing_of(way, None))
    try:
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=progress_console(),
            transient=True,
        ) as bar:
            task = bar.add_task("reading 抄表", total=len(targets))

            async def work() -> None:
                for target in targets:
                    bar.update(task, description=f"{target.meter or target.address}, {done.kept} kept 已存")
                    await _one(line, target, wanted, kept, done)
                    done.meters += 1
                    bar.advance(task)

            await interruptible(work, lambda: setattr(done, "ended", "interrupted"))
    except LinkClosed as error:
        done.ended, done.why = "lost", str(error)
    finally:
        await link.close()


async def interruptible(work: Callable[[], Awaitable[None]], interrupted: Callable[[], None]) -> None:
    """Run `work`; SIGINT or SIGTERM ends it, and `interrupted` is told."""
    running = asyncio.ensure_future(work())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(ValueError, RuntimeError):  # not in the main thread
            loop.add_signal_handler(number, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        interrupted()


async def _one(line: MeterLine, target: Target, wanted: Wanted, kept: ReadingFile, done: Round) -> None:
    """Read one meter; its freezes that stand in the file are not asked for again."""
    lacking = tuple(
        quantity for quantity in wanted.frozen if not kept.holds(target.address, quantity, wanted.midnight)
    )
    done.already += len(wanted.frozen) - len(lacking)
    asked = replace(wanted, frozen=lacking)
    async for told in offline.read_registers(line, target.address, target.edition, asked):
        if isinstance(told, Register):
            kept.add(told, target.meter)
            done.kept += 1
        else:
            done.failures.append((target, told))


def show_round(done: Round) -> None:
    """For a person: what is missing and why, and the counts."""
    for target, told in done.failures[:FAILURES_SHOWN]:
        name = f"{target.meter} " if target.meter else ""
        show(
            f"{name}{told.address} {told.quantity.label} {told.kind.name.lower()}:"
            f" {reason_words(told.reason)}; {told.detail}"
        )
    if len(done.failures) > FAILURES_SHOWN:
        show(f"… and {len(done.failures) - FAILURES_SHOWN} more 其余未列出")
    ended = {
        "complete": "done 完成",
        "interrupted": "interrupted 已中断",
        "lost": "the line was lost 线路中断",
    }[done.ended]
    show(
        f"{done.meters} of {done.due} meters 块表, {done.kept} readings added 条已存,"
        f" {done.already} were there 条已有, {len(done.failures)} missing 缺 → {done.file}: {ended}"
    )
