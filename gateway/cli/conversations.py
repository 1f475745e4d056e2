"""`lingdian record` and `lingdian replay`: what was said on a line, and the same questions again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from pathlib import Path
from typing import IO, Annotated

import typer

from gateway.cli.invocation import ExitCode, JsonFlag, answer, say, show
from gateway.cli.scan import ChannelText, WaitMs, timing_of
from gateway.clock import Clock
from gateway.errors import InputError
from gateway.field import conversation
from gateway.field.conversation import Compared, Piece, Question
from gateway.field.line import MeterLine, Timing
from gateway.transports import channel as channels
from gateway.transports import ways
from gateway.transports.channel import Channel

app = typer.Typer()

VERDICTS = {"same": "same 一致", "value": "another value 数值不同", "other": "another answer 应答不同"}


@app.command("record")
def record(
    channel: ChannelText,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Written anew; one JSON object a line.")],
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Stop after so long.")] = None,
) -> None:
    """Listen on a line and write down what is said 录制报文, until Ctrl-C. Nothing is sent.

    Exit 0: ended by Ctrl-C or after its seconds; 1: the line was lost, what was heard is in the file.
    """
    way = channels.parse(channel)
    counts: Counter[str] = Counter()
    try:
        with file.open("x", encoding="utf-8") as out:
            asyncio.run(_record(way, out, counts, seconds))
    except FileExistsError as error:
        raise InputError(f"{file} is there already 文件已存在: name another") from error
    except OSError as error:
        raise InputError(f"{file}: {error.strerror} 无法写入") from error
    finally:
        words = ", ".join(f"{count} {direction}" for direction, count in sorted(counts.items()))
        say(f"recorded 已录制: {words or 'nothing 无报文'}")


async def _record(way: Channel, out: IO[str], counts: Counter[str], seconds: float | None) -> None:
    def keep(piece: Piece) -> None:
        out.write(piece.as_json() + "\n")
        out.flush()
        counts[piece.direction] += 1

    link = await ways.opening(way)()
    listening = asyncio.ensure_future(
        conversation.record(link, Clock(), keep, timing_of(way, None).between_bytes_s)
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(ValueError, RuntimeError):  # not in the main thread
            loop.add_signal_handler(number, listening.cancel)
    try:
        with contextlib.suppress(asyncio.CancelledError, TimeoutError):
            await asyncio.wait_for(listening, seconds)
    finally:
        await link.close()


@app.command("replay")
def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False)],
    channel: ChannelText,
    fast: Annotated[bool, typer.Option("--fast", help="Without the recording's pauses.")] = False,
    wait: WaitMs = None,
    json_output: JsonFlag = False,
) -> None:
    """Ask what was asked in a recording again 回放报文, and compare the answers. Only reads are sent: a file
    with anything else is refused whole.

    Exit 0: all answers are the same; 3: some are not.
    """
    way = channels.parse(channel)
    try:
        with file.open(encoding="utf-8") as lines:
            asked = conversation.questions(conversation.pieces(lines))
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is no text 不是文本文件") from error
    compared = asyncio.run(_replay(way, asked, timing_of(way, wait), fast))
    counts = Counter(one.verdict for one in compared)
    if json_output:
        answer(
            {"questions": [_as_json(one) for one in compared], **{word: counts[word] for word in VERDICTS}}
        )
    else:
        for one in compared:
            if one.verdict != "same":
                show(f"{one.question.t:.3f}  {VERDICTS[one.verdict]}: {_hex(one.answers)}")
                show(f"    was 原应答: {_hex(one.question.answers)}")
        show(", ".join(f"{counts[word]} {words}" for word, words in VERDICTS.items()))
    if counts["same"] < len(compared):
        raise typer.Exit(ExitCode.MISSING)


async def _replay(way: Channel, asked: list[Question], timing: Timing, fast: bool) -> list[Compared]:
    link = await ways.opening(way)()
    try:
        return await conversation.replay(MeterLine(link, Clock(), timing), asked, fast=fast)
    finally:
        await link.close()


def _as_json(one: Compared) -> dict[str, object]:
    return {
        "t": one.question.t,
        "verdict": one.verdict,
        "was": [raw.hex() for raw in one.question.answers],
        "is": [raw.hex() for raw in one.answers],
    }


def _hex(answers: tuple[bytes, ...]) -> str:
    return ", ".join(raw.hex(" ") for raw in answers) or "silence 无应答"
