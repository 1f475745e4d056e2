"""`lingdian relay direct`: one frame with a ticket, without one not a byte. The line records what leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner, Result

from gateway.cli import app, relay_direct
from gateway.clock import to_device
from gateway.command import Action, canonical
from gateway.errors import InputError
from gateway.field import direct_evidence, relay_line
from gateway.field import ticket as tickets
from gateway.field.direct_evidence import NoEvidence
from gateway.field.line import READS
from gateway.field.machine import Machine, Spent, public
from gateway.field.ticket import Ticket, committed, signed
from gateway.transports.serial_port import SerialLink
from protocols.dlt645 import control, frame, messages
from protocols.dlt645.control_messages import RelayCommand, Verb
from protocols.dlt645.fields import Authority
from protocols.dlt645.messages import ErrorReply
from protocols.permit import Permit
from simulator.clock import seconds
from simulator.control import Setup
from simulator.meter import Meter
from tests.gateway.field.bus import Line, OnTheLine, hung_up
from tests.simulator.household import plan_of

METER, OTHER = "202408110457", "202408110458"
PASSWORD = "123456"
VERBS = {Action.TRIP: Verb.TRIP, Action.CLOSE: Verb.CLOSE, Action.KEEP_POWER: Verb.KEEP_POWER}
GATEWAY = Ed25519PrivateKey.generate()
runner = CliRunner()


@dataclass(slots=True, eq=False)
class Household(OnTheLine):
    """A meter of now, whose number may be another than its address. mute: it does not answer control frames;
    forgets: items that it does not give."""

    number: str = METER
    setup: Setup = field(default_factory=Setup)
    mute: bool = False
    forgets: tuple[str, ...] = ()
    meter: Meter = field(init=False)

    def __post_init__(self) -> None:
        OnTheLine.__post_init__(self)
        # what this simulator tells as its number is its address
        self.meter = Meter(replace(plan_of(), address=self.address, number=self.number), setup=self.setup)

    def answer(self, data: bytes) -> bytes:
        asked = frame.parse(data.lstrip(b"\xfe"))
        if asked.address != self.address:
            return b""
        if asked.data[:4][::-1].hex() in self.forgets:
            return frame.build(messages.to_frame(ErrorReply(self.address, asked.function, 0x02)))
        self.meter.receive_data(data, seconds(to_device(datetime.now(UTC))))
        said = self.meter.data_to_send()
        return b"" if self.mute and asked.control not in READS else said


@dataclass
class Engineer:
    """A machine with its state folder; `line` is where the meter hangs."""

    folder: Path
    machine: Machine
    line: Line | None = None

    def ticket(self, action: Action = Action.TRIP, **changed: Any) -> dict[str, Any]:
        """As the gateway would make it, but for what is changed."""
        now = datetime.now(UTC)
        until = changed.pop("until", (now + timedelta(minutes=5)).replace(microsecond=0))
        key = changed.pop("signed_by", GATEWAY)
        verb = VERBS[changed.pop("frame_for", action)]
        address = changed.pop("frame_to", METER)
        command = RelayCommand(address, verb, Authority("02", PASSWORD, "00000001"), to_device(until))
        raw = frame.build(control.build_control(command, Permit(control.action(verb), address, "test")))
        told = [f"{byte:02X}" for byte in raw]
        for place in (11, 12, 13, len(raw) - 2):
            told[place] = "**"
        made = Ticket(
            id=uuid4(),
            command=uuid4(),
            action=action,
            meter=METER,
            numbers=(METER,),
            address=METER,
            profile="default",
            frame=" ".join(told),
            salt=b"salt" * 8,
            commitment=committed(raw, b"salt" * 8),
            since=now - timedelta(seconds=5),
            until=until,
            machine=self.machine.public_key(),
            issued_to="person:li",
        )
        return signed(replace(made, **changed), key)

    def file(self, told: dict[str, Any]) -> Path:
        path = self.folder / f"{uuid4()}.json"
        path.write_bytes(canonical(told))
        return path

    async def direct(
        self, told: dict[str, Any] | None, *words: str, verb: str = "trip", meter: str = METER
    ) -> Result:
        assert self.line is not None
        channel = f"serial://{self.line.device}?parity=N&baud=9600&gap_ms=50&echo=off"
        given = [] if told is None else ["--ticket", str(self.file(told))]
        out = ["--out", str(self.folder / "evidence.json")]
        called = ["--state", str(self.machine.folder), "relay", "direct", verb, meter, "--via", channel]
        return await asyncio.to_thread(runner.invoke, app, [*called, *given, *out, *words], f"{PASSWORD}\n")

    @property
    def evidence(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((self.folder / "evidence.json").read_bytes())
        return told

    @property
    def sent(self) -> list[bytes]:
        """All that has left, and is not a read."""
        assert self.line is not None
        heard = b"".join(self.line.questions)
        found = [one for one in heard.split(b"\xfe\xfe\xfe\xfe") if one]
        return [one for one in found if frame.parse(one).control not in READS]


@pytest.fixture
def engineer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engineer:
    monkeypatch.setattr(tickets, "_COST", 2**4)  # a good part of a second each is for those who try passwords
    monkeypatch.setattr(relay_line, "LOOK_S", 0.01)
    for name in ("LINGDIAN_CONFIG", "LINGDIAN_STATE", "LINGDIAN_METERS__DEFAULT__PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    machine = Machine(tmp_path / "state")
    machine.key()
    machine.pin(public(GATEWAY), anew=False)
    return Engineer(tmp_path, machine)


async def test_a_trip_and_a_close_are_written_once_each_and_read_back(engineer: Engineer) -> None:
    meter = Household(METER, 9600)
    with hung_up(meter) as engineer.line:
        told = engineer.ticket()
        result = await engineer.direct(told)
        assert result.exit_code == 0, result.output
        assert meter.meter.is_open
        deed = direct_evidence.read(engineer.evidence, public(GATEWAY))
        assert deed.status is not None
        assert deed.status.open
        assert deed.refusal is None
        assert {one.di for one in deed.before} == {"04000402", "0400010c", "04000503"}
        assert [frame.parse(one).control for one in engineer.sent] == [0x1C]
        (engineer.folder / "evidence.json").unlink()
        closed = await engineer.direct(engineer.ticket(Action.CLOSE), "--json", verb="close")
        assert closed.exit_code == 0, closed.output
        assert json.loads(closed.stdout)["done"]
        assert not meter.meter.is_open
        assert len(engineer.sent) == 2
        # the password is nowhere but on the line
        masked = bytes.fromhex("896745")
        assert masked in engineer.sent[0]
        kept = b"".join(one.read_bytes() for one in engineer.folder.rglob("*") if one.is_file())
        assert PASSWORD.encode() not in kept
        assert masked.hex(" ").encode() not in kept


def forged(told: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return told | changed


NOT_A_BYTE: dict[str, tuple[Callable[[Engineer], dict[str, Any] | None], dict[str, str], str]] = {
    "without a ticket": (lambda e: None, {}, "无操作票"),
    "forged": (lambda e: forged(e.ticket(), issued_to="person:wang"), {}, "签名无效"),
    "signed by somebody": (lambda e: e.ticket(signed_by=Ed25519PrivateKey.generate()), {}, "签名无效"),
    "for another meter": (lambda e: e.ticket(), {"meter": OTHER}, "电能表不符"),
    "for another verb": (lambda e: e.ticket(Action.CLOSE), {"verb": "trip"}, "操作不符"),
    "frame of another verb": (
        lambda e: e.ticket(Action.CLOSE, frame_for=Action.TRIP),
        {"verb": "close"},
        "帧",
    ),
    "frame to another meter": (lambda e: e.ticket(frame_to=OTHER), {}, "帧与操作票不符"),
    "expired": (
        lambda e: e.ticket(until=(datetime.now(UTC) - timedelta(seconds=2)).replace(microsecond=0)),
        {},
        "已过期",
    ),
    "not yet": (lambda e: e.ticket(since=datetime.now(UTC) + timedelta(minutes=1)), {}, "尚未生效"),
    "too long for a trip": (
        lambda e: e.ticket(until=datetime(2099, 1, 1, tzinfo=UTC)),
        {},
        "有效期过长",
    ),
    "of another machine": (lambda e: e.ticket(machine="ab" * 32), {}, "另一台设备"),
    "spent": (lambda e: spent(e, e.ticket()), {}, "操作票已使用"),
    "other password": (lambda e: e.ticket(commitment=bytes(32)), {}, "密码与操作票不符"),
}


def spent(engineer: Engineer, told: dict[str, Any]) -> dict[str, Any]:
    with engineer.machine.spending() as ledger:
        ledger.note(UUID(told["ticket"]), datetime.now(UTC))
    return told


@pytest.mark.parametrize("name", NOT_A_BYTE)
async def test_not_a_byte_leaves(engineer: Engineer, name: str) -> None:
    make, asked, words = NOT_A_BYTE[name]
    meter = Household(METER, 9600)
    with hung_up(meter) as engineer.line:
        result = await engineer.direct(make(engineer), **asked)
        assert engineer.line.questions == []
    assert result.exit_code == 1, result.output
    assert words in result.stderr
    assert not (engineer.folder / "evidence.json").exists()


PLANTED: dict[str, tuple[tuple[Any, str], ...]] = {
    "forged": ((tickets, "check_signature"),),
    "signed by somebody": ((tickets, "check_signature"),),
    "for another meter": ((relay_line, "check_meant"),),
    "for another verb": ((relay_line, "check_meant"),),
    "frame of another verb": ((tickets, "check_frame"),),
    "not yet": ((relay_line, "check_hours"),),
    "too long for a trip": ((tickets, "check_frame"),),
    "of another machine": ((relay_line, "check_machine"),),
    "spent": ((Spent, "check"),),
    "other password": ((tickets, "check_commitment"),),
}
"""What sees each case; skipped, the meter's relay is reached."""


