"""A relay command and its events, each as one line for a person."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from gateway.clock import to_device
from gateway.command import State


def event_line(event: dict[str, Any]) -> str:
    """When, by the clock of Shanghai, and what, in both languages. event: of a timeline."""
    at = to_device(datetime.fromisoformat(event["at"]))
    return f"{at:%Y-%m-%d %H:%M:%S}  {event['words']}  {event['words_zh']}"


def command_line(command: dict[str, Any]) -> str:
    """Which command, and where it stands. command: as the interface shows it."""
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
