"""Evidence of one command, checked by itself: offline, and whatever somebody may have done to the file.

Whoever changes a byte is found by the file's own digest; whoever makes that anew, by the chain; whoever makes
the chain anew, by a seal that was written down elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from typing import Any, Final, NamedTuple, NoReturn

from gateway.command import ENDS, Action, Proof, State, canonical, chained
from gateway.control import states, timeline
from gateway.control.ask import same_person
from gateway.control.evidence import FORMAT, SECTIONS, digest, spelled
from gateway.control.masked_frame import is_that_frame
from gateway.control.states import Shown, WrongStep
from gateway.control.timeline import Body, Entry
from gateway.storage.chain import sealed
from gateway.storage.event_bodies import determined, differing, is_whole
from gateway.storage.frame_secret import FrameSecret

_WORDED: Final = frozenset({"timeline", "frames"})
"""Sections whose words another version of this program may choose differently."""

WRONG_SHOWN: Final = 100
"""More than a person reads."""

_MISSHAPEN: Final = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
"""What it comes to when a part of a file is not what it should be."""

_HEX_256: Final = re.compile("[0-9a-f]{64}")


class Wrong(NamedTuple):
    """Something that is not as it was written. place: of what in the file."""

    place: str
    what: str
    what_zh: str


class NoBundle(ValueError):
    """What was given has not the form of a bundle; the message says in both languages what it lacks."""


@dataclass(slots=True)
class Verdict:
    """What `verify` has found. entries: the course, told anew from the events.

    seals: number and digest of each seal in the file: compare the newest with one that was kept elsewhere.
    compared, keyed: sendings whose frame was held against the hash that was kept, and those where that could
    not be done, for the frame hides a password.
    """

    wrong: list[Wrong] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    command: str = ""
    action: str = ""
    state: str = ""
    meter: str = ""
    entries: list[Entry] = field(default_factory=list)
    events: int = 0
    sealed: int = 0
    compared: int = 0
    keyed: int = 0
    seals: list[tuple[int, str]] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Nothing is wrong."""
        return not self.wrong

    def add(self, place: str, what: str, what_zh: str) -> None:
        """Note what is wrong, up to WRONG_SHOWN."""
        if len(self.wrong) < WRONG_SHOWN:
            self.wrong.append(Wrong(place, what, what_zh))


def verify(
    raw: bytes, *, seals: Mapping[int, str] | None = None, secret: FrameSecret | None = None
) -> Verdict:
    """Check a file by itself. Never raises, whatever the bytes are.

    seals: digests (hex) by number that were kept elsewhere; a bundle with such a seal must hold that digest.
    secret: of the installation; with it the hashes of frames with a password are compared too, which takes
    some seconds each.
    """
    verdict = Verdict()
    try:
        made = _parsed(raw)
    except (NoBundle, ValueError, RecursionError) as error:
        verdict.add("file", f"it is no evidence: {error}", f"不是证据文件：{error}")
        return verdict
    try:
        _check(made, raw, verdict, seals or {}, secret)
    except _MISSHAPEN as error:
        said = str(error) if isinstance(error, NoBundle) else f"{type(error).__name__} {error}"
        verdict.add("file", f"its parts are not what they should be: {said}", f"内容结构有误：{said}")
    return verdict


def _parsed(raw: bytes) -> dict[str, Any]:
    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise NoBundle("a name stands twice in an object 名称重复")
        return made

    def never(text: str) -> NoReturn:
        raise NoBundle(f"a number that we do not write 非法数字: {text[:20]}")

    made = json.loads(raw.decode("utf-8"), object_pairs_hook=members, parse_float=never, parse_constant=never)
    if not isinstance(made, dict):
        raise NoBundle("it is no JSON object 不是 JSON 对象")
    if made.get("format") != FORMAT:
        raise NoBundle(f"its format is not {FORMAT!r} 格式不符")
    if tuple(made) != SECTIONS:
        raise NoBundle("its sections are not those of a bundle 章节不符")
    return made


def _check(
    made: Mapping[str, Any],
    raw: bytes,
    verdict: Verdict,
    seals: Mapping[int, str],
    secret: FrameSecret | None,
) -> None:
    if digest(made) != made["sha256"]:
        verdict.add("sha256", "the file was changed: its digest is another", "文件已被改动：摘要不符")
    if spelled(made) != raw:
        verdict.add("file", "it is not spelled as it was written", "文件书写形式已被改动")
    events = _objects(made["events"], "events")
    bodies = [_object(one["body"], "events") for one in events]
    if not bodies:
        raise NoBundle("it has no events 没有事件")
    verdict.events = len(bodies)
    _chain(made, events, bodies, verdict)
    _course(bodies, verdict, secret)
    _seals(_objects(made["seals"], "seals"), events, verdict, seals)
    _row_says(made["command"], bodies, verdict)
    _made_again(made, bodies, verdict)
    verdict.entries = [timeline.entry(body) for body in bodies]
    told = determined(bodies)
    verdict.command, verdict.action, verdict.state = (str(told[name]) for name in ("id", "action", "state"))
    verdict.meter = str(told["meter"])