@pytest.mark.parametrize("name", PLANTED)
async def test_a_check_that_is_skipped_is_seen(
    engineer: Engineer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, asked, _ = NOT_A_BYTE[name]
    for place, check in PLANTED[name]:
        monkeypatch.setattr(place, check, lambda *told: None)
    with hung_up(Household(METER, 9600)) as engineer.line:
        await engineer.direct(make(engineer), **asked)
        assert len(engineer.sent) == 1


async def test_a_machine_without_a_pinned_key_or_without_its_ledger_sends_nothing(engineer: Engineer) -> None:
    with hung_up(Household(METER, 9600)) as engineer.line:
        told = engineer.ticket()
        (engineer.machine.folder / "tickets.spent").rename(engineer.folder / "elsewhere")
        gone = await engineer.direct(told)
        (engineer.folder / "elsewhere").rename(engineer.machine.folder / "tickets.spent")
        (engineer.machine.folder / "ticket-key.pinned").unlink()
        unpinned = await engineer.direct(told)
        engineer.machine.pin(public(GATEWAY), anew=False)
        (engineer.machine.folder / "machine.key").chmod(0o644)
        open_to_all = await engineer.direct(told)
        assert engineer.line.questions == []
    assert (gone.exit_code, unpinned.exit_code, open_to_all.exit_code) == (2, 2, 2)
    assert "已用操作票记录缺失" in gone.stderr
    assert "未固定网关公钥" in unpinned.stderr
    assert "chmod 600" in open_to_all.stderr


UNFIT: dict[str, tuple[Household, str, str]] = {
    "number": (Household(METER, 9600, forgets=("04000402",)), "check_number", "表号不符"),
    "clock": (Household(METER, 9600, setup=Setup(clock_off_s=-124.0)), "check_clock", "超过两分钟"),
    "clock unread": (
        Household(METER, 9600, forgets=("0400010c", "04000101")),
        "check_clock",
        "时钟未读到",
    ),
    "status": (Household(METER, 9600, forgets=("04000503",)), "check_status", "状态字3未读到"),
}


@pytest.mark.parametrize("name", UNFIT)
async def test_a_trip_does_not_reach_a_meter_that_is_unfit(
    engineer: Engineer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter, check, words = UNFIT[name]
    with hung_up(replace_meter(meter)) as engineer.line:
        told = engineer.ticket()
        result = await engineer.direct(told)
        assert engineer.sent == []
        assert result.exit_code == 1, result.output
        assert words in result.stderr
        # nothing was spent by it, and the check is what held it back
        monkeypatch.setattr(relay_line, check, lambda *given: None)
        await engineer.direct(told)
        assert len(engineer.sent) == 1


async def test_the_meter_that_hangs_there_has_to_be_the_one_of_the_ticket(engineer: Engineer) -> None:
    for action in (Action.TRIP, Action.CLOSE):
        with hung_up(Household(METER, 9600)) as engineer.line:
            result = await engineer.direct(engineer.ticket(action, numbers=(OTHER,)), verb=action.value)
            assert engineer.sent == []
        assert result.exit_code == 1
        assert "表号不符" in result.stderr


def replace_meter(meter: Household) -> Household:
    """The same anew: a meter remembers."""
    return Household(METER, 9600, setup=meter.setup, forgets=meter.forgets)


async def test_a_meter_under_keep_power_is_not_tripped(engineer: Engineer) -> None:
    meter = Household(METER, 9600)
    until = to_device(datetime.now(UTC) + timedelta(minutes=5)).replace(microsecond=0)
    keep = RelayCommand(METER, Verb.KEEP_POWER, Authority("02", PASSWORD, "00000001"), until)
    permit = Permit(control.action(Verb.KEEP_POWER), METER, "test")
    meter.answer(frame.build(control.build_control(keep, permit)))
    with hung_up(meter) as engineer.line:
        result = await engineer.direct(engineer.ticket())
        assert engineer.sent == []
    assert result.exit_code == 1
    assert "保电状态" in result.stderr


async def test_a_close_goes_to_a_meter_that_tells_neither_number_nor_right_time(engineer: Engineer) -> None:
    meter = Household(METER, 9600, setup=Setup(clock_off_s=-3600.0), forgets=("04000402",))
    with hung_up(meter) as engineer.line:
        result = await engineer.direct(engineer.ticket(Action.CLOSE), verb="close")
        assert len(engineer.sent) == 1
    assert result.exit_code == 0, result.output


async def test_silence_is_no_reason_to_write_again(engineer: Engineer) -> None:
    meter = Household(METER, 9600, mute=True)
    with hung_up(meter) as engineer.line:
        result = await engineer.direct(engineer.ticket())
        assert len(engineer.sent) == 1
    assert result.exit_code == 0, result.output
    deed = direct_evidence.read(engineer.evidence, public(GATEWAY))
    assert deed.answer == b""
    assert deed.status is not None
    assert deed.status.open


async def test_a_refusal_is_told_and_the_relay_is_read_all_the_same(engineer: Engineer) -> None:
    meter = Household(METER, 9600, setup=Setup(passwords=(("02", "654321"),)))
    with hung_up(meter) as engineer.line:
        result = await engineer.direct(engineer.ticket())
        assert len(engineer.sent) == 1
    assert result.exit_code == 3, result.output
    assert "电能表拒绝" in result.stdout
    deed = direct_evidence.read(engineer.evidence, public(GATEWAY))
    assert deed.refusal is not None
    assert deed.status is not None
    assert not deed.status.open


async def test_the_ticket_is_spent_on_disk_before_the_write(
    engineer: Engineer, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[str] = []
    told = engineer.ticket()
    write = SerialLink.write_now

    def spied(link: SerialLink, data: bytes) -> Any:
        kept.append((engineer.machine.folder / "tickets.spent").read_text())
        return write(link, data)

    monkeypatch.setattr(SerialLink, "write_now", spied)
    with hung_up(Household(METER, 9600)) as engineer.line:
        assert (await engineer.direct(told)).exit_code == 0
        assert [str(told["ticket"]) in one for one in kept] == [True]
        (engineer.folder / "evidence.json").unlink()
        again = await engineer.direct(told)
        assert again.exit_code == 1
        assert len(engineer.sent) == 1


async def test_a_disk_that_is_full_keeps_the_frame_back(
    engineer: Engineer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Spent, "note", full)
    with hung_up(Household(METER, 9600)) as engineer.line:
        result = await engineer.direct(engineer.ticket())
        assert engineer.sent == []
    assert result.exit_code == 1
    assert "无法记录" in result.stderr


def test_what_was_read_long_ago_or_by_a_clock_that_jumped_is_no_ground_for_a_trip(engineer: Engineer) -> None:
    found = tickets.read(engineer.ticket(), public(GATEWAY))
    relay_line.check_steady(found, 5.0, 5.5)
    for passed, shown in ((61.0, 61.0), (5.0, 605.0), (5.0, -300.0)):
        with pytest.raises(relay_line.NotSent):
            relay_line.check_steady(found, passed, shown)


async def test_evidence_that_is_changed_is_none(engineer: Engineer) -> None:
    with hung_up(Household(METER, 9600)) as engineer.line:
        assert (await engineer.direct(engineer.ticket())).exit_code == 0
    told = engineer.evidence
    direct_evidence.read(told, public(GATEWAY))
    later = [one | {"at": told["written_at"]} for one in told["after"]]
    for changed in (
        {"left": "nothing"},
        {"after": later},
        {"answer": ""},
        {"ticket": told["ticket"] | {"until": told["written_at"]}},
        {"before": None},
        {"signature": "00"},
        {"clock_offset_ms": 1.5},
    ):
        with pytest.raises(NoEvidence):
            direct_evidence.read(told | changed, public(GATEWAY))
    with pytest.raises(NoEvidence):
        direct_evidence.read(told, public(Ed25519PrivateKey.generate()))


async def test_evidence_of_the_right_machine_that_makes_no_sense_is_none(engineer: Engineer) -> None:
    with hung_up(Household(METER, 9600)) as engineer.line:
        assert (await engineer.direct(engineer.ticket())).exit_code == 0
    told = engineer.evidence
    deed = direct_evidence.read(told, public(GATEWAY))
    early = replace(deed.after[0], at=deed.written_at)
    for wrong in (
        replace(deed, after=(early,)),
        replace(deed, written_at=deed.ticket.until),
        replace(deed, left="some"),
        replace(deed, answer=deed.after[0].answer),
        replace(deed, before=deed.before * 40),
        replace(deed, after=(replace(deed.after[0], question=deed.before[0].question),)),
    ):
        with pytest.raises(NoEvidence):
            direct_evidence.read(
                direct_evidence.signed(wrong, told["ticket"], engineer.machine.key()), public(GATEWAY)
            )


def test_the_key_of_a_gateway_is_pinned_once(engineer: Engineer) -> None:
    other = "cd" * 32
    called = ["--state", str(engineer.machine.folder), "relay", "ticket-key", "--pin", "--key", other]
    refused = runner.invoke(app, called)
    assert refused.exit_code == 2
    assert engineer.machine.pinned() == public(GATEWAY)
    assert runner.invoke(app, [*called, "--replace"]).exit_code == 0
    assert engineer.machine.pinned() == other


def test_what_is_no_ticket_is_said(engineer: Engineer, tmp_path: Path) -> None:
    for raw in (b"", b"[]", b"\xff", b"{" * 9000, b'{"format":1}'):
        with pytest.raises(InputError):
            tickets.read(tickets.parsed(raw), public(GATEWAY))
    assert set(relay_direct.Verb) == {action.value for action in tickets.CODES}
