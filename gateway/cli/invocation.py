"""What all commands share: where state and settings are, where words and answers go, and the exit codes."""

from __future__ import annotations

import getpass
import json
import os
import sys
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from gateway.errors import ConfigurationError, LingdianError
from gateway.model import REASON_TEXT, Reason
from gateway.state import State

if TYPE_CHECKING:
    from gateway.config import Settings


class ExitCode(IntEnum):
    """What a program that calls `lingdian` may rely on."""

    FINE = 0
    WRONG = 1
    """something given or found is wrong; standard error says what"""
    USAGE = 2
    """arguments or settings cannot be used"""
    MISSING = 3
    """done, but something is still missing"""
    NO_GATEWAY = 4
    """no gateway runs on this state folder"""
    ENDED_OTHERWISE = 5
    """the relay command has ended, and what was wanted was not done by it"""


class NoGateway(LingdianError):
    """No gateway runs where the command looked for one."""


@dataclass(frozen=True)
class Invocation:
    """The global options of one call."""

    state: State
    config_file: Path | None
    is_demo: bool = False

    def demo(self) -> Invocation:
        """The same call on the demo's state, which has its own database whatever is configured."""
        return Invocation(self.state.demo(), None, is_demo=True)

    @cached_property
    def settings(self) -> Settings:
        """Read when first needed: `decode` needs none."""
        from gateway import config  # takes a third of a second, which decoding a frame does without

        settings = config.load(self.config_file)
        return (
            settings.model_copy(update={"database": config.DatabaseSettings()}) if self.is_demo else settings
        )


def of(context: typer.Context) -> Invocation:
    """The invocation that the top-level callback left in the context."""
    invocation = context.find_object(Invocation)
    assert invocation is not None, "the top-level callback runs before every command"
    return invocation


class CommandGroup(TyperGroup):
    """A group whose commands end the house's errors with a clear line and an exit code, no traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except NoGateway as error:
            say(str(error), error=True)
            raise typer.Exit(ExitCode.NO_GATEWAY) from error
        except ConfigurationError as error:
            say(str(error), error=True)
            raise typer.Exit(ExitCode.USAGE) from error
        except LingdianError as error:
            say(str(error), error=True)
            raise typer.Exit(ExitCode.WRONG) from error


def requester() -> str:
    """Who calls, for the audit, in ASCII: the user's name, or number where it has none (in a container)."""
    try:
        return getpass.getuser().encode("ascii", "replace").decode()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


JsonFlag = Annotated[
    bool, typer.Option("--json", help="Standard output holds only JSON; words go to standard error.")
]


def answer(value: object) -> None:
    """One compact JSON value on a line of standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def say(text: str, *, error: bool = False) -> None:
    """Words for a person, on standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        text, style="bold red" if error else None, markup=False
    )


def progress_console() -> Console:
    """Where progress bars go: standard error."""
    return Console(stderr=True)


def reason_words(reason: str) -> str:
    """A reason of `model.Reason` in words for an operator."""
    try:
        english, chinese = REASON_TEXT[Reason(reason)]
    except ValueError:
        return reason
    return f"{english} {chinese}"


def show(text: str) -> None:
    """Words that are the answer itself, on standard output."""
    Console(highlight=False, soft_wrap=True).print(text, markup=False)
