"""`lingdian relay`: ask for a relay to be switched, follow what becomes of it, and check the evidence of it.

All of it but `verify` asks the running gateway, by the same routes and rules as billing does.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID, uuid4

import typer

from gateway.cli.client import Afar, Gateway, Refusal
from gateway.cli.invocation import (
    CommandGroup,
    ExitCode,
    JsonFlag,
    NoGateway,
    answer,
    of,
    say,
    show,
)
from gateway.clock import SHANGHAI, to_device
from gateway.command import ENDS, State
from gateway.errors import ConfigurationError, InputError

if TYPE_CHECKING:
    from gateway.control.verification import Verdict

app = typer.Typer()
relay_commands = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    help="Relays 费控继电器: trip, close, permit-close, restore, keep-power; what became of it; the proof.",
    epilog="Exit codes of what asks for a switching: 0 verified (without --wait: accepted), 3 still open at"
    " the time limit, 4 refused, failed, cancelled, expired or superseded; 4 and nothing on standard output:"
    " no gateway runs.",
)

ENDED_OTHERWISE: Final = 4
"""Exit code: the command has ended, and what was wanted was not done by it."""

WAIT_SECONDS: Final = 600.0
"""A household behind a slow carrier is answered within some minutes."""

POLL_SECONDS: Final = 0.5
"""Between two looks while waiting."""

PATH: Final = "/api/v1/relay-commands"

Meter = Annotated[str, typer.Argument(metavar="METER", help="Asset number, or address where it is unique.")]
CommandId = Annotated[UUID, typer.Argument(metavar="ID", help="Number of the command.")]
Reason = Annotated[str, typer.Option(help="Why, for the record 原因.")]
Url = Annotated[
    str | None,
    typer.Option(
        envvar="LINGDIAN_URL",
        help="A gateway elsewhere, https://HOST:PORT, with the token in LINGDIAN_TOKEN or --token-file.",
    ),
]
TokenFile = Annotated[
    Path | None, typer.Option(dir_okay=False, exists=True, help="File with the token 令牌.")
]


class OnOff(StrEnum):
    ON = "on"
    OFF = "off"


def _gateway(context: typer.Context, url: str | None, token_file: Path | None) -> Gateway:
    if url is None:
        if token_file is not None:
            raise ConfigurationError("--token-file goes with --url 须与 --url 同用")
        return Gateway(of(context).state)
    token = os.environ.get("LINGDIAN_TOKEN", "")
    if token_file is not None:
        token = token_file.read_text(encoding="ascii", errors="replace")
    return Gateway(of(context).state, Afar(url, token.strip()).checked())


# asking ----------------------------------------------------------------------------------------------------


def _asker(action: str, words: str) -> Callable[..., None]:
    """The command that asks for `action`."""

    def ask(
        context: typer.Context,
        meter: Meter,
        cause: Annotated[str, typer.Option(help="Cause code, such as arrears 原因.")],
        notice: Annotated[str, typer.Option(help="Reference of the notice to the customer 通知凭据.")] = "",
        customer: Annotated[str, typer.Option(help="Customer number; must be the one behind it 户号.")] = "",
        caused_by: Annotated[str, typer.Option(help="The payment, or the command that this undoes.")] = "",
        work_order: Annotated[str, typer.Option(help="Work order 工单.")] = "",
        label: Annotated[str, typer.Option(help="Words of your own, for the record.")] = "",
        not_before: Annotated[
            datetime | None, typer.Option(help="Send it from then on, Shanghai time 不早于.")
        ] = None,
        expires_at: Annotated[
            datetime | None, typer.Option(help="Never send it from then on, Shanghai time 失效时间.")
        ] = None,
        key: Annotated[
            str | None,
            typer.Option(
                help="Idempotency key: the same wish again, not a second one. By default a new one."
            ),
        ] = None,
        wait: Annotated[
            bool, typer.Option("--wait", help="Show what happens until it has ended 等待.")
        ] = False,
        within: Annotated[float, typer.Option(min=0.0, help="With --wait: seconds at most.")] = WAIT_SECONDS,
        url: Url = None,
        token_file: TokenFile = None,
        json_output: JsonFlag = False,
    ) -> None:
        body = {
            "meter": meter,
            "action": action,
            "cause": cause,
            "notice": notice,
            "customer": customer,
            "caused_by": caused_by,
            "work_order": work_order,
            "label": label,
            "not_before": _instant(not_before),
            "expires_at": _instant(expires_at),
        }
        key = key or str(uuid4())
        with _gateway(context, url, token_file) as gateway:
            try:
                command = gateway.post(PATH, body, key=key)
            except NoGateway as error:
                raise NoGateway(
                    f"{error}\nwhether it was accepted is not known 是否受理未知: ask again with"
                    f" --key {key}, it will not be done twice"
                ) from error
            if not json_output:
                show(f"command 命令 {command['id']}")
            tell = say if json_output else show
            events = _follow(gateway, command["id"], within if wait else 0.0, tell)
            command = _now(gateway, command)
        _end(command, events, json_output, waited=wait)

    ask.__doc__ = f"""{words}

    Exit 0: verified (without --wait: accepted); 3: with --wait, still open at the time limit; 4: refused,
    failed, cancelled, expired or superseded, or no gateway runs (then standard output is empty).
    """
    return ask


for _action, _words in (
    ("trip", "Open a meter's relay 跳闸: the household goes dark."),
    ("close", "Close a meter's relay 直接合闸: power is back at once."),
    ("permit-close", "Let the customer close the relay 允许合闸, by the button on the meter."),
    ("restore", "Give power back 复电, by close or permit-close as it is right for this meter."),
    ("keep-power", "Protect a meter from every trip 保电."),
    ("release-keep-power", "End the protection 保电解除; gated like a trip."),
):
    relay_commands.command(_action)(_asker(_action, _words))


def _follow(
    gateway: Gateway, command_id: str, within: float, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Tell each event as it comes, until the command has ended or the time is over; all events told.

    A gateway that goes away meanwhile is waited for: the command is durable and goes on without us.
    """
    events: list[dict[str, Any]] = []
    end = time.monotonic() + within
    away = False
    while True:
        try:
            page = gateway.get(f"{PATH}/{command_id}/timeline", after=len(events))
            away = False
        except (NoGateway, Refusal) as error:
            if isinstance(error, Refusal) and error.status < 500:
                raise
            page = {"events": [], "state": State.QUEUED}
            if not away:
                say(f"{error}; the command goes on 命令继续执行: {command_id}", error=True)
            away = True
        for event in page["events"]:
            events.append(event)
            tell(_event_line(event))
        left = end - time.monotonic()
        if page["state"] in ENDS or left <= 0:
            return events
        try:
            time.sleep(min(POLL_SECONDS, left))
        except KeyboardInterrupt:
            say(f"the command goes on 命令继续执行: lingdian relay show {command_id}")
            return events


