"""Ask for a relay to be switched, and follow what becomes of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import uuid4

import typer

from gateway.cli.client import Gateway, Refusal
from gateway.cli.invocation import ExitCode, JsonFlag, NoGateway, answer, say, show
from gateway.cli.relay_options import PATH, Meter, TokenFile, Url, gateway_of, instant
from gateway.cli.relay_words import command_line, event_line
from gateway.command import ENDS, State

WAIT_SECONDS: Final = 600.0
"""A household behind a slow carrier is answered within some minutes."""

POLL_SECONDS: Final = 0.5
"""Between two looks while waiting."""


def asker(action: str, words: str) -> Callable[..., None]:
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
            "not_before": instant(not_before),
            "expires_at": instant(expires_at),
        }
        key = key or str(uuid4())
        with gateway_of(context, url, token_file) as gateway:
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
            events = follow(gateway, command["id"], within if wait else 0.0, tell)
            command = _now(gateway, command)
        _end(command, events, json_output, waited=wait)

    ask.__doc__ = f"""{words}

    Exit 0: verified (without --wait: accepted); 3: with --wait, still open at the time limit; 4: no gateway
    runs; 5: the command has ended refused, failed, cancelled, expired or superseded.
    """
    return ask


def follow(
    gateway: Gateway, command_id: str, within: float, tell: Callable[[str], None], *, waits: bool = True
) -> list[dict[str, Any]]:
    """Tell each event as it comes, until the command has ended or `within` seconds are over; all events told.

    A gateway that goes away meanwhile is waited for: the command is durable and goes on without us. NoGateway
    without `waits`.
    """
    events: list[dict[str, Any]] = []
    end = time.monotonic() + within
    away = False
    while True:
        try:
            page = gateway.get(f"{PATH}/{command_id}/timeline", after=len(events))
            away = False
        except (NoGateway, Refusal) as error:
            if error.status < 500 if isinstance(error, Refusal) else not waits:
                raise
            page = {"events": [], "state": State.QUEUED}
            if not away:
                say(f"{error}; the command goes on 命令继续执行: {command_id}", error=True)
            away = True
        for event in page["events"]:
            events.append(event)
            tell(event_line(event))
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
        show(command_line(command))
    state = State(command["state"])
    if state in ENDS and state is not State.VERIFIED:
        raise typer.Exit(ExitCode.ENDED_OTHERWISE)
    if waited and state is not State.VERIFIED:
        raise typer.Exit(ExitCode.MISSING)
