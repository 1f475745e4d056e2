"""The command line of the simulator: four kinds of thing to play, and the wires to play them over."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from simulator import channel
from simulator.clock import seconds_of
from simulator.district import FIRST_AREA_CODE
from simulator.esam import BENCH_KEY

_METER = re.compile(r"(?P<address>[0-9]{1,12})(?::(?P<edition>2007|1997))?(?::(?P<baud>[0-9]+))?")


@dataclass(frozen=True, slots=True)
class MeterSpec:
    """A meter that was named: ADDRESS[:EDITION[:BAUD]]."""

    address: str
    edition: str = "2007"
    baud: int | None = None


def parser(about: str | None) -> argparse.ArgumentParser:
    """Of `python -m simulator`; `command` holds which of them was called."""
    whole = argparse.ArgumentParser(prog="python -m simulator", description=about)
    commands = whole.add_subparsers(required=True, dest="command", metavar="district|terminal|line|meter")
    district = commands.add_parser("district", help="a region of terminals and meters, grown from a seed")
    _growing(district.add_argument, terminals=True)
    _terminals(district.add_argument)
    terminal = commands.add_parser("terminal", help="one terminal (Q/GDW 376.1) with meters behind it")
    terminal.add_argument("--address", type=_terminal_address, metavar="A", help="such as 02001234")
    terminal.set_defaults(terminals=1)
    _growing(terminal.add_argument)
    _terminals(terminal.add_argument)
    line = commands.add_parser("line", help="several meters that speak DL/T 645 on one line")
    line.add_argument(
        "--meter", type=_meter, action="append", dest="named", metavar="ADDRESS[:EDITION[:BAUD]]",
        help="this one, and those named besides, in place of grown ones",
    )  # fmt: skip
    line.add_argument("--meters-1997", type=int, default=0, metavar="N", help="of the grown ones, the last N")
    _growing(line.add_argument, meters=3)
    _line(line.add_argument)
    meter = commands.add_parser("meter", help="one meter that speaks DL/T 645")
    meter.add_argument("--address", type=_meter, metavar="A", help="12 digits; shorter ones get zeros before")
    meter.add_argument("--edition", choices=("2007", "1997"), default="2007")
    meter.set_defaults(meters=1, meters_1997=0)
    _growing(meter.add_argument, meters=1)
    _line(meter.add_argument)
    for each in (district, terminal):
        each.set_defaults(is_line=False)
    for each in (line, meter):
        each.set_defaults(is_line=True, terminals=1)
    for each in (district, terminal, line, meter):
        _wires(each.add_argument)
        _running(each.add_argument)
    return whole


_Add = Callable[..., Any]


def _growing(add: _Add, *, terminals: bool = False, meters: int = 10) -> None:
    """What there is. terminals: how many and the day must be said. meters: by default; 1: for good."""
    yesterday = (datetime.now(UTC) + timedelta(hours=8)).date() - timedelta(days=1)
    if terminals:
        add("--terminals", type=int, required=True, metavar="N")
    if meters != 1:
        default: dict[str, Any] = {"required": True} if terminals else {"default": meters}
        add("--meters", type=int, metavar="M", help="in all, gateway meters included", **default)
    add("--seed", type=int, default=1, metavar="S", help="equal seeds grow equal districts (default 1)")
    add(
        "--area-code",
        type=int,
        default=FIRST_AREA_CODE,
        metavar="N",
        help="of the first terminal (default 200): with another one all addresses are others, for a gateway"
        " to which more than one of us is played",
    )
    day: dict[str, Any] = {"required": True} if terminals else {"default": yesterday}
    add("--day", type=date.fromisoformat, metavar="D", help="business day, YYYY-MM-DD", **day)
    add("--assets", type=Path, metavar="DIR", help="write terminals.csv and meters.csv there")
    add("--truth", type=Path, metavar="FILE", help="write what the registers held when D ended")
    add("--faults", type=Path, metavar="FILE", help="JSON or TOML: see simulator/faults.py")
    add("--profile", default="", help="profile of all terminals in terminals.csv")
    add(
        "--ledger",
        type=Path,
        metavar="FILE",
        help="write there, synced, what the meters saw of relay control",
    )
    add(
        "--pushes",
        type=Path,
        metavar="FILE",
        help="write there what terminals sent of their own accord, and what of it was acknowledged",
    )
    add("--esam-key", type=_key, metavar="FILE", help="32 hex digits: master key of the meters' ESAMs")


def _terminals(add: _Add) -> None:
    add("--heartbeat", type=_positive, default=60.0, metavar="SECONDS", help="(default 60)")
    add("--ready-from", metavar="HH:MM", help="when the first terminal is done with its nightly reading")
    add("--ready-until", metavar="HH:MM", help="when the last one is (neither: all values are there at once)")
    add("--td-d-names", choices=("ended_day", "freeze_day"), default="ended_day", help="what Td_d names")


def _line(add: _Add) -> None:
    add(
        "--name",
        metavar="NAME",
        help="of the line, in events and for {name} (default: its terminal's address)",
    )
    add("--baud", type=int, default=2400, metavar="BIT/S", help="of meters of which no other was said (2400)")
    add("--paced", action="store_true", help="bytes take their time: 11 bits each, at the meter's speed")
    add("--pty", action="store_true", help="the same as --listen pty")
    add(
        "--registration",
        type=_text,
        default=b"",
        metavar="TEXT",
        help="said when a link begins; hex:… for bytes",
    )
    add("--heartbeat-text", type=_text, default=b"", metavar="TEXT", help="said from time to time; or hex:…")
    add(
        "--heartbeat",
        type=_positive,
        default=60.0,
        metavar="SECONDS",
        help="between these texts (default 60)",
    )
    add("--noise", type=float, default=0.0, metavar="0..1", help="answers with rubbish before and after them")
    add("--damage", type=float, default=0.0, metavar="0..1", help="answers with a wrong byte")
    add("--silence", type=float, default=0.0, metavar="0..1", help="questions without an answer")
    add(
        "--drop", type=float, default=0.0, metavar="0..1", help="answers in the middle of which the link ends"
    )
    add("--echo", action="store_true", help="all that is written comes back")
    add("--slow", type=float, default=0.0, metavar="SECONDS", help="more between two bytes of an answer")


def _wires(add: _Add) -> None:
    add("--connect", type=_channel, metavar="CHANNEL", help=f"dial in there until SIGTERM: {channel.FORMS}")
    add(
        "--listen", type=_channel, metavar="CHANNEL",
        help="be dialled: tcp, tcps and udp (a port for each terminal, from the given one on; 0: free ones),"
        " serial, pty",
    )  # fmt: skip
    add("--tls-ca", type=Path, metavar="FILE", help="PEM of who signs the other side")
    add("--tls-cert", type=Path, metavar="FILE", help="PEM of our own certificate")
    add("--tls-key", type=Path, metavar="FILE")
    add("--tls-name", metavar="NAME", help="of the other side in its certificate (default: the host)")
    add("--mqtt-version", choices=("3.1.1", "5"), default="5")
    add(
        "--mqtt-clients",
        type=int,
        default=0,
        metavar="N",
        help="so many share all terminals (0: one for each)",
    )
    add("--mqtt-payload", choices=("raw", "hex", "json", "base64"), default="raw", help="base64: in JSON")
    add("--mqtt-frame-key", default="frame", metavar="KEY")
    add("--mqtt-time-key", metavar="KEY", help="say there when it was sent, in milliseconds")
    for place in ("up", "down", "will"):
        add(f"--mqtt-{place}", metavar="TOPIC", help=f"(lingdian/{{terminal}}/{place})")
    add("--mqtt-login", metavar="TOPIC", help="where gateways take turns at logins (that of --mqtt-up)")
    add("--mqtt-offline", default="offline", metavar="TEXT", help="the last will's payload")
    add("--mqtt-identifier", default="simulator-{terminal}", metavar="TEXT")
    add("--mqtt-user", metavar="USER", help="{terminal} stands for the terminal")
    add("--mqtt-password-file", type=Path, metavar="FILE")


def _running(add: _Add) -> None:
    add("--seconds", type=_positive, metavar="S", help="stop after so many real seconds")
    add("--clock-start", type=seconds_of, metavar="ISO", help="district time, with offset, at --clock-origin")
    add("--clock-origin", type=float, metavar="EPOCH", help="real time at which it begins (default now)")
    add(
        "--clock-stands",
        action="store_true",
        help="it shows --clock-start for ever: equal questions have equal answers, and nothing that waits"
        " comes due (heartbeats, tasks, relays that wait)",
    )
    add("--clock-speed", type=_positive, default=1.0, metavar="X", help="(default 1)")
    add("--json", action="store_true", help="print each milestone as a line of JSON")
    add("--frames", action="store_true", help="with --json: print all bytes that pass, too")


def _key(text: str) -> bytes:
    try:
        key = bytes.fromhex(Path(text).read_text(encoding="ascii"))
    except (OSError, ValueError):
        key = b""
    if len(key) != len(BENCH_KEY):
        raise argparse.ArgumentTypeError(f"{text} does not hold {2 * len(BENCH_KEY)} hex digits")
    return key


def _channel(text: str) -> channel.Channel:
    try:
        return channel.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _meter(text: str) -> MeterSpec:
    match = _METER.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not ADDRESS[:EDITION[:BAUD]], edition 2007 or 1997")
    baud = match["baud"]
    return MeterSpec(match["address"].zfill(12), match["edition"] or "2007", int(baud) if baud else None)


def _terminal_address(text: str) -> str:
    if not re.fullmatch(r"[0-9]{4}[0-9a-fA-F]{4}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not 4 digits and 4 hex digits")
    return text.lower()


def _text(text: str) -> bytes:
    if not text.startswith("hex:"):
        return text.encode("utf-8")
    try:
        return bytes.fromhex(text[4:])
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not hex") from None


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return value