def _now(gateway: Gateway, command: dict[str, Any]) -> dict[str, Any]:
    """The command as it stands; as it was seen last where that cannot be had."""
    try:
        found: dict[str, Any] = gateway.get(f"{PATH}/{command['id']}")
    except (NoGateway, Refusal):
        return command
    return found


def _end(command: dict[str, Any], events: list[dict[str, Any]], json_output: bool, *, waited: bool) -> None:
    if json_output:
        answer({"command": command, "timeline": events})
    else:
        show(_command_line(command))
    state = State(command["state"])
    if state in ENDS and state is not State.VERIFIED:
        raise typer.Exit(ENDED_OTHERWISE)
    if waited and state is not State.VERIFIED:
        raise typer.Exit(ExitCode.MISSING)


# looking ---------------------------------------------------------------------------------------------------


@relay_commands.command("show")
def show_command(
    context: typer.Context,
    command: CommandId,
    url: Url = None,
    token_file: TokenFile = None,
    json_output: JsonFlag = False,
) -> None:
    """What was asked for, and what became of it 命令详情."""
    with _gateway(context, url, token_file) as gateway:
        found = gateway.get(f"{PATH}/{command}")
        events = gateway.get(f"{PATH}/{command}/timeline")["events"]
    if json_output:
        answer({"command": found, "timeline": events})
        return
    show(_command_line(found))
    asked = [f"requester 申请人 {found['requester']}", f"cause 原因 {found['cause']}"]
    for name, words in (("notice", "通知"), ("customer", "户号"), ("approver", "审批人"), ("label", "备注")):
        if found[name]:
            asked.append(f"{name} {words} {found[name]}")
    show("  " + ", ".join(asked))
    for event in events:
        show(_event_line(event))


@relay_commands.command("list")
def list_commands(
    context: typer.Context,
    meter: Annotated[str | None, typer.Option(help="Only of this meter, by asset number.")] = None,
    state: Annotated[State | None, typer.Option(help="Only in this state.")] = None,
    customer: Annotated[str | None, typer.Option(help="Only of this customer 户号.")] = None,
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Asked for from that day on, Shanghai.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="So many at most.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Where the page before ended: its `next`.")] = None,
    url: Url = None,
    token_file: TokenFile = None,
    json_output: JsonFlag = False,
) -> None:
    """Commands, the newest first 命令列表."""
    given = {
        "meter": meter,
        "state": None if state is None else state.value,
        "customer": customer,
        "since": _instant(since),
        "cursor": cursor,
    }
    query = {name: value for name, value in given.items() if value is not None}
    with _gateway(context, url, token_file) as gateway:
        page = gateway.get(PATH, limit=limit, **query)
    if json_output:
        answer(page)
        return
    for one in page["commands"]:
        show(_command_line(one))
    if page["next"] is not None:
        say(f"more 更多: --cursor {page['next']}")


# deciding --------------------------------------------------------------------------------------------------


