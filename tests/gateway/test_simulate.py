"""`lingdian simulate`: the process that it starts, and what it shows of it."""

from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import sys
from typing import Any

from rich.console import Console

from gateway.cli.simulate import Board
from protocols.dlt645 import frame, messages
from protocols.dlt645.messages import ReadReply, ReadRequest

METER = "000000000017"
LINGDIAN = [sys.executable, "-m", "gateway", "simulate"]


def raw(message: messages.Message) -> bytes:
    return frame.build(messages.to_frame(message), 4)


def seen(way: str, data: bytes) -> dict[str, Any]:
    return {"event": "frame", "name": "line-7", "way": way, "hex": data.hex()}


def test_a_meter_is_played_and_ends_on_sigterm() -> None:
    command = [*LINGDIAN, "meter", "--address", "17", "--listen", "tcp://127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        listening = json.loads(process.stdout.readline())
        assert listening["event"] == "listening"
        host, port = listening["channel"].removeprefix("tcp://").rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=20) as link:
            link.sendall(raw(ReadRequest(METER, "00010000")))
            answer = link.recv(200)
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
        assert process.wait(20) == 0
    reply = messages.from_frame(frame.parse(answer))
    assert isinstance(reply, ReadReply)
    assert reply.address == METER
    assert json.loads(rest)["counts"]["answers"] == 1


def test_wrong_arguments_end_with_two() -> None:
    done = subprocess.run([*LINGDIAN, "meter", "--connect", "nowhere"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "HOST:PORT" in done.stderr


def test_the_screen_shows_whole_frames_newest_last_and_no_more_than_it_may() -> None:
    board = Board(most=3)
    board.take({"event": "listening", "name": "line-7", "channel": "serial:///dev/pts/9?baud=2400&parity=N"})
    ask, answer = (
        raw(ReadRequest(METER, "00010000")),
        raw(ReadReply(METER, "00010000", bytes.fromhex("78563412"))),
    )
    board.take(seen("down", ask[:7]))
    assert not board.lines
    board.take(seen("down", ask[7:]))
    assert "→" in board.lines[-1]
    for _ in range(4):
        board.take(seen("up", answer))
    assert len(board.lines) == 3
    assert "← " in board.lines[-1]
    assert "123456.78" in board.lines[-1].replace("12345678", "")
    board.take({"event": "end", "counts": {"answers": 4}})
    assert list(board.summary()) == ["answers: 4"]
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(board.shown())
    shown = console.export_text()
    assert "/dev/pts/9" in shown
    assert "123456.78" in shown
