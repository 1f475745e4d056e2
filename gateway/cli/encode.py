"""`lingdian encode`: a frame from names."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Annotated, Any

import typer

from gateway.cli.invocation import ExitCode, JsonFlag, answer, say
from protocols.errors import LocalProtocolError

app = typer.Typer()

_METER = re.compile(r"[0-9Aa]{12}")
_TERMINAL = re.compile(r"[0-9A-Fa-f]{8}")
_REASON = "lingdian encode --simulator"


@app.command("encode")
def encode(
    address: Annotated[
        str, typer.Argument(help="A meter's 12 digits (DL/T 645) or a terminal's 8 hex digits (Q/GDW 376.1).")
    ],
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="WORD...",
            help="Meter: action, then item (DI or name), then values. Terminal: AFN and Fn (0d F161) or the "
            "class's name, then FIELD=VALUE (a list or a bit string as JSON).",
        ),
    ],
    simulator: Annotated[
        bool,
        typer.Option(
            "--simulator",
            help="Build a frame that switches, writes, clears or resets, too: for our simulator only.",
        ),
    ] = False,
    json_output: JsonFlag = False,
    edition: Annotated[str, typer.Option(help="645: 2007 or 1997.")] = "2007",
    level: Annotated[str, typer.Option(help="645: password level PA.")] = "02",
    password: Annotated[
        str, typer.Option(help="645: password P2P1P0, 6 digits (000000); 376.1: PW in hex (zeros).")
    ] = "",
    operator: Annotated[str, typer.Option(help="645: operator code, 8 digits.")] = "00000000",
    at: Annotated[
        str, typer.Option("--at", help="645: time to set, deadline, or beginning: 2026-11-24T10:00[:00].")
    ] = "",
    number: Annotated[
        int | None, typer.Option(help="645: SEQ, blocks to read, or minutes until the meter restores itself.")
    ] = None,
    lead_in: Annotated[int, typer.Option(min=0, max=8, help="645: FEH before the frame.")] = 0,
    point: Annotated[
        list[int] | None, typer.Option("--point", "-p", help="376.1: pn (0); repeatable.")
    ] = None,
    up: Annotated[bool, typer.Option("--up", help="376.1: what the terminal says.")] = False,
    pseq: Annotated[int, typer.Option(help="376.1: PSEQ or RSEQ.")] = 0,
    msa: Annotated[int, typer.Option(help="376.1: master address.")] = 0,
    con: Annotated[bool, typer.Option("--con", help="376.1: to be confirmed.")] = False,
    version: Annotated[str, typer.Option(help="376.1: 2005, 2009 or 2013.")] = "2013",
    setting: Annotated[
        list[str] | None, typer.Option(help="376.1: NAME=WORD that chooses between disputed layouts.")
    ] = None,
) -> None:
    """Build one frame from names and print its hex 组帧.

    Meter actions: read, read-follow-up, read-address, time, write, write-address, freeze, speed, password,
    clear-demand, clear-meter, clear-events, output, security, trip, permit-close, close, trip-then-close,
    trip-then-permit, alarm, clear-alarm, keep-power, release-keep-power; answer, answer-address, answer-done,
    answer-relay, answer-refused for what a meter says.

    Exit 0: built; 1: cannot be built, or is dangerous and --simulator is missing.
    """
    try:
        if _METER.fullmatch(address):
            order: dict[str, Any] = {
                "edition": edition,
                "level": level,
                "operator": operator,
                "number": number,
            }
            order |= {"password": password or "000000", "at": _instant(at)}
            raw = b"\xfe" * lead_in + _meter(address, words, order, simulator)
        elif _TERMINAL.fullmatch(address):
            order = {"points": tuple(point or (0,)), "up": up, "pseq": pseq, "msa": msa, "con": con}
            order |= {"password": _bytes(password) if password else None}
            order |= {"variants": {"version": version, **_pairs(setting or [])}}
            raw = _terminal(address, words, order, simulator, old=version == "2005")
        else:
            raise typer.BadParameter("neither 12 digits nor 8 hex digits", param_hint="ADDRESS")
    except LocalProtocolError as error:
        hint = (
            "; --simulator builds it for our simulator 加 --simulator 仅供模拟器" if _is_gated(error) else ""
        )
        say(f"{error}{hint}", error=True)
        raise typer.Exit(ExitCode.WRONG) from error
    if json_output:
        answer({"hex": raw.hex(), "length": len(raw)})
    else:
        typer.echo(raw.hex())


def _is_gated(error: LocalProtocolError) -> bool:
    return "permit" in str(error)


def _meter(address: str, words: list[str], order: dict[str, Any], simulator: bool) -> bytes:
    from protocols.lens.meter_composition import WITHOUT_ITEM, MeterOrder, compose_meter

    action, *rest = words
    item = "" if action in WITHOUT_ITEM or not rest else rest.pop(0)
    now = datetime.now().replace(microsecond=0) if simulator else None  # noqa: DTZ005  # a meter's wall clock
    told = MeterOrder(address, action, item, tuple(rest), now=now, **order)
    return compose_meter(told, _REASON if simulator else None)


def _terminal(address: str, words: list[str], order: dict[str, Any], simulator: bool, *, old: bool) -> bytes:
    from protocols.lens.terminal_composition import TerminalOrder, compose_terminal

    named = tuple(word for word in words if "=" not in word)
    values = {name: _value(text) for name, text in _pairs([word for word in words if "=" in word]).items()}
    told = TerminalOrder(address, named, values=values, protocol_id=1 if old else 2, **order)
    return compose_terminal(told, _REASON if simulator else None)


def _value(text: str) -> object:
    """Lists and dicts are JSON, whose leaves may be numbers or texts; all else is text as it stands."""
    if text.startswith(("[", "{")):
        try:
            return json.loads(text, parse_float=str)
        except ValueError as error:
            raise LocalProtocolError(f"{text!r} is no JSON: {error}") from None
    return text


def _pairs(words: list[str]) -> dict[str, str]:
    pairs = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise LocalProtocolError(f"{word!r} is not NAME=VALUE")
        pairs[name] = text
    return pairs


def _bytes(digits: str) -> bytes:
    try:
        return bytes.fromhex(digits)
    except ValueError:
        raise LocalProtocolError(f"{digits!r} is not hex") from None


def _instant(text: str) -> datetime | None:
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is not None:
        raise LocalProtocolError(f"{text!r} is no wall clock like 2026-11-24T10:00")
    return at
