"""Decide on relay commands that were asked for: take one back, let a held one go, stop every trip."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from gateway.cli.invocation import JsonFlag, answer, show
from gateway.cli.relay_options import PATH, CommandId, Reason, TokenFile, Url, gateway_of
from gateway.cli.relay_words import command_line


class OnOff(StrEnum):
    ON = "on"
    OFF = "off"


def cancel(
    context: typer.Context,
    command: CommandId,
    reason: Reason = "",
    url: Url = None,
    token_file: TokenFile = None,
    json_output: JsonFlag = False,
) -> None:
    """Take back a command of which nothing has left 撤销. Exit 1 where it is too late."""
    with gateway_of(context, url, token_file) as gateway:
        found = gateway.post(f"{PATH}/{command}/cancel", {"reason": reason})
    _told(found, json_output)


def approve(
    context: typer.Context,
    command: CommandId,
    url: Url = None,
    token_file: TokenFile = None,
    json_output: JsonFlag = False,
) -> None:
    """Let a held command go 审批, as the second person. Exit 1 where you cannot be that."""
    with gateway_of(context, url, token_file) as gateway:
        found = gateway.post(f"{PATH}/{command}/approve")
    _told(found, json_output)


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
    with gateway_of(context, url, token_file) as gateway:
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
        show(command_line(command))
