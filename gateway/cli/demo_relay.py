"""The end of the demo: one household is cut off and gets its power back, asked for over the gateway's socket
by the routes and rules of a billing back end. What is told of it is made from the evidence."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import RenderableType
from rich.text import Text

from gateway.cli.client import Gateway
from gateway.cli.relay_asking import follow
from gateway.cli.relay_course import course
from gateway.cli.relay_evidence import tell_verdict
from gateway.cli.relay_options import PATH
from gateway.command import Action, State
from gateway.errors import LingdianError
from gateway.model import PointRole, RelayKind
from gateway.state import State as StateFolder

if TYPE_CHECKING:
    from gateway.control.verification import Verdict

SETTINGS: Final[dict[str, str]] = {
    "LINGDIAN_CONTROL__FROM_HOUR": "00:00",
    "LINGDIAN_CONTROL__TO_HOUR": "23:59:59",
    "LINGDIAN_CONTROL__ANY_DAY": "true",
    "LINGDIAN_CONTROL__TRUST_OWN_CLOCK": "true",
    "LINGDIAN_METERS__DEFAULT__PASSWORD": "123456",
}
"""What the demo's gateway needs: it runs at any hour, on machines without a time service, and its meters have
the password of new ones."""

BILLING: Final = "demo-billing"
PROPOSER: Final = "demo-zhang"
APPROVER: Final = "demo-li"
"""Who they are to the gateway. To end shadow mode takes two persons."""

_REASONS: Final[Mapping[Action, Mapping[str, str]]] = {
    Action.TRIP: {"cause": "arrears", "notice": "DEMO-NOTICE-1"},
    Action.CLOSE: {"cause": "paid", "caused_by": "DEMO-PAYMENT-1"},
}
"""What is asked for, in this order, and why."""

WITHIN_SECONDS: Final = 60.0
"""For each of the two commands; they take about a second."""

SEAL_SECONDS: Final = 5.0
"""For the events to be sealed, which is done every second."""

LONGEST_SECONDS: Final = 2 * (WITHIN_SECONDS + SEAL_SECONDS) + 30.0
"""For all of it, with a gateway that is slow to answer."""

NAP_SECONDS: Final = 0.2
"""Between two looks for the seals."""


class NotShown(LingdianError):
    """There is no meter with which to show it."""


@dataclass(frozen=True, slots=True)
class Household:
    """Whose relay is switched."""

    meter: str
    customer: str
    terminal: str
    organisation: str


@dataclass(frozen=True, slots=True)
class Switching:
    """One command as it stood at its end, or when the time was over, with its evidence as it is in `file`."""

    action: Action
    command: Mapping[str, Any]
    bundle: Mapping[str, Any]
    verdict: Verdict
    file: Path

    @property
    def proved(self) -> bool:
        """Verified, on evidence that holds; after a close the power was seen, too."""
        is_lit = self.action is not Action.CLOSE or self.command["energised_at"] is not None
        return self.command["state"] == State.VERIFIED and self.verdict.sound and is_lit

    @property
    def seconds(self) -> float:
        """From the request to the newest event."""
        first, last = (datetime.fromisoformat(self.bundle["timeline"][at]["at"]) for at in (0, -1))
        return round((last - first).total_seconds(), 3)

    def told(self) -> dict[str, Any]:
        """For the demo's summary."""
        told = {"state": self.command["state"], "id": self.command["id"]}
        if self.action is Action.CLOSE:
            told["energised_at"] = self.command["energised_at"]
        told |= {"seconds": self.seconds, "evidence": str(self.file), "evidence_holds": self.verdict.sound}
        return told

    def lacks(self) -> str:
        """Why it is not proved."""
        command = self.command
        if command["state"] == State.VERIFIED:
            lack = (
                "the power was not seen 未见复电"
                if self.verdict.sound
                else "its evidence does not hold 证据不成立"
            )
        else:
            said = filter(None, (command["why_text"], command["detail"]))
            lack = "; ".join([f"{command['state']} after {self.seconds:.1f} s", *said])
        return f"the {self.action} of meter {command['meter']} is not proved 未证实: {lack}"


