"""A conversation is written down, asked again and compared; what does more than read stays in its file."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.clock import Clock
from gateway.errors import InputError
from gateway.field import conversation
from gateway.field.conversation import Piece, Question
from gateway.field.line import READS, MeterLine, Timing
from gateway.transports.memory import pair
from protocols.dlt645.frame import Frame, build, parse
from tests.gateway.field.bus import OnTheLine, hung_up
from tests.gateway.transports.waiting import until
from tests.protocols.test_lens_composition import TRIP

METER = "202408110457"
ASK = Frame(METER, 0x11, bytes.fromhex("02040004"))
runner = CliRunner()


def answer_of(raw: bytes) -> bytes:
    return OnTheLine(METER).answer(raw)


def file_of(path: Path, *pieces: Piece) -> Path:
    path.write_text("".join(piece.as_json() + "\n" for piece in pieces), encoding="utf-8")
    return path


async def test_what_is_said_is_written_down_with_its_direction() -> None:
    ours, theirs = pair()
    heard: list[Piece] = []
    listening = asyncio.create_task(conversation.record(ours, Clock(), heard.append, 0.05))
    ask, told = build(ASK), answer_of(build(ASK))
    for raw in (b"\xfe\xfe" + ask[:5], ask[5:], told, b"\x68\x01\x02"):
        await theirs.write(raw)
    await until(lambda: len(heard) == 2)
    await asyncio.sleep(0.1)
    await theirs.write(ask)
    await until(lambda: len(heard) == 4)
    listening.cancel()
    assert [(piece.direction, piece.raw) for piece in heard] == [
        ("to_meter", ask),
        ("from_meter", told),
        ("unclear", b"\x68\x01\x02"),
        ("to_meter", ask),
    ]
    assert [piece.t for piece in heard] == sorted(piece.t for piece in heard)
    assert ours.writes == []
    assert next(conversation.pieces(piece.as_json() for piece in heard)).raw == ask


async def test_a_recording_is_asked_again_and_compared(tmp_path: Path) -> None:
    ask, told = build(ASK), answer_of(build(ASK))
    volts = build(Frame(METER, 0x11, bytes.fromhex("00010102")))
    was = build(Frame(METER, 0x91, bytes.fromhex("000101020000")))
    absent = build(Frame("202408110458", 0x11, ASK.data))
    file = file_of(
        tmp_path / "conversation.jsonl",
        Piece(0.0, "to_meter", ask),
        Piece(0.1, "from_meter", told),
        Piece(0.2, "unclear", b"\x68"),
        Piece(100.0, "to_meter", volts),
        Piece(100.1, "from_meter", was),
        Piece(200.0, "to_meter", absent),
        Piece(200.1, "from_meter", told),
    )
    with hung_up(OnTheLine(METER, 9600)) as line:
        channel = f"serial://{line.device}?parity=N&baud=9600&gap_ms=50&echo=off"
        words = ["replay", str(file), channel, "--fast", "--wait", "200"]
        result = await asyncio.to_thread(runner.invoke, app, [*words, "--json"])
        shown = await asyncio.to_thread(runner.invoke, app, words)
    assert result.exit_code == shown.exit_code == 3, result.output
    compared = json.loads(result.stdout)
    assert [one["verdict"] for one in compared["questions"]] == ["same", "value", "other"]
    assert (compared["same"], compared["value"], compared["other"]) == (1, 1, 1)
    assert was.hex(" ") in shown.stdout


async def test_the_pauses_of_a_recording_are_kept() -> None:
    ours, theirs = pair()
    clock = Clock(speed=20.0)
    line = MeterLine(ours, clock, Timing(longest_wait_s=0.1, shortest_wait_s=0.1))
    began = clock.monotonic()
    await conversation.replay(line, [Question(5.0, ASK, ()), Question(8.0, ASK, ())], fast=False)
    assert clock.monotonic() - began >= 3.0
    began = clock.monotonic()
    compared = await conversation.replay(line, [Question(5.0, ASK, ()), Question(800.0, ASK, ())], fast=True)
    assert clock.monotonic() - began < 100
    assert [one.verdict for one in compared] == ["same", "same"]
    assert len(theirs.writes) == 0


DANGEROUS = [control for control in range(0x80) if control not in READS]


@pytest.mark.parametrize("control", DANGEROUS, ids=lambda control: f"{control:02X}H")
def test_a_frame_that_does_more_than_read_is_not_asked_again(control: int) -> None:
    good, bad = Piece(0.0, "to_meter", build(ASK)), Piece(1.0, "to_meter", build(Frame(METER, control)))
    with pytest.raises(InputError, match="more than read"):
        conversation.questions([good, bad])


async def test_a_file_with_a_trip_is_refused_whole(tmp_path: Path) -> None:
    trip = Piece(1.0, "to_meter", TRIP)
    assert parse(TRIP).control == 0x1C
    file = file_of(tmp_path / "trip.jsonl", Piece(0.0, "to_meter", build(ASK)), trip)
    with hung_up(OnTheLine(METER, 9600)) as line:
        channel = f"serial://{line.device}?parity=N&baud=9600&echo=off"
        result = await asyncio.to_thread(runner.invoke, app, ["replay", str(file), channel])
        assert line.questions == []
    assert result.exit_code == 1
    assert "line 2" in result.stderr
    assert "relay control" in result.stderr


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        "{}",
        '{"t":"x","dir":"to_meter","hex":"68"}',
        '{"t":NaN,"dir":"to_meter","hex":"68"}',
        '{"t":0,"dir":"up","hex":"68"}',
        '{"t":0,"dir":"to_meter","hex":"6"}',
        '{"t":-1,"dir":"to_meter","hex":"68"}',
    ],
)
def test_a_line_that_is_no_piece_is_named(text: str) -> None:
    with pytest.raises(InputError, match="line 1 "):
        list(conversation.pieces([text]))


def test_what_is_no_frame_of_645_is_not_asked_again() -> None:
    with pytest.raises(InputError, match="no frame of DL/T 645"):
        conversation.questions([Piece(0.0, "to_meter", bytes.fromhex("683200320068c914"))])


async def test_the_command_records_and_overwrites_nothing(tmp_path: Path) -> None:
    file = tmp_path / "heard.jsonl"
    with hung_up() as line:
        channel = f"serial://{line.device}?parity=N&baud=9600&echo=off"
        words = ["record", channel, str(file), "--seconds", "1.5"]
        recording = asyncio.create_task(asyncio.to_thread(runner.invoke, app, words))
        await until(lambda: file.exists() and _say(line.master, build(ASK)) and file.stat().st_size > 0)
        result = await recording
        again = await asyncio.to_thread(runner.invoke, app, words)
        assert line.questions == []
    assert result.exit_code == 0, result.output
    assert json.loads(file.read_text().splitlines()[0])["hex"] == build(ASK).hex()
    assert again.exit_code == 1
    assert "already" in again.stderr


def _say(master: int, data: bytes) -> bool:
    return os.write(master, data) > 0
