"""The evidence of relay commands: fetch it, and check it without gateway or database."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.invocation import ExitCode, JsonFlag, answer, say, show
from gateway.cli.relay_options import PATH, CommandId, TokenFile, Url, gateway_of
from gateway.errors import InputError

if TYPE_CHECKING:
    from gateway.control.verification import Verdict


def evidence(
    context: typer.Context,
    command: CommandId,
    out: Annotated[
        Path | None, typer.Option(help="File to write; - for standard output. By default relay-ID.json.")
    ] = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Fetch the evidence of a command 取证, and check it as `verify` does. Exit 1 where it does not hold."""
    with gateway_of(context, url, token_file) as gateway:
        raw = gateway.file(f"{PATH}/{command}/evidence")
    path = Path(f"relay-{command}.json") if out is None else out
    if str(path) == "-":
        sys.stdout.buffer.write(raw)
        sys.stdout.flush()
    else:
        try:
            with path.open("xb") as file:
                file.write(raw)
        except FileExistsError as error:
            raise InputError(f"{path} is there already 文件已存在: name another with --out") from error
        except OSError as error:
            raise InputError(f"{path} cannot be written 无法写入: {error.strerror}") from error
    if not tell_verdict(str(path), _verdict(raw, {}), say):
        raise typer.Exit(ExitCode.WRONG)


def verify(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="As `relay evidence` wrote them.")],
    seal: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N:DIGEST", help="A seal that was kept elsewhere; may be given again. See docs/relay.md."
        ),
    ] = None,
    frame_secret: Annotated[
        Path | None,
        typer.Option(
            metavar="SECRET",
            help="File with the frame secret of the installation, as hex: frames with a password are held"
            " against their hash too, some seconds each. See docs/relay.md.",
        ),
    ] = None,
    json_output: JsonFlag = False,
) -> None:
    """Check evidence without gateway or database 核验证据: chain, states, proofs, columns, seals.

    Exit 0: all of it holds; 1: something is wrong, and it is said what and where.
    """
    secret = None if frame_secret is None else _secret(frame_secret)
    kept = dict(_seal(one) for one in seal or ())
    sound, told = True, []
    for path in files:
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path} cannot be read 无法读取: {error.strerror}") from error
        verdict = _verdict(raw, kept, secret)
        sound = sound and verdict.sound
        if json_output:
            told.append(_plain(str(path), verdict))
        else:
            tell_verdict(str(path), verdict, show)
    if json_output:
        answer({"sound": sound, "files": told})
    if not sound:
        raise typer.Exit(ExitCode.WRONG)


def _verdict(raw: bytes, kept: dict[int, str], secret: bytes | None = None) -> Verdict:
    from gateway.control import verification  # only two commands need what it imports
    from gateway.storage.frame_secret import FrameSecret

    return verification.verify(raw, seals=kept, secret=None if secret is None else FrameSecret(secret))


def _secret(path: Path) -> bytes:
    try:
        secret = bytes.fromhex(path.read_text(encoding="ascii"))
    except OSError as error:
        raise InputError(f"{path} cannot be read 无法读取: {error.strerror}") from error
    except ValueError:
        secret = b""
    if len(secret) != 32:
        raise typer.BadParameter("64 hex digits are wanted in the file", param_hint="--frame-secret")
    return secret


def _seal(text: str) -> tuple[int, str]:
    number, _, digest = text.partition(":")
    if not number.isdecimal() or len(digest) != 64:
        raise typer.BadParameter(
            "a seal is its number, a colon and its digest: 17:9f86d0…", param_hint="--seal"
        )
    return int(number), digest.lower()


def tell_verdict(name: str, verdict: Verdict, tell: Callable[[str], None]) -> bool:
    """What was found in one file; whether it holds."""
    for one in verdict.wrong:
        tell(f"{name}: {one.place}: {one.what} {one.what_zh}")
    for remark in verdict.remarks:
        tell(f"{name}: {remark}")
    if not verdict.sound:
        tell(f"{name}: does not hold 证据不成立")
        return False
    tell(
        f"{name}: holds 证据成立: {verdict.action} of meter 电能表 {verdict.meter}, {verdict.state};"
        f" {verdict.events} events 事件, {verdict.sealed} sealed 已封印"
    )
    tell(
        f"{name}: {verdict.compared} frames held against their hash 已核对帧哈希;"
        f" {verdict.keyed} not, they hide a password 含密码未核对"
    )
    for number, digest in verdict.seals[-1:]:
        tell(f"{name}: compare with the seal kept elsewhere 与另存封印核对: {number}:{digest}")
    return True


def _plain(name: str, verdict: Verdict) -> dict[str, Any]:
    return {
        "file": name,
        "sound": verdict.sound,
        "wrong": [one._asdict() for one in verdict.wrong],
        "remarks": verdict.remarks,
        "command": verdict.command,
        "meter": verdict.meter,
        "action": verdict.action,
        "state": verdict.state,
        "events": verdict.events,
        "sealed": verdict.sealed,
        "frames_compared": verdict.compared,
        "frames_not_compared": verdict.keyed,
        "seals": [{"seal": number, "digest": digest} for number, digest in verdict.seals],
        "timeline": [one._asdict() for one in verdict.entries],
    }
