"""What the events of one command say, in order and in words: pure, and the only source of every readable part
of its evidence. Whoever holds the events can make all of it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from gateway.command import WHY_TEXT, Action, RelayStatus, State, Why
from gateway.storage.event_bodies import MASKED
from gateway.storage.event_bodies import Body as Body
from protocols.lens import look

STATE_TEXT: Final[Mapping[State, str]] = {
    State.REQUESTED: "已受理",
    State.HELD: "待审批",
    State.QUEUED: "待下发",
    State.SENDING: "下发中",
    State.UNCERTAIN: "结果不明",
    State.ACKNOWLEDGED: "电能表已应答",
    State.FIELD: "转现场处理",
    State.VERIFIED: "已证实",
    State.REFUSED: "已拒绝",
    State.FAILED: "失败",
    State.CANCELLED: "已撤销",
    State.EXPIRED: "已过期",
    State.SUPERSEDED: "已被取代",
}
"""States in Chinese."""

ACTION_TEXT: Final[Mapping[Action, str]] = {
    Action.TRIP: "跳闸",
    Action.CLOSE: "直接合闸",
    Action.PERMIT_CLOSE: "允许合闸",
    Action.KEEP_POWER: "保电",
    Action.RELEASE_KEEP_POWER: "保电解除",
    Action.ALARM: "报警",
    Action.CLEAR_ALARM: "报警解除",
}
"""Actions in Chinese."""

DIRECT_LINE: Final = "direct line"
"""Kind of the event that tells what was done with a ticket."""

DIRECT_READ: Final = "direct read"
"""Kind of the event that tells a relay read of the machine at the meter."""

_KIND_TEXT: Final[Mapping[str, str]] = {
    "requested": "提出申请",
    "waits": "等待",
    "sending again": "再次下发",
    "refused, to be cured": "电能表拒绝，重试",
    "permitted": "已允许合闸，待用户按键",
    "energised": "已复电",
    "not energised yet": "尚未复电",
    "field report": "现场反馈",
    DIRECT_LINE: "现场直连下发",
    DIRECT_READ: "现场直连读取",
}

_LEFT_TEXT: Final[Mapping[str, str]] = {"whole": "完整", "perhaps": "不确定", "nothing": "未发出"}

_PROOF_TEXT: Final[Mapping[str, tuple[str, str]]] = {
    "no_byte_left": ("no byte left", "未发出任何字节"),
    "not_executed": ("the relay was read after the frame's validity", "命令失效后已读继电器"),
    "relay_read": ("by relay read", "继电器状态证实"),
    "field_report": ("by field report", "现场反馈证实"),
}

SENDING: Final = frozenset({("step", State.SENDING.value), ("sending again", State.SENDING.value)})
"""(kind, state) of the events after whose commit a frame may have left."""


class Entry(NamedTuple):
    """One event for a reader. at: UTC, ISO 8601."""

    event: int
    at: str
    kind: str
    state: str
    why: str | None
    words: str
    words_zh: str


def evidence(body: Body) -> Mapping[str, Any]:
    """What was found with an event; empty where nothing was."""
    found = body.get("evidence")
    return found if isinstance(found, Mapping) else {}


def entry(body: Body) -> Entry:
    """The event in words of both languages."""
    kind, state = str(body["kind"]), str(body["state"])
    if kind == "step":
        english, chinese = [state], [STATE_TEXT.get(_state(state), state)]
    else:
        english, chinese = [kind], [_KIND_TEXT.get(kind, kind)]
    told = evidence(body)
    why = body.get("why") or told.get("why")
    if isinstance(why, str):
        words = WHY_TEXT[Why(why)] if why in set(Why) else (why, why)
        english.append(words[0])
        chinese.append(words[1])
    if (proof := _PROOF_TEXT.get(str(body.get("proof")))) is not None and why != Why.RELAY_READ:
        english.append(proof[0])
        chinese.append(proof[1])
    for name, name_zh in (("approver", "审批人"), ("by", "操作人")):
        if name in told:
            english.append(f"{name} {told[name]}")
            chinese.append(f"{name_zh} {told[name]}")
    if isinstance(ticket := told.get("ticket"), Mapping):
        english.append(f"ticket for {ticket['to']} until {ticket['until']}")
        chinese.append(f"操作票 {ticket['to']}，有效至 {ticket['until']}")
    if "written_at" in told:
        english.append(f"written at {told['written_at']}, {told.get('left')}")
        chinese.append(f"写入时间 {told['written_at']}（{_LEFT_TEXT.get(str(told.get('left')), '')}）")
    if body.get("detail"):
        english.append(str(body["detail"]))
        chinese.append(str(body["detail"]))
    if (read := _status(body)) is not None:
        english.append("relay open" if read.open else "relay closed")
        chinese.append("继电器断开" if read.open else "继电器闭合")
    return Entry(
        int(body["n"]),
        str(body["at"]),
        kind,
        state,
        why if isinstance(why, str) else None,
        "; ".join(english),
        "；".join(chinese),
    )


def parts(bodies: Sequence[Body]) -> dict[str, Any]:
    """The parts of a bundle that are made from the events alone."""
    first = evidence(bodies[0])
    return {
        "meter": {name: first.get(name) for name in ("meter", "address", "terminal", "pn")},
        "people": _people(bodies),
        "times": _times(bodies),
        "relay_reads": list(_relay_reads(bodies)),
        "timeline": [entry(body)._asdict() for body in bodies],
        "frames": list(_frames(bodies)),
    }


def instant(text: object) -> str | None:
    """An instant in the one spelling of bundles; None for none. ValueError where it is no instant."""
    if text is None:
        return None
    at = text if isinstance(text, datetime) else datetime.fromisoformat(str(text))
    return at.astimezone(UTC).isoformat()


def status(body: Body) -> RelayStatus | None:
    """The relay read that an event rests on, with the time when it was asked for."""
    return _status(body) if "at" in evidence(body) else None


def _status(body: Body) -> RelayStatus | None:
    told = evidence(body)
    word = told.get("word3")
    if not isinstance(word, int):
        return None
    return RelayStatus(word, datetime.fromisoformat(str(told.get("at", body["at"]))))


def _people(bodies: Sequence[Body]) -> list[dict[str, Any]]:
    """Who had a hand in it, with the number of the event that says so."""
    first = evidence(bodies[0])
    people = [{"event": 1, "did": "asked", "name": first.get("requester"), "label": first.get("label", "")}]
    for body in bodies[1:]:
        told = evidence(body)
        if "approver" in told:
            people.append({"event": body["n"], "did": "approved", "name": told["approver"], "label": ""})
        elif isinstance(ticket := told.get("ticket"), Mapping):
            people.append(
                {"event": body["n"], "did": "was given a ticket", "name": ticket["to"], "label": ""}
            )
        elif body["kind"] == DIRECT_LINE:
            people.append(
                {"event": body["n"], "did": "handed in a ticket's use", "name": told["by"], "label": ""}
            )
        elif "by" in told and body["kind"] not in ("energised", DIRECT_READ):
            did = "reported" if "energised" in told else "cancelled"
            people.append(
                {"event": body["n"], "did": did, "name": told["by"], "label": told.get("report", "")}
            )
    return people


def _times(bodies: Sequence[Body]) -> dict[str, Any]:
    """When what happened, by our clock."""
    reached: dict[str, str] = {}
    for body in bodies:
        reached.setdefault(str(body["state"]), str(body["at"]))
    return {
        "asked": bodies[0]["at"],
        "sent": [body["at"] for body in bodies if (body["kind"], body["state"]) in SENDING],
        "reached": reached,
        "energised": _energised_at(bodies),
    }


def _energised_at(bodies: Sequence[Body]) -> str | None:
    for body in bodies:
        if body["kind"] == "energised":
            return instant(evidence(body).get("at"))
    return None


def _relay_reads(bodies: Sequence[Body]) -> Iterator[dict[str, Any]]:
    for body in bodies:
        read = _status(body)
        if read is not None:
            yield {
                "event": body["n"],
                "at": read.at.astimezone(UTC).isoformat(),
                "word": f"{read.word:04x}",
                "open": read.open,
                "trip_ordered": read.trip_ordered,
                "alarm": read.alarm,
                "keep_power": read.keep_power,
            }


def _frames(bodies: Sequence[Body]) -> Iterator[dict[str, Any]]:
    """Every frame that the events hold, secrets masked, in order; those before a control frame come in pairs,
    request and answer."""
    for body in bodies:
        told = evidence(body)
        before = told.get("before")
        for place, shown in enumerate(before if isinstance(before, list | tuple) else ()):
            yield _frame(body, "down" if place % 2 == 0 else "up", str(shown), {})
        if isinstance(told.get("frame"), str) and told["frame"]:
            down = (body["kind"], body["state"]) in SENDING
            hashes = {name: told[name] for name in ("sha256", "hmac", "key") if name in told}
            yield _frame(body, "down" if down else "up", told["frame"], hashes)


def _frame(body: Body, direction: str, shown: str, hashes: Mapping[str, Any]) -> dict[str, Any]:
    raw = readable(shown)
    seen = look(raw).frames if raw is not None else []
    decoded = {name: value for name, value in seen[0].items() if name != "start"} if seen else None
    if decoded is not None and "password" in decoded:
        decoded["password"] = "******"
    return {
        "event": body["n"],
        "direction": direction,
        "frame": shown,
        **hashes,
        "decoded": decoded,
    }


def readable(shown: str) -> bytes | None:
    """The bytes of a frame that is told as hex, None where it is not. A masked byte of data becomes 00, the
    checksum the one that then belongs to it."""
    told = shown.split()
    masked = MASKED in told
    try:
        # below the data field's 33H a zero is 33
        raw = bytearray(bytes.fromhex("".join("33" if one == MASKED else one for one in told)))
    except ValueError:
        return None
    if masked and len(raw) > 2:
        raw[-2] = sum(raw[:-2]) & 0xFF
    return bytes(raw)


def _state(word: str) -> State:
    return State(word)
