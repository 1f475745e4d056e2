"""`lingdian demo`: a night in a minute. Gateway and simulated district are processes that meet over TCP."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from gateway.cli import demo_relay, painting
from gateway.cli.client import Gateway, Refusal
from gateway.cli.invocation import ExitCode, Invocation, JsonFlag, answer, of, say, show
from gateway.cli.live import follow_collection
from gateway.clock import business_day
from gateway.errors import LingdianError
from gateway.service import database_of
from gateway.state import State
from gateway.storage import embedded, imports

READY_SECONDS: Final = 120.0
"""For a first start: the database is made, which takes a second, or many on a slow disk."""

GROW_SECONDS: Final = 600.0
"""For the simulator to write the assets and truth of a large district."""

LOGIN_SECONDS: Final = 60.0
"""For all terminals to dial in; the collection then waits for the rest by its own rules."""

STOP_SECONDS: Final = 15.0
"""After SIGTERM; then the process is killed."""

LOG_TAIL_LINES: Final = 20

app = typer.Typer()


class DemoFailed(LingdianError):
    """A process of the demo failed; the message ends with its last words."""


@dataclass(frozen=True, slots=True)
class District:
    """What is simulated."""

    terminals: int
    meters: int
    seed: int
    day: date
    truth: Path

    def arguments(self) -> list[str]:
        """Of `python -m simulator`."""
        return [
            "district",
            f"--terminals={self.terminals}",
            f"--meters={self.meters}",
            f"--seed={self.seed}",
            f"--day={self.day}",
            "--json",
        ]


@app.command("demo")
def demo(
    context: typer.Context,
    terminals: Annotated[int, typer.Option(min=1, help="Terminals 终端数.")] = 10,
    meters: Annotated[int, typer.Option(min=1, help="Meters 电能表数.")] = 2000,
    seed: Annotated[int, typer.Option(help="Another seed grows another district.")] = 1,
    day: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Business day [default: yesterday].")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Collect, report, end.")] = False,
    truth: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Where the simulator writes what its meters held.")
    ] = None,
    json_output: JsonFlag = False,
) -> None:
    """Show it all 演示: a simulated district dials in, its midnight is collected 采集日冻结, and one
    household is cut off and gets its power back, with the evidence of it 停电、复电并取证.

    Exit 0: every meter was collected, and both switchings are proved; 3: some were not collected; 1:
    something failed, or was not proved.
    """
    invocation = of(context).demo()
    chosen = day.date() if day is not None else business_day(datetime.now(UTC)) - timedelta(days=1)
    written = truth if truth is not None else invocation.state.folder / "truth.csv"
    district = District(terminals, meters, seed, chosen, written.absolute())
    summary = asyncio.run(_demo(invocation, district, once=once, json_output=json_output))
    if "why" in summary["relay"]:
        raise typer.Exit(ExitCode.WRONG)
    if summary["missing"]:
        raise typer.Exit(ExitCode.MISSING)


async def _demo(
    invocation: Invocation, district: District, *, once: bool, json_output: bool
) -> dict[str, Any]:
    state = invocation.state
    if (task := asyncio.current_task()) is not None:
        # a plain SIGTERM would leave the children behind
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    state.claim_demo()
    with state.owned():
        await embedded.clear(state.database)
        state.empty_demo()
    say(
        f"growing a district 生成模拟台区: {district.terminals} terminals, {district.meters} meters,"
        f" day {district.day}"
    )
    assets = state.folder / "assets"
    async with AsyncExitStack() as children:
        grower = await children.enter_async_context(
            _child(
                "simulator",
                ["-m", "simulator", *district.arguments(), f"--assets={assets}", f"--truth={district.truth}"],
                state,
            )
        )
        await grower.finished(GROW_SECONDS)
        gateway = await children.enter_async_context(
            _child(
                "gateway",
                ["-m", "gateway", "--state", str(state.folder), "serve", "--listen=127.0.0.1:0", "--json"],
                state,
                talks=True,
                settings=demo_relay.SETTINGS | ({"LINGDIAN_COLLECTION__ENABLED": "false"} if once else {}),
            )
        )
        ready = await gateway.line("ready", READY_SECONDS)
        await _import(invocation, assets)
        simulator = await children.enter_async_context(
            _child(
                "simulator",
                ["-m", "simulator", *district.arguments(), f"--connect={ready['listen']}"],
                state,
            )
        )
        with Gateway(state) as door:
            await _all_logged_in(door, district.terminals, [gateway, simulator])
            result = await asyncio.to_thread(follow_collection, door, district.day.isoformat())
        summary = _summary(district, result)
        if not json_output:
            _tell(summary, district)
        summary["relay"] = await _relay(state, assets, painting.screen(error=json_output))
        if json_output:
            answer(summary)
        if "why" in summary["relay"]:
            say(summary["relay"]["why"], error=True)
        if not once:
            _suggest(invocation, district, ready["listen"], summary["relay"]["meter"])
            await _until_interrupted([gateway, simulator])
    return summary


async def _relay(state: State, assets: Path, screen: Console) -> dict[str, Any]:
    """What the summary says of the relay, told on `screen`, within demo_relay.LONGEST_SECONDS."""
    try:
        async with asyncio.timeout(demo_relay.LONGEST_SECONDS):
            return await asyncio.to_thread(demo_relay.show_relay, state, assets, screen.print)
    except TimeoutError:
        return {"meter": None, "why": f"no answer within {demo_relay.LONGEST_SECONDS:.0f} s 网关无应答"}


async def _import(invocation: Invocation, assets: Path) -> None:
    async with database_of(invocation.settings, invocation.state) as database:
        report = await imports.import_assets(
            database, terminals=assets / "terminals.csv", meters=assets / "meters.csv"
        )
    if report.bad:
        raise DemoFailed("the simulated assets were refused 模拟档案导入失败:\n" + "\n".join(report.problems))


async def _all_logged_in(door: Gateway, terminals: int, children: list[_Child]) -> None:
    """Wait until all terminals are there, or LOGIN_SECONDS have passed."""
    deadline = time.monotonic() + LOGIN_SECONDS
    while time.monotonic() < deadline:
        for child in children:
            child.check()
        with suppress(Refusal):  # not ready for a moment
            if door.get("/readyz")["sessions"] >= terminals:
                return
        await asyncio.sleep(0.2)


def _summary(district: District, result: dict[str, Any]) -> dict[str, Any]:
    return {
        "day": district.day.isoformat(),
        "terminals": district.terminals,
        "meters": result["meters"],
        "collected": result["meters_complete"],
        "missing": result["meters"] - result["meters_complete"],
        "readings": result["collected"],
        "reasons": result["reasons"],
        "seconds": result["seconds"],
        "readings_per_second": result["readings_per_second"],
    }


def _tell(summary: dict[str, Any], district: District) -> None:
    show(
        f"{summary['collected']} of {summary['meters']} meters collected 已采集电能表 / 总数"
        f" for {summary['day']}, {summary['missing']} missing 缺"
    )
    show(
        f"{summary['readings']} readings 读数 in {summary['seconds']:.1f} s,"
        f" {summary['readings_per_second']:.0f} a second 条/秒"
    )
    show(f"what the meters held 真值: {district.truth}")


def _suggest(invocation: Invocation, district: District, listen: str, meter: str | None) -> None:
    command = f"lingdian --state {invocation.state.folder}"
    say(
        f"\nstill running 保持运行: terminals on {listen}; Ctrl-C ends it 按 Ctrl-C 结束. Try 可以试试:\n"
        f"  {command} terminal list\n"
        f"  {command} export readings --from {district.day} --to {district.day}\n"
        f"  {command} gaps --day {district.day - timedelta(days=1)}\n"
        f"  {command} collect --day {district.day - timedelta(days=1)}\n"
        f"  {command} relay list\n"
        f"  {command} relay trip {meter or 'METER'} --cause arrears --notice N-1 --wait"
    )


async def _until_interrupted(children: list[_Child]) -> None:
    """Until Ctrl-C or SIGTERM; DemoFailed where a child ends by itself."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    while not stop.is_set():
        for child in children:
            child.check()
        await asyncio.sleep(0.2)


