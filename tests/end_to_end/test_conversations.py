"""What was recorded over one transport replays byte for byte over another against a simulator of the same
seed whose clock stands; one register that differs is seen and named."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.cli import conversation_ends as ends
from gateway.clock import Clock
from gateway.field import conversation_tap
from gateway.field.conversation import Piece
from gateway.metrics import Metrics
from gateway.model import TerminalAssets
from gateway.session.registry import Registry
from gateway.session.settings import SessionSettings
from gateway.transports import tcp_listener
from gateway.transports.link import Link
from protocols.q_gdw376.frame import parse
from tests.end_to_end.processes import Process, free_port
from tests.gateway.field.talk import CONTROLS, DEVICE, LINE, READS, TRIP, file_of, master, read
from tests.gateway.session.stage import HandStore, HandWriter, noon_clock
from tests.gateway.session.test_with_simulator import Night
from tests.gateway.transports.broker import Mosquitto
from tests.gateway.transports.waiting import until
from tests.programs import program

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(120)]

runner = CliRunner()
SCRIPT = (*READS, *CONTROLS)
ABSENT = "310000000099"


async def recorded(
    simulator: Process, folder: Path, way: str, script: Sequence[bytes], *, goodbye: bool = False
) -> list[Piece]:
    """The conversation of a simulated terminal, behind a tap reached by `way`, with a master over TCP.
    goodbye: up to its logout."""
    found: list[Piece] = []
    done = asyncio.Event()
    serving = await tcp_listener.listen("127.0.0.1", 0, partial(master, script=script, done=done.set))
    words = ["-m", "simulator", *shlex.split(DEVICE), "--json"]
    place = f"tcp://127.0.0.1:{free_port()}"
    broker = Mosquitto(folder) if way == "mqtt" else None
    if broker is not None:
        broker.start()
        place = f"mqtt://127.0.0.1:{broker.port}/bench"

    async def tap(device: str) -> None:
        theirs = ends.parse(f"tcp://127.0.0.1:{serving.port}")
        async with ends.opened(ends.parse(device)) as ours, ends.opened(theirs) as ended:
            await conversation_tap.tap(ours, ended, Clock(), found.append, 0.5)

    try:
        if way == "pty":
            await asyncio.to_thread(simulator.launch, [*words, "--listen", "pty"])
            told = await asyncio.to_thread(simulator.line, "listening")
            running = asyncio.create_task(tap(told["channel"] + "&echo=off"))
        else:
            with patch.object(ends, "say") as said:
                running = asyncio.create_task(tap(place if broker else f"listen:{place}"))
                await until(lambda: said.called)
            await asyncio.to_thread(simulator.launch, [*words, "--connect", place])
        async with asyncio.timeout(60):
            finished = asyncio.create_task(done.wait())
            await asyncio.wait({running, finished}, return_when=asyncio.FIRST_COMPLETED)
        assert finished.done(), running.exception()
        if goodbye:
            await asyncio.to_thread(simulator.stop)
            await asyncio.wait({running}, timeout=60)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    finally:
        await serving.close()
        await asyncio.to_thread(simulator.kill)  # it would wait for the confirm of its goodbye
        if broker is not None:
            broker.stop()
    return found


def replayed(file: Path, device: str, over: str, *more: str) -> tuple[int, Any]:
    words = ["replay", str(file), "--simulator", device, "--over", over, "--fast", "--json", *more]
    result = runner.invoke(app, words)
    assert result.exit_code in (0, 3), (result.output, result.stderr)
    return result.exit_code, json.loads(result.stdout)


@pytest.mark.parametrize(
    ("way", "others"), [("pty", ("tcp", "udp")), ("tcp", ("udp", "pty")), ("mqtt", ("tcp", "udp"))]
)
async def test_what_was_recorded_on_one_transport_replays_byte_for_byte_on_two_others(
    tmp_path: Path, way: str, others: tuple[str, str]
) -> None:
    if way == "mqtt":
        program("mosquitto", "mosquitto")
    goodbye = way == "tcp"
    found = await recorded(Process("recorded", tmp_path), tmp_path, way, SCRIPT, goodbye=goodbye)
    up = [piece.raw for piece in found if piece.direction == "from_terminal"]
    down = [piece.raw for piece in found if piece.direction == "to_terminal"]
    assert [raw for raw in down if raw in SCRIPT] == list(SCRIPT)
    assert len(up) == 1 + len(SCRIPT) + goodbye
    assert any(b"\x68\x9c\x00" in raw for raw in up), "the trip was obeyed"
    file = file_of(tmp_path / "conversation.jsonl", *found)
    for over in others:
        code, told = await asyncio.to_thread(replayed, file, DEVICE, over)
        assert (code, told["first"], told["lost"]) == (0, None, None), told
        assert told["bytes"] == {"said": len(b"".join(down)), "heard": len(b"".join(up))}
        assert [raw for one in told["questions"] for raw in one["is"]] == [raw.hex() for raw in up]


async def test_what_only_reads_replays_to_a_terminal_behind_a_broker_as_well(tmp_path: Path) -> None:
    """Nobody proves there that it is a simulator, and nobody has to."""
    program("mosquitto", "mosquitto")
    found = await recorded(Process("recorded", tmp_path), tmp_path, "tcp", READS)
    file = file_of(tmp_path / "reads.jsonl", *found)
    broker, simulator = Mosquitto(tmp_path), Process("behind", tmp_path)
    broker.start()
    try:
        place = f"mqtt://127.0.0.1:{broker.port}/bench"
        words = ["replay", str(file), place, "--as", "master", "--fast", "--json"]
        with patch.object(ends, "say") as said:
            replaying = asyncio.create_task(asyncio.to_thread(runner.invoke, app, words))
            await until(lambda: said.called)
            await asyncio.to_thread(
                simulator.launch, ["-m", "simulator", *shlex.split(DEVICE), "--connect", place, "--json"]
            )
            result = await replaying
    finally:
        await asyncio.to_thread(simulator.kill)
        broker.stop()
    assert result.exit_code == 0, (result.output, result.stderr)
    assert json.loads(result.stdout)["same"] == len(READS) + 2


@pytest.fixture(scope="module")
def conversation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recorded over TCP, by a simulator that dials in."""
    folder = tmp_path_factory.mktemp("tcp")
    found = asyncio.run(recorded(Process("recorded", folder), folder, "tcp", SCRIPT))
    return file_of(folder / "conversation.jsonl", *found)