def show_relay(state: StateFolder, assets: Path, tell: Callable[[RenderableType], None]) -> dict[str, Any]:
    """Cut one household off, give it its power back, and tell how that went.

    What the demo's summary says under `relay`; `why` is in it only where something was not proved. The power
    is asked back whatever became of the trip. assets: the folder of the CSV files that were imported."""
    told: dict[str, Any] = {"meter": None}
    try:
        with Gateway(state, name=BILLING) as door:
            chosen = _household(door, assets)
            told["meter"] = chosen.meter
            _end_shadow(state, chosen.organisation)
            tell(_setting(chosen))
            both = []
            for action, reasons in _REASONS.items():
                done = _switch(door, action, chosen, reasons, state.folder)
                told[action.value] = done.told()
                tell(course(done.bundle))
                tell_verdict(str(done.file), done.verdict, lambda line: tell(Text(line)))
                both.append(done)
        lacks = [one.lacks() for one in both if not one.proved]
        if lacks:
            told["why"] = "\n".join(lacks)
        else:
            tell(_end(*both))
    except LingdianError as error:
        told["why"] = str(error)
    return told


def _household(door: Gateway, assets: Path) -> Household:
    """The first customer whose meter has its relay inside and whose terminal is online; NotShown where there
    is none."""
    terminals = door.get("/api/v1/terminals")["terminals"]
    online = {one["terminal"] for one in terminals if one["online"] and not one["contested"]}
    with (assets / "terminals.csv").open(encoding="utf-8", newline="") as file:
        organisations = {row["terminal"]: row["organisation"] for row in csv.DictReader(file)}
    with (assets / "meters.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            kind = row["role"], row["relay_kind"]
            if kind == (PointRole.CUSTOMER, RelayKind.BUILT_IN) and row["terminal"] in online:
                organisation = organisations[row["terminal"]]
                return Household(row["meter"], row["cons_no"], row["terminal"], organisation)
    raise NotShown(
        "no terminal that is online has a customer whose meter has its relay inside 没有可演示拉合闸的电能表:"
        " grow more with --meters"
    )


def _end_shadow(state: StateFolder, organisation: str) -> None:
    """End shadow mode of the demo's own organisation: one person proposes it, another one approves."""
    wanted = {"on": False, "organisation": organisation, "reason": "demo"}
    with Gateway(state, name=PROPOSER) as door:
        proposed = door.post("/api/v1/switches/shadow", wanted)
    with Gateway(state, name=APPROVER) as door:
        door.post(f"/api/v1/switches/{proposed['id']}/approve")


def _setting(chosen: Household) -> Text:
    return Text(
        f"\nrelay 拉合闸: one household is cut off and gets its power back 停电并复电:"
        f" meter 电能表 {chosen.meter}, customer 户号 {chosen.customer}, terminal 终端 {chosen.terminal}\n"
        f"shadow mode of {chosen.organisation} was ended by two persons 影子模式由两人解除:"
        f" proposed by 提出 {PROPOSER}, approved by 批准 {APPROVER}\n"
        "in the demo only 仅限演示: trips at any hour, on any day, by this machine's own clock"
        " 不限时段与日期，信任本机时钟"
    )


def _end(trip: Switching, close: Switching) -> Text:
    opened = datetime.fromisoformat(trip.bundle["relay_reads"][-1]["at"])
    dark = (datetime.fromisoformat(close.command["energised_at"]) - opened).total_seconds()
    return Text(
        f"\nboth proved 均已证实: after the request 自申请起 trip 跳闸 {trip.seconds:.3f} s, close 合闸"
        f" {close.seconds:.3f} s; dark for 停电 {dark:.1f} s",
        style="bold green",
    )


def _switch(
    door: Gateway, action: Action, chosen: Household, reasons: Mapping[str, str], folder: Path
) -> Switching:
    """Ask for it, wait for its end for WITHIN_SECONDS at most, fetch its evidence into `folder`, check it.

    The idempotency key is always the same one: a demo does it once."""
    body = {"meter": chosen.meter, "customer": chosen.customer, "action": action, **reasons}
    command = door.post(PATH, body, key=f"demo-{action}")
    follow(door, command["id"], WITHIN_SECONDS, lambda line: None, waits=False)
    command = door.get(f"{PATH}/{command['id']}")
    raw, verdict = _evidence(door, command["id"])
    file = folder / f"relay-{action}.json"
    file.write_bytes(raw)
    return Switching(action, command, json.loads(raw), verdict, file)


def _evidence(door: Gateway, command_id: str) -> tuple[bytes, Verdict]:
    """When all of it is sealed; as it is after SEAL_SECONDS."""
    from gateway.control import verification  # takes a moment, which only the end of a demo has

    end = time.monotonic() + SEAL_SECONDS
    while True:
        raw = door.file(f"{PATH}/{command_id}/evidence")
        verdict = verification.verify(raw)
        if verdict.sealed == verdict.events or time.monotonic() > end:
            return raw, verdict
        time.sleep(NAP_SECONDS)