class _Child:
    """A process of the demo; what it says on standard error is in a log in the state folder."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self._name = name
        self._process = process
        self._log = log

    async def line(self, event: str, seconds: float) -> dict[str, Any]:
        """The first JSON line on its standard output with that `event`."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(seconds):
                while raw := await self._process.stdout.readline():
                    said = json.loads(raw)
                    if said.get("event") == event:
                        return dict(said)
        except TimeoutError:
            raise self._failed(f"did not say {event!r} within {seconds:.0f} s") from None
        await self._process.wait()
        raise self._failed(f"ended with code {self._process.returncode}")

    async def finished(self, seconds: float) -> None:
        """Wait until it has ended well."""
        try:
            async with asyncio.timeout(seconds):
                await self._process.wait()
        except TimeoutError:
            raise self._failed(f"did not end within {seconds:.0f} s") from None
        if self._process.returncode:
            raise self._failed(f"ended with code {self._process.returncode}")

    def check(self) -> None:
        """DemoFailed where it no longer runs."""
        if self._process.returncode is not None:
            raise self._failed(f"ended with code {self._process.returncode}")

    async def end(self) -> None:
        """SIGTERM, and SIGKILL where that does not help in STOP_SECONDS."""
        if self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def _failed(self, what: str) -> DemoFailed:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return DemoFailed("\n".join([f"the {self._name} {what} 演示失败; {self._log} ends with:", *lines]))


@asynccontextmanager
async def _child(
    name: str,
    arguments: list[str],
    state: State,
    *,
    talks: bool = False,
    settings: Mapping[str, str] | None = None,
) -> AsyncIterator[_Child]:
    """A Python process that ends with the block. talks: its standard output is read with `line`, else logged.

    Of LINGDIAN_ settings it gets only these, none of our own: the demo has its own database and nobody's
    passwords.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LINGDIAN_")}
    environment |= settings or {}
    log = state.folder / f"{name}.log"
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if talks else output,
            stderr=output,
            env=environment,
            start_new_session=True,  # Ctrl-C is ours to pass on, in order
        )
    child = _Child(name, process, log)
    try:
        yield child
    finally:
        await child.end()
