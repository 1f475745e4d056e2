"""A conversation is written down, said again and compared; what does more than read stays in its file."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.clock import Clock
from gateway.errors import InputError, LinkClosed
from gateway.field import conversation, conversation_tap
from gateway.field.conversation import Cutter, Piece, Role
from gateway.field.conversation_difference import Judged, ignoring, judge
from gateway.field.conversation_guard import Door, refuse_danger
from gateway.field.conversation_replay import Compared, Patience, Replay
from gateway.transports import tcp_client, tcp_listener
from gateway.transports.link import Link
from gateway.transports.memory import MemoryLink, pair
from protocols.dlt645.frame import Frame, build, parse
from protocols.lens.places import Family
from protocols.q_gdw376.frame import parse as parse_376
from protocols.q_gdw376.identifiers import identifier
from tests.end_to_end.processes import free_port
from tests.gateway.field.bus import OnTheLine, hung_up
from tests.gateway.field.talk import READS, asked, file_of, read, told
from tests.gateway.transports.waiting import until
from tests.protocols.test_lens_composition import TRIP

METER = "202408110457"
ASK = Frame(METER, 0x11, bytes.fromhex("02040004"))
runner = CliRunner()


def answer_of(raw: bytes) -> bytes:
    return OnTheLine(METER).answer(raw)


async def test_what_is_said_is_written_down_with_its_direction() -> None:
    ours, theirs = pair()
    heard: list[Piece] = []
    listening = asyncio.create_task(conversation_tap.record(ours, Clock(), heard.append, 0.05))
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
        words = ["replay", str(file), channel, "--fast", "--wait", "400"]
        result = await asyncio.to_thread(runner.invoke, app, [*words, "--json"])
        shown = await asyncio.to_thread(runner.invoke, app, words)
    assert result.exit_code == shown.exit_code == 3, result.output
    compared = json.loads(result.stdout)
    assert [one["verdict"] for one in compared["questions"]] == ["same", "value", "other"]
    assert (compared["same"], compared["value"], compared["other"]) == (1, 1, 1)
    assert was.hex(" ") in shown.stdout


class Simple:
    """Proves everything: for links in memory."""

    def proves(self, link: Link) -> bool:
        return True

    def end(self) -> None:
        raise AssertionError("no goodbye was recorded")


def piece(t: float, direction: str, raw: bytes, lead: int | None = None, line: int = 0) -> Piece:
    return Piece(t, direction, raw, lead, line)


async def had_again(
    recorded: Sequence[Piece],
    role: Role,
    answers: dict[bytes, list[bytes]],
    *,
    fast: bool = True,
    clock: Clock | None = None,
    ignored: Sequence[str] = (),
    first: Sequence[bytes] = (),
    wait: float = 10.0,
) -> tuple[list[Compared], MemoryLink, Replay]:
    """Replay to somebody who says `first`, and then these answers."""
    ours, theirs = pair()

    async def answer() -> None:
        for raw in first:
            await theirs.write(raw)
        cutter = Cutter()
        while True:
            data, _ = await theirs.read()
            for raw in (answer for cut in cutter.take(data) for answer in answers.get(cut.raw, ())):
                await theirs.write(raw)

    answering = asyncio.create_task(answer())
    made = Replay(Door(ours, role, Simple()), clock or Clock(), Patience(wait), frozenset(ignored))
    compared = await made.run(conversation.turns(recorded, role), fast=fast)
    answering.cancel()
    return compared, ours, made


async def test_the_pauses_of_a_recording_are_kept() -> None:
    clock = Clock(speed=20.0)
    recorded = [piece(5.0, "to_meter", build(ASK)), piece(8.0, "to_meter", build(ASK))]
    began = clock.monotonic()
    await had_again(recorded, "meter", {}, fast=False, clock=clock, wait=0.1)
    assert clock.monotonic() - began >= 3.0
    began = clock.monotonic()
    recorded[1] = piece(800.0, "to_meter", build(ASK))
    compared, _, _ = await had_again(recorded, "meter", {}, clock=clock, wait=0.1)
    assert clock.monotonic() - began < 100
    assert [one.verdict for one in compared] == ["same", "same"]


LOGIN = told(0x02, identifier(0, 1), prm=True)
CONFIRM = asked(0x00, identifier(0, 1), prm=False)
CLOCK = told(0x0C, identifier(0, 2) + bytes.fromhex("000012245126"))
LATER = told(0x0C, identifier(0, 2) + bytes.fromhex("100012245126"))
VERSION = told(0x09, identifier(0, 2))
CONVERSATION = (
    piece(0.0, "from_terminal", LOGIN, line=1),
    piece(0.1, "to_terminal", CONFIRM, line=2),
    piece(0.1, "to_terminal", READS[0], line=3),
    piece(0.2, "from_terminal", CLOCK, line=4),
    piece(0.3, "to_terminal", READS[1], line=5),
    piece(0.4, "from_terminal", VERSION, line=6),
)


async def test_both_sides_of_a_terminals_conversation_can_be_played() -> None:
    compared, ours, made = await had_again(
        CONVERSATION, "master", {CONFIRM: [], READS[0]: [CLOCK], READS[1]: [VERSION]}, first=[LOGIN]
    )
    assert [one.verdict for one in compared] == ["same"] * 4
    assert ours.writes == [CONFIRM, READS[0], READS[1]]
    assert (made.said, made.heard) == (sum(map(len, ours.writes)), len(LOGIN + CLOCK + VERSION))
    compared, ours, _ = await had_again(
        CONVERSATION, "terminal", {LOGIN: [CONFIRM, READS[0]], CLOCK: [READS[1]]}
    )
    assert [one.verdict for one in compared] == ["same"] * 3
    assert ours.writes == [LOGIN, CLOCK, VERSION]


@pytest.mark.parametrize(
    ("instead", "verdicts", "line", "field", "was", "now"),
    [
        (
            [LATER],
            ["same", "same", "value", "same"],
            4,
            "clock",
            "2026-11-24 12:00:00",
            "2026-11-24 12:00:10",
        ),
        ([VERSION], ["same", "same", "other", "same"], 4, "AFN", None, None),
        ([CLOCK[:-1]], ["same", "same", "other", "same"], 4, "bytes", CLOCK.hex(), None),
        ([], ["same", "same", "other", "same"], 4, "no answer", CLOCK.hex(), None),
        ([b"\x00\x01", CLOCK], ["same", "same", "other", "other"], 4, "bytes", CLOCK.hex(), "0001"),
    ],
    ids=["value", "other", "damaged", "silence", "noise before it"],
)
async def test_the_first_difference_is_named(
    instead: list[bytes], verdicts: list[str], line: int, field: str, was: str | None, now: str | None
) -> None:
    whole = sum(map(len, instead)) >= len(CLOCK)
    compared, _, _ = await had_again(
        CONVERSATION,
        "master",
        {READS[0]: instead, READS[1]: [VERSION]},
        first=[LOGIN],
        wait=10.0 if whole else 0.5,
    )
    first = next(one.difference for one in compared if one.difference)
    assert [one.verdict for one in compared] == verdicts
    assert (first.line, first.field.rpartition(" / ")[2]) == (line, field)
    assert was is None or first.expected == was
    assert now is None or first.got == now


async def test_what_is_said_beyond_the_recording_is_a_difference() -> None:
    compared, _, _ = await had_again(
        CONVERSATION, "master", {READS[0]: [CLOCK], READS[1]: [VERSION, CLOCK]}, first=[LOGIN]
    )
    assert [one.verdict for one in compared] == ["same", "same", "same", "other"]
    assert compared[-1].difference
    assert compared[-1].difference.field == "frame that was not recorded"


async def test_what_a_meter_says_too_late_or_twice_belongs_to_its_own_question() -> None:
    ask, answer = build(ASK), answer_of(build(ASK))
    volts = build(Frame(METER, 0x11, bytes.fromhex("00010102")))
    recorded = [
        piece(0.0, "to_meter", ask),
        piece(0.1, "from_meter", answer),
        piece(0.2, "to_meter", volts),
        piece(0.3, "from_meter", answer_of(volts)),
    ]
    twice = {ask: [answer + answer], volts: [answer_of(volts)]}
    compared, ours, _ = await had_again(recorded, "meter", twice)
    assert [one.verdict for one in compared] == ["other", "same"]
    assert ours.writes == [b"\xfe" * 4 + ask, b"\xfe" * 4 + volts]


async def test_a_link_that_ends_early_leaves_the_rest_without_answers() -> None:
    ours, theirs = pair()
    made = Replay(Door(ours, "master", Simple()), Clock(), Patience(0.1))
    await theirs.write(LOGIN)
    await theirs.close()
    compared = await made.run(conversation.turns(CONVERSATION, "master"), fast=True)
    assert made.lost
    assert [one.verdict for one in compared] == ["same", "same", "other", "other"]


def judged(was: bytes, now: bytes, *ignore: str) -> Judged:
    (cut,) = Cutter().take(now)
    return judge(piece(0.0, "from_terminal", was, line=1), cut, ignoring(list(ignore)), 0.0)


def with_sequence(raw: bytes, pseq: int) -> bytes:
    from protocols.q_gdw376.frame import build as build_376

    return build_376(replace(parse_376(raw), pseq=pseq))


def test_only_what_is_named_may_differ() -> None:
    assert judged(CLOCK, LATER).verdict == "value"
    assert judged(CLOCK, LATER, "pseq").verdict == "value"
    assert judged(CLOCK, LATER, "clock") == Judged("same", None, ("clock",))
    assert judged(CLOCK, CLOCK, "clock") == Judged("same")
    both = with_sequence(LATER, 3)
    assert judged(CLOCK, both, "clock").verdict == "value"
    assert judged(CLOCK, both, "clock", "pseq").ignored == ("clock", "pseq") or judged(
        CLOCK, both, "clock", "pseq"
    ).ignored == ("pseq", "clock")
    assert judged(CLOCK, both, "clock").difference == replace(
        judged(CLOCK, with_sequence(CLOCK, 3)).difference  # type: ignore[type-var]  # it is one
    )
    assert judged(CLOCK, VERSION, "clock", "pseq").verdict == "other"
    with pytest.raises(InputError, match="weather"):
        ignoring(["clock", "weather"])


def test_a_lead_in_counts_where_it_was_written_down() -> None:
    answer = answer_of(build(ASK))
    (two,) = Cutter().take(b"\xfe\xfe" + answer)
    assert (two.raw, two.lead) == (answer, 2)
    assert judge(piece(0, "from_meter", answer, None), two, frozenset(), 0.0).verdict == "same"
    assert judge(piece(0, "from_meter", answer, 2), two, frozenset(), 0.0).verdict == "same"
    assert judge(piece(0, "from_meter", answer, 1), two, frozenset(), 0.0).difference
    assert judge(piece(0, "from_meter", answer, 1), two, ignoring(["lead"]), 0.0) == Judged(
        "same", None, ("lead",)
    )
    assert piece(0, "to_meter", answer).whole == b"\xfe" * 4 + answer
    assert piece(0, "to_meter", answer, 0).whole == answer
    assert piece(0, "to_terminal", CLOCK).whole == CLOCK
    read_again = next(
        conversation.pieces([json.dumps({"t": 0, "dir": "to_meter", "hex": "fefe" + answer.hex()})])
    )
    assert (read_again.raw, read_again.lead) == (answer, 2)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_stream_is_cut_whatever_its_pieces(size: int) -> None:
    stream = b"\x01\xfe\xfe" + build(ASK) + CLOCK + b"\xfe" + TRIP + b"\x68\x02" + LOGIN + b"\x68\x68"
    cutter = Cutter()
    cuts = [cut for at in range(0, len(stream), size) for cut in cutter.take(stream[at : at + size])]
    cuts += cutter.end()
    frames = [cut for cut in cuts if cut.family]
    assert [cut.raw for cut in frames] == [build(ASK), CLOCK, TRIP, LOGIN]
    assert [cut.lead for cut in frames] == [2, 0, 1, 0]
    assert b"".join(cut.raw for cut in cuts if not cut.family) == b"\x01\x68\x02\x68\x68"
    assert cutter.held == 0


@pytest.mark.parametrize("data", [b"\x68\xfe\xff\xfe\xff\x68" + bytes(2000), b"\xfe" * 2000])
def test_what_never_becomes_a_frame_is_not_held_for_ever(data: bytes) -> None:
    cutter = Cutter()
    for _ in range(20):
        cutter.take(data)
        assert cutter.held <= conversation.HELD


def test_the_two_families_are_told_apart() -> None:
    meter, terminal = piece(0, "to_meter", build(ASK)), CONVERSATION[0]
    assert conversation.family_of([meter]) is Family.METER
    assert conversation.family_of([terminal]) is Family.TERMINAL
    assert conversation.family_of([piece(0, "unclear", b"\x68")]) is None
    with pytest.raises(InputError, match="two files"):
        conversation.family_of([meter, terminal])


# from between the two


async def test_a_tap_passes_every_byte_on_and_writes_both_sides_down() -> None:
    device, terminal = pair()
    master, head_end = pair()
    kept: list[Piece] = []
    tapping = asyncio.create_task(conversation_tap.tap(device, master, Clock(), kept.append, 0.5))
    for raw in (b"\x00junk", LOGIN[:9], LOGIN[9:] + CLOCK):
        await terminal.write(raw)
    await until(lambda: len(kept) == 3)
    await head_end.write(CONFIRM + b"\xfe" + read("02010100"))
    await until(lambda: len(kept) == 5)
    await terminal.close()
    with pytest.raises(LinkClosed):
        await tapping
    assert b"".join(master.writes) == b"\x00junk" + LOGIN + CLOCK
    assert b"".join(device.writes) == CONFIRM + b"\xfe" + read("02010100")
    assert [(one.direction, one.raw, one.lead) for one in kept] == [
        ("from_terminal", b"\x00junk", None),
        ("from_terminal", LOGIN, None),
        ("from_terminal", CLOCK, None),
        ("to_terminal", CONFIRM, None),
        ("to_meter", read("02010100"), 1),
    ]
    assert (await head_end.read())[0] == b"\x00junk" + LOGIN + CLOCK
    with pytest.raises(LinkClosed):
        await head_end.read()


async def test_record_stands_between_and_replay_plays_the_master_to_who_dials_in(tmp_path: Path) -> None:
    file, shut = tmp_path / "tapped.jsonl", asyncio.Event()
    port = free_port()

    async def gateway(link: Link) -> None:
        assert (await link.read())[0] == LOGIN
        await link.write(CONFIRM + READS[0])
        assert (await link.read())[0] == CLOCK
        shut.set()

    listener = await tcp_listener.listen("127.0.0.1", 0, gateway)
    words = [
        "record",
        f"listen:tcp://127.0.0.1:{port}",
        str(file),
        "--to",
        f"tcp://127.0.0.1:{listener.port}",
    ]
    recording = asyncio.create_task(asyncio.to_thread(runner.invoke, app, words))
    await as_terminal(port)
    result = await recording
    assert shut.is_set()
    await listener.close()
    assert result.exit_code == 1, result.output  # the link has ended
    assert [json.loads(line)["hex"] for line in file.read_text().splitlines()] == [
        raw.hex() for raw in (LOGIN, CONFIRM, READS[0], CLOCK)
    ]
    words = ["replay", str(file), f"listen:tcp://127.0.0.1:{port}", "--as", "master", "--json"]
    replaying = asyncio.create_task(asyncio.to_thread(runner.invoke, app, words))
    await as_terminal(port)
    result = await replaying
    assert result.exit_code == 0, (result.output, result.stderr)
    assert json.loads(result.stdout)["same"] == 3


async def as_terminal(port: int) -> None:
    """Dial until somebody is there, log in, tell the clock, and go."""

    async def dialled() -> Link:
        while True:
            try:
                return await tcp_client.connect("127.0.0.1", port)
            except LinkClosed:
                await asyncio.sleep(0.05)

    link = await asyncio.wait_for(dialled(), 20)
    await link.write(LOGIN)
    heard = b""
    while len(heard) < len(CONFIRM + READS[0]):
        heard += (await link.read())[0]
    assert heard == CONFIRM + READS[0]
    await link.write(CLOCK)
    with pytest.raises(LinkClosed):
        await link.read()
    await link.close()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "either CHANNEL or --simulator"),
        (["tcp://127.0.0.1:9", "--simulator", "terminal"], "either CHANNEL or --simulator"),
        (["tcp://127.0.0.1:9"], "--as master"),
        (["--simulator", "line"], "not whom this conversation"),
        (["--simulator", "terminal", "--as", "terminal"], "not whom this conversation"),
        (["--simulator", "district --terminals 1"], "begins with one of"),
        (["listen:mqtt://127.0.0.1", "--as", "master"], "never listened for"),
        (["tcp://127.0.0.1:9", "--as", "master", "--ignore", "weather"], "weather"),
    ],
)
def test_what_does_not_go_together_is_said(tmp_path: Path, words: list[str], message: str) -> None:
    file = file_of(tmp_path / "conversation.jsonl", *CONVERSATION)
    result = runner.invoke(app, ["replay", str(file), *words])
    assert result.exit_code in (1, 2)
    assert message in result.stderr


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
        refuse_danger([Piece(0.0, "to_meter", bytes.fromhex("683200320068c914"))], "meter")


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
