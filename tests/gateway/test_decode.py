"""`lingdian decode` to its contract, on the field frames."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from tests.protocols.vectors import Vector, tagged, valid, vectors

ENVELOPE = {
    "dlt645-2007": ("address", "control", "length", "di"),
    "dlt645-1997": ("address", "control", "length", "di"),
    "qgdw376.1": (
        "terminal", "dir", "prm", "fc", "tpv", "fir", "fin", "con", "pseq", "msa", "group", "afn", "fn", "pn",
    ),
}  # fmt: skip

RESERVED_PROTOCOL_ID = "gw-114"

NOTHING_IN_THEM = (
    "bad-checksum", "bad-checksum-template", "truncated", "bad-length", "bad-end", "bad-second-start",
    "malformed", "preamble-only", "garbage", "length-too-long", "other-protocol",
)  # fmt: skip

GOOD_ONES_IN_THEM = ("stream-noise", "concatenated", "double-start", "echo-then-reply", "trailing-garbage")

runner = CliRunner()


def decoded(*lines: str, words: tuple[str, ...] = ()) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and one object a line, of hex lines on standard input or words on the command line."""
    result = runner.invoke(app, ["decode", "--json", *words], input="\n".join(lines))
    return result.exit_code, [json.loads(line) for line in result.stdout.splitlines()]


def test_every_valid_frame_agrees_in_its_envelope() -> None:
    good = [one for one in valid(*ENVELOPE) if one.id != RESERVED_PROTOCOL_ID and not one.tag]
    code, told = decoded(*(one.raw.hex() for one in good))
    assert code == 0
    assert len(told) == len(good)
    differing = []
    for vector, line in zip(good, told, strict=True):
        assert set(line) == {"input", "frames", "discarded", "error"}
        assert (line["input"], line["discarded"], line["error"]) == (vector.raw.hex(), 0, None)
        (frame,) = line["frames"]
        assert frame["protocol"] == vector.protocol, vector.id
        assert frame["start"] == vector.raw.index(0x68)
        differing += [
            (vector.id, key, frame.get(key), vector.expected[key])
            for key in ENVELOPE[vector.protocol]
            if key in vector.expected and frame.get(key) != vector.expected[key]
        ]
    assert differing == []


def test_frames_of_another_protocol_pass_as_nothing() -> None:
    code, told = decoded(*(one.raw.hex() for one in valid("dlt698.45")))
    assert code == 1
    assert all(line["frames"] == [] and line["error"] for line in told)


@pytest.mark.parametrize("vector", tagged(*NOTHING_IN_THEM), ids=str)
def test_damaged_frames_give_none(vector: Vector) -> None:
    code, (line,) = decoded(vector.raw.hex())
    assert code == 1
    assert line["frames"] == []
    assert line["discarded"] == len(vector.raw) - vector.raw.count(0xFE)
    assert line["error"]


@pytest.mark.parametrize("vector", tagged(*GOOD_ONES_IN_THEM), ids=str)
def test_frames_among_noise_are_found(vector: Vector) -> None:
    code, (line,) = decoded(vector.raw.hex())
    assert code == 0
    assert line["error"] is None
    assert len(line["frames"]) == vector.expected.get("frames", len(line["frames"]))
    assert line["frames"]


def test_every_invalid_vector_is_of_a_known_kind() -> None:
    assert {one.tag for one in vectors() if not one.valid} <= {*NOTHING_IN_THEM, *GOOD_ONES_IN_THEM}


def test_arguments_may_have_spaces_or_be_single_bytes() -> None:
    login = "68 32 00 32 00 68 C9 14 03 32 63 00 02 73 00 00 01 00 EB 16"
    for words in ((login,), tuple(login.split()), (login.replace(" ", ""), login)):
        code, told = decoded(words=words)
        assert code == 0
        assert [line["frames"][0]["terminal"] for line in told] == ["03146332"] * (
            2 if len(words) == 2 else 1
        )


def test_bad_hex_is_told_in_its_line_and_the_others_go_on() -> None:
    good = valid("dlt645-2007")[0].raw.hex()
    code, told = decoded("68 zz", good, "683")
    assert code == 1
    assert [len(line["frames"]) for line in told] == [0, 1, 0]
    assert "character 4" in told[0]["error"]
    assert "odd number" in told[2]["error"]
    assert told[0]["input"] == "68 zz"


def test_the_plain_listing_is_for_reading() -> None:
    result = runner.invoke(app, ["decode", "683200320068C9140332630002730000010 0EB16".replace(" ", "")])
    assert result.exit_code == 0
    assert "qgdw376.1 at byte 0" in result.stdout
    assert "03146332" in result.stdout
    assert "登录" in result.stdout


def test_nothing_at_all_is_an_error() -> None:
    code, told = decoded("")
    assert (code, told) == (1, [])


def test_as_a_process_it_answers_line_by_line() -> None:
    """A program that writes one line and waits for its answer is not kept waiting."""
    frame = valid("qgdw376.1")[0].raw.hex()
    with subprocess.Popen(
        [sys.executable, "-m", "gateway", "decode", "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(3):
            process.stdin.write(frame + "\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["input"] == frame
        process.stdin.close()
        assert process.wait(20) == 0