def _chain(
    made: Mapping[str, Any], events: Sequence[Mapping[str, Any]], bodies: Sequence[Body], verdict: Verdict
) -> None:
    """Events numbered without a gap, of one command, each hash over the one before and its own body."""
    before, last_id = b"", 0
    for place, (event, body) in enumerate(zip(events, bodies, strict=True), 1):
        where = f"event {place}"
        if body["n"] != place:
            verdict.add(where, f"it says that it is event {body['n']}", f"编号为 {body['n']}，次序有误")
        if body["command"] != made["command"]["id"]:
            verdict.add(where, "it is of another command", "属于另一命令")
        if chained(before, body).hex() != event["hash"]:
            verdict.add(
                where,
                "its hash is not that of its words and the event before it",
                "哈希与内容及前一事件不符",
            )
        if _number(event["id"], where) <= last_id:
            verdict.add(where, "it was written before the one that it follows", "写入次序有误")
        before, last_id = _digest(event["hash"], where), event["id"]
        timeline.instant(body["at"])
    if made["chain"] != {"events": len(events), "hash": before.hex()}:
        verdict.add(
            "chain",
            f"the command has {made['chain'].get('events')} events, and these are not they",
            f"命令共有 {made['chain'].get('events')} 条事件，与所列不符",
        )


def _course(bodies: Sequence[Body], verdict: Verdict, secret: FrameSecret | None) -> None:
    """Only steps of the table, on the proofs that they want, and these prove what they are to."""
    first = bodies[0]
    action = Action(timeline.evidence(first)["action"])
    state = State.REQUESTED
    if (first["kind"], first["state"]) != ("requested", State.REQUESTED.value):
        verdict.add("event 1", "it is no request", "不是申请")
    sent_at: datetime | None = None
    for body in bodies[1:]:
        where, then = f"event {body['n']}", State(body["state"])
        if body["kind"] == "step":
            proof = None if "proof" not in body else Proof[str(body["proof"]).upper()]
            try:
                states.check(action, state, then, proof)
            except WrongStep as error:
                verdict.add(where, str(error), f"{state} 到 {then} 不是允许的状态变化")
            if body["from"] != state.value:
                verdict.add(where, f"it leaves {body['from']}, not {state}", f"起始状态 {body['from']} 有误")
            if then is State.VERIFIED and proof is Proof.RELAY_READ:
                _proved(action, body, sent_at, where, verdict)
        elif then is not state:
            verdict.add(
                where, f"it is no step, and {state} became {then}", f"非状态变化事件改变了状态 {then}"
            )
        elif state in ENDS and state is not State.VERIFIED:
            verdict.add(
                where, f"something happened after the end ({state})", f"命令结束（{state}）后仍有事件"
            )
        state = then
        if (body["kind"], body["state"]) in timeline.SENDING:
            sent_at = datetime.fromisoformat(body["at"])
            _sent(body, where, verdict, secret)
        if body["kind"] == timeline.DIRECT_LINE:
            sent_at = _written_later(body, sent_at)
        if "approver" in (told := timeline.evidence(body)) and same_person(
            str(told["approver"]), str(timeline.evidence(first)["requester"])
        ):
            verdict.add(where, "whoever asked for it has approved it", "申请人与审批人为同一人")


def _written_later(body: Body, sent_at: datetime | None) -> datetime | None:
    """With a ticket the frame leaves later than its hash was kept: a relay read has to be later still."""
    told = timeline.evidence(body)
    at = datetime.fromisoformat(str(told["written_at"]))
    if told.get("left") == "nothing" or (sent_at is not None and at < sent_at):
        return sent_at
    return at


def _proved(action: Action, body: Body, sent_at: datetime | None, where: str, verdict: Verdict) -> None:
    read = timeline.status(body)
    if read is None:
        verdict.add(where, "verified by a relay read that is not there", "缺少所依据的继电器状态")
    elif sent_at is not None and read.at <= sent_at:
        verdict.add(where, "the relay was read before the last frame was sent", "继电器状态早于末次下发")
    elif states.shown(action, read) is not Shown.DONE:
        verdict.add(
            where,
            f"the relay read ({read.word:04x}) does not show it",
            f"继电器状态（{read.word:04x}）不能证实",
        )