@relay_commands.command("cancel")
def cancel(
    context: typer.Context,
    command: CommandId,
    reason: Reason = "",
    url: Url = None,
    token_file: TokenFile = None,
    json_output: JsonFlag = False,
) -> None:
    """Take back a command of which nothing has left 撤销. Exit 1 where it is too late."""
    with _gateway(context, url, token_file) as gateway:
        found = gateway.post(f"{PATH}/{command}/cancel", {"reason": reason})
    _told(found, json_output)


@relay_commands.command("approve")
def approve(
    context: typer.Context,
    command: CommandId,
    url: Url = None,
    token_file: TokenFile = None,
    json_output: JsonFlag = False,
) -> None:
    """Let a held command go 审批, as the second person. Exit 1 where you cannot be that."""
    with _gateway(context, url, token_file) as gateway:
        found = gateway.post(f"{PATH}/{command}/approve")
    _told(found, json_output)


@relay_commands.command("brake")
def brake(
    context: typer.Context,
    switch: Annotated[OnOff, typer.Argument(help="on: no trip is sent any more, anywhere; closes go on.")],
    reason: Reason,
    url: Url = None,
    token_file: TokenFile = None,
    json_output: JsonFlag = False,
) -> None:
    """Stop every trip at once 紧急制动, or let them go again."""
    deed = "pull" if switch is OnOff.ON else "release"
    with _gateway(context, url, token_file) as gateway:
        setting = gateway.post(f"/api/v1/switches/brake/{deed}", {"reason": reason})
    if json_output:
        answer(setting)
    elif setting["value"]:
        show(f"the brake is on, set by {setting['set_by']}: no trip is sent 紧急制动已启动，停止一切跳闸")
    else:
        show(f"the brake is off, released by {setting['set_by']} 紧急制动已解除")


def _told(command: dict[str, Any], json_output: bool) -> None:
    if json_output:
        answer({"command": command})
    else:
        show(_command_line(command))


# evidence --------------------------------------------------------------------------------------------------


@relay_commands.command("evidence")
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
    with _gateway(context, url, token_file) as gateway:
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
    if not _shown(str(path), _verdict(raw, {}), say):
        raise typer.Exit(ExitCode.WRONG)


@relay_commands.command("verify")
def verify(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="As `relay evidence` wrote them.")],
    seal: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N:DIGEST", help="A seal that was kept elsewhere; may be given again. See docs/relay.md."
        ),
    ] = None,
    json_output: JsonFlag = False,
) -> None:
    """Check evidence without gateway or database 核验证据: chain, states, proofs, seals.

    Exit 0: all of it holds; 1: something is wrong, and it is said what and where.
    """
    kept = dict(_seal(one) for one in seal or ())
    sound, told = True, []
    for path in files:
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path} cannot be read 无法读取: {error.strerror}") from error
        verdict = _verdict(raw, kept)
        sound = sound and verdict.sound
        if json_output:
            told.append(_plain(str(path), verdict))
        else:
            _shown(str(path), verdict, show)
    if json_output:
        answer({"sound": sound, "files": told})
    if not sound:
        raise typer.Exit(ExitCode.WRONG)


def _verdict(raw: bytes, kept: dict[int, str]) -> Verdict:
    from gateway.control import verification  # only two commands need what it imports

    return verification.verify(raw, seals=kept)


def _seal(text: str) -> tuple[int, str]:
    number, _, digest = text.partition(":")
    if not number.isdecimal() or len(digest) != 64:
        raise typer.BadParameter(
            "a seal is its number, a colon and its digest: 17:9f86d0…", param_hint="--seal"
        )
    return int(number), digest.lower()


def _shown(name: str, verdict: Verdict, tell: Callable[[str], None]) -> bool:
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
        "seals": [{"seal": number, "digest": digest} for number, digest in verdict.seals],
        "timeline": [one._asdict() for one in verdict.entries],
    }


# words -----------------------------------------------------------------------------------------------------


def _event_line(event: dict[str, Any]) -> str:
    at = to_device(datetime.fromisoformat(event["at"]))
    return f"{at:%Y-%m-%d %H:%M:%S}  {event['words']}  {event['words_zh']}"


def _command_line(command: dict[str, Any]) -> str:
    at = to_device(datetime.fromisoformat(command["created_at"]))
    parts = [
        f"{command['id']}  {at:%Y-%m-%d %H:%M}  {command['action']} {command['meter']}: {command['state']}"
    ]
    parts += [words for words in (command["why_text"], command["detail"]) if words]
    if command["energised_at"]:
        lit = to_device(datetime.fromisoformat(command["energised_at"]))
        parts.append(f"power seen 已复电 {lit:%H:%M:%S}")
    elif command["action"] == "permit-close" and command["state"] == State.VERIFIED:
        parts.append("permitted, not yet on 待用户按键")
    return "; ".join(parts)


def _instant(at: datetime | None) -> str | None:
    """As the interface wants it; what names no zone is Shanghai's."""
    if at is None:
        return None
    return (at if at.tzinfo is not None else at.replace(tzinfo=SHANGHAI)).astimezone(UTC).isoformat()


app.add_typer(relay_commands, name="relay")
