"""`lingdian decode` to its contract, on the field frames."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from tests.gateway.test_captures import ethernet, pcap, pcapng, tcp
from tests.protocols.test_lens_tree import meter
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


# -- for people -----------------------------------------------------------------------------------

ASK = "68120005112320681104333334331D16"
ANSWER = "6812000511232068910833333433896745330916"


def shown(*words: str, code: int = 0, given: str | bytes | None = None) -> str:
    result = runner.invoke(app, ["decode", *words], input=given)
    assert result.exit_code == code, result.output
    return str(result.stdout)


def line_of(text: str, *parts: str) -> str:
    """The only line that has all these parts."""
    (line,) = [line for line in text.splitlines() if all(part in line for part in parts)]
    return line


def test_a_field_is_shown_with_place_bytes_value_unit_names_and_clause() -> None:
    line = line_of(shown(ANSWER), "1234.56 kWh", "annex A")
    assert line.split()[:5] == ["14", "56", "34", "12", "00"]
    assert "active energy, total" in line
    assert "正向有功总电能" in line
    assert "DL/T 645 annex A" in line


def test_names_are_shown_in_the_language_asked_for() -> None:
    english, chinese = shown("--lang", "en", ANSWER), shown("--lang", "zh", ANSWER)
    assert "active energy, total" in english
    assert "有功" not in english
    assert "正向有功总电能" in chinese
    assert "active energy, total" not in chinese
    assert runner.invoke(app, ["decode", "--lang", "fr", ANSWER]).exit_code == 2


def test_an_answer_names_the_request_beside_it() -> None:
    text = shown("--lang", "en", ASK, ANSWER)
    line = line_of(text, "#2 ", "← #1")
    assert line.count("00010000") == 2
    assert "2 frames, 1 answered" in text
    assert "without an answer: #1" in shown("--lang", "en", ASK, ASK, ANSWER)


def test_brief_is_one_line_a_frame() -> None:
    lines = shown("--brief", "--lang", "en", ASK, ANSWER).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("#1 202311050012 read data 00010000")
    assert "= 1234.56 kWh" in lines[1]


def test_parts_of_an_item_are_shown_joined() -> None:
    parts = [meter(0xB1, "00FF0100" + "563412"), meter(0x92, "00FF0100" + "00" + "00100000" + "01")]
    text = shown("--lang", "en", *(part.hex() for part in parts))
    assert line_of(text, "all parts joined")
    assert line_of(text, "1234.56 kWh")


def test_a_file_of_a_log_is_read_with_its_times(tmp_path: Path) -> None:
    log = tmp_path / "line.log"
    log.write_text(
        f"gateway started\n2026-11-24 10:00:00.000 tx {ASK}\nnothing\n2026-11-24 10:00:00.350 rx {ANSWER}\n"
    )
    text = shown("--lang", "en", "--brief", str(log))
    assert line_of(text, "#2", "line.log:4", "10:00:00.350", "+0.350 s")
    result = runner.invoke(app, ["decode", "--json", str(log)])
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert [frame["protocol"] for one in told for frame in one["frames"]] == ["dlt645-2007"] * 2
    assert all(set(one) == {"input", "frames", "discarded", "error"} for one in told)


@pytest.mark.parametrize("new", [False, True], ids=["pcap", "pcapng"])
def test_a_packet_file_is_read_as_an_argument_and_as_standard_input(tmp_path: Path, new: bool) -> None:
    packets = [
        ethernet(tcp(bytes.fromhex(ASK), 5, ports=(7000, 40000))),
        ethernet(tcp(bytes.fromhex(ANSWER)[:7], 5)),
        ethernet(tcp(bytes.fromhex(ANSWER)[7:], 12)),
    ]
    content = (pcapng if new else pcap)(packets)
    file = tmp_path / "capture"
    file.write_bytes(content)
    for text in (shown("--brief", str(file)), shown("--brief", given=content)):
        assert line_of(text, "#2", "← #1", "+2.000 s", "10.0.0.1:40000 > 10.0.0.2:7000")
    result = runner.invoke(app, ["decode", "--json"], input=content)
    assert [json.loads(line)["input"] for line in result.stdout.splitlines()] == [
        ASK.lower(),
        ANSWER.lower(),
    ]


def test_a_broken_packet_file_ends_with_a_clear_line(tmp_path: Path) -> None:
    file = tmp_path / "broken.pcap"
    file.write_bytes(pcap([])[:9])
    result = runner.invoke(app, ["decode", str(file)])
    assert result.exit_code == 1
    assert "broken.pcap: broken off, or no pcap file" in result.stderr


def test_an_empty_first_line_is_no_packet_file() -> None:
    assert "#1" in shown("--brief", given=f"\n{ANSWER}\n")
    assert "#1" in shown("--brief", given=f"\n\r\n{ANSWER}\n")


def test_logs_on_standard_input_are_read_line_by_line() -> None:
    code, told = decoded(f"10:00:00 rx [{ANSWER}]", "10:00:01 idle")
    assert code == 1
    assert [len(line["frames"]) for line in told] == [1, 0]


def test_bytes_without_a_frame_are_told_and_counted() -> None:
    text = shown(f"1122{ANSWER}")
    assert "2 bytes belong to no frame" in text
    text = shown(ANSWER[:-4] + "0016", code=1)
    assert "wrong checksum" in text


def test_decoding_for_a_program_imports_neither_colours_nor_packet_files() -> None:
    code = (
        "import sys; from gateway.cli import app; sys.argv=['lingdian','decode','--json',sys.argv[1]]\n"
        "try: app()\nexcept SystemExit: pass\n"
        "print([m for m in ('dpkt', 'asyncio', 'rich.table', 'protocols.lens.tree', 'psycopg', 'httpx', "
        "'protocols.q_gdw376.messages') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code, ANSWER], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
