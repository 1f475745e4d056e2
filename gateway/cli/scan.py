"""`lingdian scan`: which meters are on this line?"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import Annotated, Any, Final

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from gateway.cli.invocation import ExitCode, JsonFlag, answer, progress_console, say
from gateway.cli.painting import screen
from gateway.clock import Clock
from gateway.errors import ConfigurationError
from gateway.field.line import MeterLine, Timing
from gateway.field.narrowing import MOST, Range
from gateway.field.scan import SPEEDS, FoundMeter, Plan, Scan
from gateway.transports import channel as channels
from gateway.transports import ways
from gateway.transports.channel import Channel, SerialChannel

app = typer.Typer()

NETWORK_WAIT_MS: Final = 2000
"""A serial server passes on what it has gathered, and a network adds its own."""

SERIAL_WAIT_MS: Final = 600

WORDS: Final = {
    "number": "表号",
    "clock": "时钟",
    "status_word": "状态字",
    "status_word_3": "状态字3",
    "daily_freeze": "日冻结",
    "voltage": "电压",
    "energy": "电能",
}

ChannelText = Annotated[
    str,
    typer.Argument(
        metavar="CHANNEL", help="serial:///dev/ttyUSB0?parity=E, tcp://HOST:PORT of a serial server, udp://…"
    ),
]
WaitMs = Annotated[
    int | None,
    typer.Option("--wait", min=20, max=90_000, help="Longest wait for an answer, ms (600; by network 2000)."),
]


@app.command("scan")
def scan(
    channel: ChannelText,
    speeds: Annotated[
        str, typer.Option(help="bit/s, in this order (2400,1200,4800,9600); of serial ports only.")
    ] = "",
    first: Annotated[str, typer.Option("--from", help="Lowest address looked for.")] = "0",
    last: Annotated[str, typer.Option("--to", help="Highest address looked for.")] = str(MOST),
    quick: Annotated[
        bool, typer.Option("--quick", help="Do not look for meters that another one's answer drowns.")
    ] = False,
    by_byte: Annotated[
        bool, typer.Option("--by-byte", help="Wildcards of whole bytes alone: slower, by the letter.")
    ] = False,
    limit: Annotated[float, typer.Option(min=1, help="Stop after so many seconds.")] = 1800.0,
    wait: WaitMs = None,
    json_output: JsonFlag = False,
) -> None:
    """Find every meter on a line 搜表: address, speed, edition, and what it can tell. Only reads are sent.

    Ctrl-C, or the limit, ends it with what was found so far.
    Exit 0: done; 1: the line was lost; 3: no meter, not done, or something that could not be told apart.
    """
    way = channels.parse(channel)
    plan = Plan(_speeds(way, speeds), _range(first, last), not quick, by_byte, limit)
    made = asyncio.run(_scan(way, plan, timing_of(way, wait)))
    if json_output:
        answer(as_json(str(way), made))
    else:
        _show(made)
    if made.ended == "lost":
        say(made.why, error=True)
        raise typer.Exit(ExitCode.WRONG)
    if made.ended != "complete" or made.unclear or not made.meters:
        raise typer.Exit(ExitCode.MISSING)


def timing_of(way: Channel, wait_ms: int | None) -> Timing:
    """How patient to be on such a channel. wait_ms: the longest wait, where the user said one."""
    serial = isinstance(way, SerialChannel)
    longest_s = (wait_ms or (SERIAL_WAIT_MS if serial else NETWORK_WAIT_MS)) / 1000
    usual = Timing()
    return Timing(
        longest_wait_s=longest_s,
        shortest_wait_s=min(longest_s, usual.shortest_wait_s),
        between_bytes_s=way.gap_ms / 1000 if isinstance(way, SerialChannel) else usual.between_bytes_s,
    )


def _speeds(way: Channel, text: str) -> tuple[int, ...]:
    if not isinstance(way, SerialChannel):
        if text:
            raise ConfigurationError(
                f"--speeds is for serial ports; {way} has the speed set at its other end 速率由对端设置"
            )
        return ()
    if not text:
        return tuple(dict.fromkeys((way.baud, *SPEEDS)))
    words = [word.strip() for word in text.split(",")]
    known = {str(speed): speed for speed in channels.SPEEDS}
    for word in words:
        if word not in known:
            raise ConfigurationError(f"--speeds: {word!r} is none of {', '.join(known)} 速率无效")
    return tuple(dict.fromkeys(known[word] for word in words))


def _range(first: str, last: str) -> Range:
    for option, text in (("--from", first), ("--to", last)):
        if not text.isascii() or not text.isdecimal() or len(text) > 12:
            raise ConfigurationError(f"{option}: {text!r} is not up to 12 digits 地址无效")
    if int(first) > int(last):
        raise ConfigurationError(f"--from {first} lies above --to {last} 地址范围为空")
    return Range(int(first), int(last))


async def _scan(way: Channel, plan: Plan, timing: Timing) -> Scan:
    """Run it with progress; an interrupt ends it early."""
    link = await ways.opening(way)()
    try:
        with Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=progress_console(),
            transient=True,
        ) as bar:
            task = bar.add_task("scanning 搜表", total=None)
            made = Scan(
                MeterLine(link, Clock(), timing),
                plan,
                lambda scan: bar.update(task, description=_progress(scan)),
            )
            await _interruptible(made)
    finally:
        await link.close()
    return made


async def _interruptible(made: Scan) -> None:
    running = asyncio.ensure_future(made.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(ValueError, RuntimeError):  # not in the main thread
            loop.add_signal_handler(number, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running


def _progress(scan: Scan) -> str:
    speed = f"{scan.line.speed} bit/s, " if scan.line.speed else ""
    return f"{speed}{scan.now_at}, {len(scan.meters)} found 已发现, {scan.line.asked} questions 次询问"


def as_json(way: str, made: Scan) -> dict[str, Any]:
    """The result for a program."""
    return {
        "channel": way,
        "ended": made.ended,
        "seconds": round(made.seconds, 3),
        "questions": made.line.asked,
        "meters": [
            {
                "address": meter.address,
                "speed": meter.speed,
                "edition": meter.edition,
                "number": meter.number,
                "items": meter.items,
                "seconds": round(meter.seconds, 3),
            }
            for meter in made.meters.values()
        ],
        "unclear": [{"speed": one.speed, "pattern": one.pattern} for one in made.unclear],
    }


def _show(made: Scan) -> None:
    out = screen()
    if made.meters:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for title in ("address 地址", "bit/s", "edition 规约", "number 表号", "gives 支持", "after 用时 s"):
            table.add_column(title, no_wrap=True)
        for meter in made.meters.values():
            table.add_row(*_row(meter))
        out.print(table)
    for one in made.unclear:
        at = f" at {one.speed} bit/s" if one.speed else ""
        say(
            f"{one.pattern}{at}: something answers that cannot be told apart 无法分辨:"
            " two meters of one address, or a bad line"
        )
    ended = {
        "complete": "done 完成",
        "limit": "stopped at the limit 超时停止, not complete",
        "interrupted": "interrupted 已中断, not complete",
        "lost": "the line was lost 线路中断",
    }[made.ended]
    out.print(
        f"{len(made.meters)} meters 块表, {made.line.asked} questions 次询问, {made.seconds:.1f} s: {ended}"
    )


def _row(meter: FoundMeter) -> tuple[str, ...]:
    items = " ".join(
        f"{WORDS.get(name, name)}{ {True: '✓', False: '✗', None: '?'}[gives] }"
        for name, gives in meter.items.items()
    )
    return (
        meter.address,
        str(meter.speed or "–"),
        meter.edition,
        meter.number or "–",
        items,
        f"{meter.seconds:.1f}",
    )
