"""`lingdian record` and `lingdian replay`: what was said, and one side of it said again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shlex
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from enum import Enum
from pathlib import Path
from typing import IO, Annotated, Any, Final

import structlog
import typer

from gateway.cli import conversation_ends as ends
from gateway.cli.conversation_ends import End
from gateway.cli.invocation import ExitCode, JsonFlag, answer, say, show
from gateway.cli.scan import ChannelText, timing_of
from gateway.clock import Clock
from gateway.errors import ConfigurationError, InputError
from gateway.field import conversation, conversation_tap, own_simulator
from gateway.field.conversation import Piece, Role, Turn
from gateway.field.conversation_difference import IGNORABLE, Difference, ignoring
from gateway.field.conversation_guard import Door, refuse_danger
from gateway.field.conversation_replay import Compared, Patience, Replay
from gateway.field.own_simulator import ROLES
from protocols.lens.places import Family

app = typer.Typer()

VERDICTS: Final = {"same": "same 一致", "value": "another value 数值不同", "other": "another answer 应答不同"}
TERMINAL_WAIT_MS: Final = 5000


class As(Enum):
    """Whom replay plays in a conversation of Q/GDW 376.1."""

    MASTER = "master"
    TERMINAL = "terminal"


class Over(Enum):
    """The wire to a simulator that replay starts."""

    TCP = "tcp"
    UDP = "udp"
    PTY = "pty"


@contextmanager
def _logs_beside() -> Iterator[None]:
    """What transports log goes to standard error, from warnings on; as before afterwards."""
    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        yield
    finally:
        structlog.configure(**before)


@app.command("record")
def record(
    channel: ChannelText,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Written anew; one JSON object a line.")],
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="CHANNEL",
            help="Stand between: CHANNEL leads to the terminal or meters, this to the master 主站; each byte"
            " is passed on. Either may be listen:tcp://… or listen:udp://…, the first also mqtt://…",
        ),
    ] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Stop after so long.")] = None,
) -> None:
    """Listen on a line and write down what is said 录制报文, until Ctrl-C. Nothing is sent, unless --to says
    between whom to pass it on 旁路转发.

    Exit 0: ended by Ctrl-C or after its seconds; 1: the line was lost, what was heard is in the file.
    """
    device = ends.parse(channel)
    master = ends.parse(to) if to else None
    counts: Counter[str] = Counter()
    try:
        with file.open("x", encoding="utf-8") as out, _logs_beside():
            asyncio.run(_record(device, master, out, counts, seconds))
    except FileExistsError as error:
        raise InputError(f"{file} is there already 文件已存在: name another") from error
    except OSError as error:
        raise InputError(f"{file}: {error.strerror} 无法写入") from error
    finally:
        words = ", ".join(f"{count} {direction}" for direction, count in sorted(counts.items()))
        say(f"recorded 已录制: {words or 'nothing 无报文'}")


async def _record(
    device: End, master: End | None, out: IO[str], counts: Counter[str], seconds: float | None
) -> None:
    def keep(piece: Piece) -> None:
        out.write(piece.as_json() + "\n")
        out.flush()
        counts[piece.direction] += 1

    async def listen() -> None:
        quiet_s = timing_of(device.channel, None).between_bytes_s
        async with AsyncExitStack() as stack:
            ours = await stack.enter_async_context(ends.opened(device))
            if master is None:
                await conversation_tap.record(ours, Clock(), keep, quiet_s)
            else:
                theirs = await stack.enter_async_context(ends.opened(master))
                await conversation_tap.tap(ours, theirs, Clock(), keep, quiet_s)

    listening = asyncio.ensure_future(listen())
    _cancel_on_signal(listening)
    with contextlib.suppress(asyncio.CancelledError, TimeoutError):
        await asyncio.wait_for(listening, seconds)


@app.command("replay")
def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False)],
    channel: Annotated[
        str | None,
        typer.Argument(
            metavar="CHANNEL", help="As for record; a terminal may also be listened for, or be at mqtt://…"
        ),
    ] = None,
    simulator: Annotated[
        str | None,
        typer.Option(
            "--simulator",
            metavar="WORDS",
            help="In place of CHANNEL: start a simulator, by the words of `lingdian simulate`, such as"
            " 'terminal --seed 7 --clock-start … --clock-stands' 自启动模拟器. It alone gets"
            " dangerous frames.",
        ),
    ] = None,
    over: Annotated[Over, typer.Option("--over", help="The wire to that simulator.")] = Over.TCP,
    play: Annotated[
        As | None,
        typer.Option("--as", help="376.1: play the master to a terminal, or the terminal to a gateway."),
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Without the recording's pauses.")] = False,
    wait: Annotated[
        int | None,
        typer.Option(
            min=20, max=90_000, help="Longest wait for an answer, ms (600; by network 2000; 376.1 5000)."
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option("--ignore", help=f"What may differ: {', '.join(IGNORABLE)}; repeatable. 可忽略的字段"),
    ] = None,
    json_output: JsonFlag = False,
) -> None:
    """Say one side of a recording again 回放报文, and compare what comes, byte for byte. To anything but a
    simulator that it starts itself only reads are sent: a file with anything else is refused whole.

    Exit 0: all answers are the same; 3: some are not.
    """
    recorded = _read(file)
    ignored = ignoring(ignore or [])
    if (channel is None) is (simulator is None):
        raise ConfigurationError("either CHANNEL or --simulator is needed 需指定通道或模拟器")
    words = shlex.split(simulator or "")
    role = _role(recorded, play, words)
    turns = conversation.turns(recorded, role)
    end = ends.parse(channel) if channel else None
    if end is not None:
        refuse_danger([turn.said for turn in turns if turn.said], role)
    patience = _patience(end, role, wait)
    with _logs_beside():
        made, compared = asyncio.run(_replay(end, words, over, role, turns, patience, ignored, fast))
    _tell(made, compared, json_output, own=end is None)
    if made.lost or any(one.verdict != "same" for one in compared):
        raise typer.Exit(ExitCode.MISSING)


def _read(file: Path) -> list[Piece]:
    try:
        with file.open(encoding="utf-8") as lines:
            return list(conversation.pieces(lines))
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is no text 不是文本文件") from error


def _role(recorded: list[Piece], play: As | None, words: list[str]) -> Role:
    """Whom to play. ConfigurationError, InputError where that does not go together."""
    family = conversation.family_of(recorded)
    wanted: Role
    if family is Family.TERMINAL:
        if play is None and not words:
            raise ConfigurationError(
                "a conversation of Q/GDW 376.1: --as master speaks to a terminal, --as terminal to a gateway"
                " 需用 --as 指定回放哪一方"
            )
        wanted = "terminal" if play is As.TERMINAL else "master"
    elif play is not None:
        raise ConfigurationError("--as is for conversations of Q/GDW 376.1 仅用于376.1会话")
    else:
        wanted = "meter"
    if words and words[0] in ROLES and ROLES[words[0]] != wanted:
        raise InputError(
            f"--simulator: a {words[0]} is not whom this conversation is had with 模拟设备与会话不符"
        )
    return wanted


def _patience(end: End | None, role: Role, wait_ms: int | None) -> Patience:
    usual = Patience()
    if role != "meter":
        return Patience((wait_ms or TERMINAL_WAIT_MS) / 1000, usual.gap, usual.between_bytes)
    if end is None:
        return Patience((wait_ms or TERMINAL_WAIT_MS / 5) / 1000)
    timing = timing_of(end.channel, wait_ms)
    return Patience(timing.longest_wait_s, timing.gap_s, timing.between_bytes_s)


async def _replay(
    end: End | None,
    words: list[str],
    over: Over,
    role: Role,
    turns: list[Turn],
    patience: Patience,
    ignored: frozenset[str],
    fast: bool,
) -> tuple[Replay, list[Compared]]:
    async with _door(end, words, over, role) as door:
        made = Replay(door, Clock(), patience, ignored)
        return made, await made.run(turns, fast=fast)


@asynccontextmanager
async def _door(end: End | None, words: list[str], over: Over, role: Role) -> AsyncIterator[Door]:
    if end is not None:
        async with ends.opened(end) as link:
            yield Door(link, role)
        return
    simulator = await own_simulator.start(words, over.value)
    try:
        assert simulator.link is not None
        yield Door(simulator.link, role, simulator)
    finally:
        await simulator.close()


def _tell(made: Replay, compared: list[Compared], json_output: bool, *, own: bool) -> None:
    counts = Counter(one.verdict for one in compared)
    first = next((one.difference for one in compared if one.difference), None)
    ignored = Counter(word for one in compared for word in one.ignored)
    if made.lost:
        say(f"the link ended before the conversation did 链路提前中断: {made.lost}", error=True)
    if json_output:
        answer(
            {
                "questions": [_as_json(one) for one in compared],
                **{word: counts[word] for word in VERDICTS},
                "first": _difference_json(first),
                "ignored": dict(ignored),
                "bytes": {"said": made.said, "heard": made.heard},
                "lost": made.lost or None,
                "own_simulator": own,
            }
        )
        return
    for one in compared:
        if one.verdict != "same":
            show(f"{one.turn.t:.3f}  {VERDICTS[one.verdict]}: {_hex([cut.raw for cut in one.got])}")
            show(f"    was 原应答: {_hex([piece.raw for piece in one.turn.expected])}")
    if first is not None:
        show(f"first difference 首个差异: {_words(first)}")
    for word, count in sorted(ignored.items()):
        show(f"ignored 已忽略: {word}, {count}")
    show(", ".join(f"{counts[word]} {words}" for word, words in VERDICTS.items()))


def _words(one: Difference) -> str:
    line = f"line {one.line}" if one.line else "beyond the recording 录制之外"
    place = "" if one.at is None else f", byte {one.at}"
    nothing = "nothing 无"
    return (
        f"{line} ({one.t:.3f} s){place}, {one.field} {one.field_zh}:"
        f" expected 应为 {one.expected or nothing}, got 实为 {one.got or nothing}"
    )


def _as_json(one: Compared) -> dict[str, Any]:
    return {
        "t": one.turn.t,
        "verdict": one.verdict,
        "was": [piece.raw.hex() for piece in one.turn.expected],
        "is": [cut.raw.hex() for cut in one.got],
        "difference": _difference_json(one.difference),
    }


def _difference_json(one: Difference | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {
        "line": one.line or None,
        "t": one.t,
        "byte": one.at,
        "field": one.field,
        "field_zh": one.field_zh,
        "expected": one.expected,
        "got": one.got,
    }


def _hex(answers: list[bytes]) -> str:
    return ", ".join(raw.hex(" ") for raw in answers) or "silence 无应答"


def _cancel_on_signal(running: asyncio.Future[None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(ValueError, RuntimeError):  # not in the main thread
            loop.add_signal_handler(number, running.cancel)