PLANTED = """
from dataclasses import replace
from simulator import store

real = store.Store.present

def present(self, pn, own, now):
    energy = real(self, pn, own, now)
    if pn != 2:
        return energy
    return replace(energy, registers=(energy.registers[0] + 100, *energy.registers[1:]))

store.Store.present = present
"""


def test_one_register_that_differs_in_the_simulator_is_seen_and_named(
    conversation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(PLANTED, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code, told = replayed(conversation, DEVICE, "tcp")
    assert (code, told["other"], told["value"]) == (3, 0, 1)
    first = told["first"]
    line = json.loads(conversation.read_text(encoding="utf-8").splitlines()[first["line"] - 1])
    was, now = bytes.fromhex(line["hex"]), bytes.fromhex(told["questions"][first_of(told)]["is"][0])
    assert line["dir"] == "from_terminal"
    assert first["field"].endswith("total")
    assert float(now_of(first["got"])) - float(now_of(first["expected"])) == pytest.approx(0.01)
    assert was[: first["byte"]] == now[: first["byte"]]
    assert was[first["byte"]] != now[first["byte"]]
    result = runner.invoke(app, ["replay", str(conversation), "--simulator", DEVICE, "--fast"])
    assert f"line {first['line']}" in result.stdout
    assert "首个差异" in result.stdout


def first_of(told: Any) -> int:
    return [one["verdict"] for one in told["questions"]].index("value")


def now_of(words: str) -> str:
    return words.split()[0]


def test_a_clock_that_differs_is_a_difference_until_it_is_named(conversation: Path) -> None:
    later = DEVICE.replace("T12:00:00", "T12:00:10")
    code, told = replayed(conversation, later, "tcp")
    assert (code, told["other"], told["value"]) == (3, 0, 2)
    assert told["first"]["field"].endswith("clock")
    assert (told["first"]["expected"], told["first"]["got"]) == ("2026-11-24 12:00:00", "2026-11-24 12:00:10")
    code, told = replayed(conversation, later, "tcp", "--ignore", "clock")
    assert (code, told["first"], told["ignored"]) == (0, None, {"clock": 2})


def test_a_dangerous_conversation_goes_to_our_simulator_and_to_nobody_else(conversation: Path) -> None:
    """The first half is what every test above does: a trip is in all of them."""
    assert any(
        TRIP in bytes.fromhex(json.loads(line)["hex"]) for line in conversation.read_text().splitlines()
    )
    words = ["replay", str(conversation), f"tcp://127.0.0.1:{free_port()}", "--as", "master", "--fast"]
    result = runner.invoke(app, words)
    assert result.exit_code == 1
    assert "more than read" in result.stderr
    assert "relay control" in result.stderr


async def test_a_line_of_meters_replays_on_other_wires(tmp_path: Path) -> None:
    """645: recorded between a master and a line behind a serial server, a trip and lead-ins included."""
    script = [
        b"\xfe\xfe\xfe\xfe" + read("00010000"),
        b"\xfe" + read("04000102"),
        read("00010000", ABSENT),
        TRIP,
    ]
    found: list[Piece] = []
    simulator = Process("line", tmp_path)
    await asyncio.to_thread(
        simulator.launch, ["-m", "simulator", *shlex.split(LINE), "--listen", "tcp://127.0.0.1:0", "--json"]
    )
    done = asyncio.Event()

    async def ask(link: Link) -> None:
        for number, raw in enumerate(script):
            await link.write(raw)
            if number != 2:
                await link.read()
            await asyncio.sleep(0.1)
        done.set()
        await asyncio.Event().wait()

    serving = await tcp_listener.listen("127.0.0.1", 0, ask)
    try:
        place = (await asyncio.to_thread(simulator.line, "listening"))["channel"]
        theirs = ends.parse(f"tcp://127.0.0.1:{serving.port}")
        async with ends.opened(ends.parse(place)) as ours, ends.opened(theirs) as ended:
            running = asyncio.create_task(conversation_tap.tap(ours, ended, Clock(), found.append, 0.5))
            await asyncio.wait_for(done.wait(), 60)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    finally:
        await serving.close()
        await asyncio.to_thread(simulator.kill)
    assert [(piece.direction, piece.lead) for piece in found][:2] == [("to_meter", 4), ("from_meter", 0)]
    file = file_of(tmp_path / "line.jsonl", *found)
    for over in ("udp", "pty"):
        code, told = await asyncio.to_thread(replayed, file, LINE, over)
        assert (code, told["first"]) == (0, None), told
        assert told["bytes"]["said"] == len(b"".join(script))


async def test_a_gateway_says_again_what_it_said(tmp_path: Path) -> None:
    """Recorded between a gateway and a simulated terminal; then the terminal's side alone, to a gateway as it
    was then, and to one that knows no such terminal."""
    found: list[Piece] = []
    night = Night.grow(7, 1, 4)
    (plan,) = night.district.terminals
    async with gateway(night.terminals) as (place, registry):
        tapping = asyncio.Event()

        async def tap() -> None:
            free = ends.parse(f"listen:tcp://127.0.0.1:{port}")
            async with ends.opened(free) as ours, ends.opened(ends.parse(place)) as theirs:
                tapping.set()
                await conversation_tap.tap(ours, theirs, Clock(), found.append, 0.5)

        port = free_port()
        running = asyncio.create_task(tap())
        simulator = Process("terminal", tmp_path)
        words = ["-m", "simulator", *shlex.split(DEVICE), "--connect", f"tcp://127.0.0.1:{port}", "--json"]
        await asyncio.to_thread(simulator.launch, words)
        try:
            await until(lambda: (one := registry.session(plan.address)) is not None and one.learned, 60)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await asyncio.to_thread(simulator.kill)
    assert {parse(piece.raw).afn for piece in found if piece.direction == "to_terminal"} >= {0x00, 0x09, 0x0A}
    file = file_of(tmp_path / "gateway.jsonl", *found)
    async with gateway(night.terminals) as (place, _):
        assert await to_gateway(file, place) == (0, None)
    async with gateway({}) as (place, _):
        code, first = await to_gateway(file, place, "--wait", "30")
        assert code == 3
        assert first["field"] == "no answer"


async def to_gateway(file: Path, place: str, *more: str) -> tuple[int, Any]:
    words = ["replay", str(file), place, "--as", "terminal", "--fast", "--json", *more]
    result = await asyncio.to_thread(runner.invoke, app, words)
    assert result.exit_code in (0, 3), (result.output, result.stderr)
    return result.exit_code, json.loads(result.stdout)["first"]


@asynccontextmanager
async def gateway(known: dict[str, TerminalAssets]) -> AsyncIterator[tuple[str, Registry]]:
    """A gateway's sessions without its database, at the hour at which the simulator's clock stands."""
    store = HandStore(dict(known))
    registry = Registry(store, HandWriter(), SessionSettings(), noon_clock(), Metrics())
    listening = await tcp_listener.listen("127.0.0.1", 0, registry.accept)
    try:
        yield f"tcp://127.0.0.1:{listening.port}", registry
    finally:
        await listening.close()
        await registry.close()
