"""A conversation on a line as a file, and the same questions asked again.

One JSON object a line: `t`, seconds since the recording began; `dir`: `to_meter`, `from_meter`, or `unclear`
for what is no whole frame; `hex`. Only reads are asked again. Nothing that a device says of itself proves
that it is our simulator and no meter, so there is no exception.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from gateway.clock import Clock
from gateway.errors import InputError
from gateway.field.line import READS, MeterLine, may_answer
from gateway.transports.link import Link
from protocols.dlt645.description import describe
from protocols.dlt645.frame import LEAD_IN, Frame, build, parse
from protocols.dlt645.stream import FoundFrame, FrameStream
from protocols.errors import RemoteProtocolError

TO_METER, FROM_METER, UNCLEAR = "to_meter", "from_meter", "unclear"
LONGEST_LINE: Final = 8192
MOST_LINES: Final = 200_000
LONGEST_PAUSE_S: Final = 3600.0
"""A pause of a recording is kept for so long at most."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A line of the file."""

    t: float
    direction: str
    raw: bytes

    def as_json(self) -> str:
        told = {"t": round(self.t, 3), "dir": self.direction, "hex": self.raw.hex()}
        return json.dumps(told, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked, and what came to it before the next question."""

    t: float
    asked: Frame
    answers: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """A question asked again. verdict: `same`; `value`: the answer of that meter and item says something
    else; `other`: another answer, or none where there was one, or one where there was none."""

    question: Question
    answers: tuple[bytes, ...]
    verdict: str


async def record(link: Link, clock: Clock, keep: Callable[[Piece], None], quiet_s: float) -> None:
    """Listen, and say nothing, until cancelled; quiet_s: what ends a broken frame. Raises LinkClosed."""
    stream = FrameStream()
    began = heard_at = clock.monotonic()
    while True:
        data, settle = await link.read()
        now = clock.monotonic()
        if now - heard_at > quiet_s:
            stream.end()
            _keep(stream, heard_at - began, keep)
        heard_at = now
        stream.receive_data(data)
        _keep(stream, now - began, keep)
        await settle()


def _keep(stream: FrameStream, t: float, keep: Callable[[Piece], None]) -> None:
    while (event := stream.next_event()) is not None:
        if isinstance(event, FoundFrame):
            keep(Piece(t, FROM_METER if event.frame.from_meter else TO_METER, event.raw))
        else:
            keep(Piece(t, UNCLEAR, event.raw))


def pieces(lines: Iterable[str]) -> Iterator[Piece]:
    """The pieces of a file. InputError names the line that is none."""
    for number, line in enumerate(lines, 1):
        if number > MOST_LINES:
            raise InputError(f"more than {MOST_LINES} lines 文件过长: replay it in parts")
        try:
            told: Any = json.loads(line) if len(line) <= LONGEST_LINE else None
            piece = Piece(float(told["t"]), str(told["dir"]), bytes.fromhex(told["hex"]))
        except (ValueError, TypeError, KeyError):
            piece = None
        if piece is None or piece.direction not in (TO_METER, FROM_METER, UNCLEAR) or not piece.t >= 0:
            raise InputError(f'line {number} is not {{"t":…,"dir":…,"hex":…}} 记录格式有误')
        yield piece


def questions(recorded: Iterable[Piece]) -> list[Question]:
    """What may be asked again. InputError for a frame that does more than read: then nothing of the file is
    sent."""
    found: list[Question] = []
    for number, piece in enumerate(recorded, 1):
        if piece.direction == TO_METER:
            found.append(Question(piece.t, _read(piece.raw, number), ()))
        elif piece.direction == FROM_METER and found:
            last = found[-1]
            found[-1] = Question(last.t, last.asked, (*last.answers, piece.raw.lstrip(bytes([LEAD_IN]))))
    return found


def _read(raw: bytes, number: int) -> Frame:
    try:
        frame = parse(raw.lstrip(bytes([LEAD_IN])))
    except RemoteProtocolError as error:
        raise InputError(f"line {number} is no frame of DL/T 645 不是645帧: {error.reason}") from error
    if frame.control not in READS:
        what = describe(frame).get("function", f"{frame.control:02X}H")
        raise InputError(
            f"line {number} is to do more than read 非读命令 ({what}): such frames are replayed to nobody;"
            " take the line out to replay the rest"
        )
    return frame


async def replay(line: MeterLine, asked: list[Question], *, fast: bool) -> list[Compared]:
    """Ask again, at the pace of the recording or without its pauses, and compare. Raises LinkClosed."""
    compared: list[Compared] = []
    began = line.clock.monotonic()
    begins = asked[0].t if asked else 0.0
    for question in asked:
        if not fast:
            pause = question.t - begins - (line.clock.monotonic() - began)
            await line.clock.sleep(min(max(0.0, pause), LONGEST_PAUSE_S))
        heard = await line.ask(question.asked, patient=True)
        answers = tuple(build(frame) for frame in heard.frames)
        compared.append(Compared(question, answers, _verdict(question, answers, heard.damage)))
    return compared


def _verdict(question: Question, answers: tuple[bytes, ...], damage: bytes) -> str:
    if answers == question.answers and not (damage and answers):
        return "same"
    if _kinds(question, answers) == _kinds(question, question.answers) and answers:
        return "value"
    return "other"


def _kinds(question: Question, answers: tuple[bytes, ...]) -> list[tuple[str, int, bool]]:
    """Who said what kind of thing, of the item that was asked for or another."""
    frames = [parse(raw) for raw in answers]
    return [(frame.address, frame.control, may_answer(frame, question.asked)) for frame in frames]