def _sent(body: Body, where: str, verdict: Verdict, secret: FrameSecret | None) -> None:
    """A frame's hash stands before the frame may leave. It is plain where the frame is whole, and keyed where
    the frame hides a password: only who holds the secret can compare that."""
    told = timeline.evidence(body)
    shown, plain, keyed = str(told.get("frame", "")), told.get("sha256"), told.get("hmac")
    hashed = keyed if plain is None else plain
    whole = is_whole(shown)
    raw = timeline.readable(shown) if whole else None
    fits: bool | None = None
    if not isinstance(hashed, str) or not _HEX_256.fullmatch(hashed):
        verdict.add(where, "it was sent without the hash of its frame", "下发时缺少帧哈希")
        return
    if plain is not None:
        fits = None if raw is None else hashlib.sha256(raw).hexdigest() == plain
        if not whole:
            verdict.remarks.append(
                f"{where}: the plain hash of a frame that hides a password: keep this file secret"
                " 含密码帧的明文哈希，可被穷举，本文件须保密"
            )
    elif secret is not None and secret.name == told.get("key"):
        fits = is_that_frame(shown, hashed, secret)
    if fits is None:
        verdict.keyed += 1
    else:
        verdict.compared += 1
    if fits is False:
        verdict.add(where, "the frame is not the one whose hash was kept", "帧与其哈希不符")


def _seals(
    kept: Sequence[Mapping[str, Any]],
    events: Sequence[Mapping[str, Any]],
    verdict: Verdict,
    known: Mapping[int, str],
) -> None:
    """Each digest is over the seal's events and the seal before it; an event is in the seal that it names."""
    holds: dict[int, dict[int, str]] = {}
    digests: dict[int, str] = {}
    for one in kept:
        number, before = _number(one["seal"], "seals"), one["before"]
        where = f"seal {number}"
        listed = [(_number(event_id, where), _digest(hashed, where)) for event_id, hashed in one["events"]]
        made = sealed(bytes.fromhex(before), number, datetime.fromisoformat(one["at"]), listed)
        if made.hex() != one["digest"]:
            verdict.add(
                where, "its digest is not that of its events and the seal before it", "封印摘要与其内容不符"
            )
        if number in holds or (number == 1) != (before == ""):
            verdict.add(where, "it does not stand where it should in the row of seals", "封印次序有误")
        if digests.get(number - 1, before) != before:
            verdict.add(where, f"it is not over seal {number - 1}", f"未承接封印 {number - 1}")
        if known.get(number, one["digest"]) != one["digest"]:
            verdict.add(where, "it is not the seal that was kept elsewhere", "与另存的封印不符")
        holds[number] = {event_id: hashed.hex() for event_id, hashed in listed}
        digests[number] = one["digest"]
        verdict.seals.append((number, one["digest"]))
    last = 0
    for place, event in enumerate(events, 1):
        where, number = f"event {place}", event["seal"]
        if number is None:
            continue
        verdict.sealed += 1
        if _number(number, where) < last or verdict.sealed != place:
            verdict.add(where, "it was sealed before an earlier one", "封印次序有误")
        last = number
        if number not in holds:
            verdict.add(where, f"its seal {number} is not in the file", f"文件缺少封印 {number}")
        elif holds[number].get(event["id"]) != event["hash"]:
            verdict.add(where, f"seal {number} is not over it", f"不在封印 {number} 之内")
    for number in set(holds) - {event["seal"] for event in events}:
        verdict.add(f"seal {number}", "no event is sealed by it", "没有事件属于该封印")
    if verdict.sealed < len(events):
        verdict.remarks.append(
            f"{len(events) - verdict.sealed} events are not sealed yet"
            " 尚有事件未封印: fetch the evidence again in a minute"
        )


def _row_says(row: Mapping[str, Any], bodies: Sequence[Body], verdict: Verdict) -> None:
    """Every column that the events determine, and no other."""
    told = determined(bodies)
    for name in differing(row, told):
        verdict.add(
            f"command.{name}",
            f"it is {row.get(name)!r}, and the events say {told.get(name)!r}",
            f"为 {row.get(name)!r}，而事件记录为 {told.get(name)!r}",
        )


def _made_again(made: Mapping[str, Any], bodies: Sequence[Body], verdict: Verdict) -> None:
    """What is for readers says what the events say."""
    ours = made["made"].get("version") == version("lingdian")
    for name, part in timeline.parts(bodies).items():
        if canonical({name: part}) == canonical({name: made[name]}):
            continue
        if name in _WORDED and not ours:
            verdict.remarks.append(
                f"made by version {made['made'].get('version')}: {name} is worded otherwise than here"
                " 由其他版本生成，措辞不同; what is shown here is told anew from the events"
            )
        else:
            verdict.add(name, "it is not what the events say", "与事件记录不符")


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise NoBundle(f"{where}: an object is wanted 应为对象")
    return value


def _objects(value: Any, where: str) -> list[Mapping[str, Any]]:
    if not isinstance(value, list):
        raise NoBundle(f"{where}: a list is wanted 应为列表")
    return [_object(one, where) for one in value]


def _number(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise NoBundle(f"{where}: a number is wanted 应为整数")
    return value


def _digest(value: Any, where: str) -> bytes:
    if not isinstance(value, str) or not _HEX_256.fullmatch(value):
        raise NoBundle(f"{where}: a digest is wanted 应为摘要")
    return bytes.fromhex(value)
