"""Tickets for direct lines: handed out through every gate of a trip, and what is handed in for them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.command import Action, Change, Command, MeterFacts, State, Why
from gateway.control import ticket_uses
from gateway.control import tickets as station
from gateway.control.ask import KeyReused, NoSuch, NotNow, Unfit
from gateway.control.course import CLOSE_VALID, LOST_AFTER, TRIP_VALID
from gateway.control.dispatcher import plain_frames
from gateway.control.policy import Rules
from gateway.control.proof import Prover
from gateway.control.stores import step
from gateway.control.tickets import CLOCK_MARGIN, Tickets
from gateway.control.verification import verify
from gateway.errors import InputError, StorageError
from gateway.field import direct_evidence
from gateway.field import ticket as tickets
from gateway.field.direct_evidence import Asked, Deed
from gateway.field.machine import public
from gateway.session.settings import MeterProfile
from gateway.storage import relay_evidence
from gateway.storage.commands import Commands
from gateway.storage.database import Database
from protocols.dlt645 import frame, messages
from protocols.dlt645.messages import ErrorReply, ReadReply, ReadRequest
from tests.gateway.api import house as houses
from tests.gateway.control.switching import (
    ACCEPTED,
    ADDRESS,
    PASSWORD,
    Switching,
    parsed,
    resealed,
    switching,
)
from tests.gateway.control.test_evidence import rechained

pytestmark = pytest.mark.database

OPEN, CLOSED = 0x50, 0x00
MACHINE = Ed25519PrivateKey.generate()
KEY = Ed25519PrivateKey.generate()


@dataclass
class Desk:
    """The gateway's side, an engineer who asks, and what he hands in."""

    stage: Switching
    http: httpx.AsyncClient
    tickets: Tickets
    profile: MeterProfile
    rules: Rules
    owes: bool | None = True
    busy: bool = False
    trusted: bool = True

    async def ask(self, action: str = "trip", **other: object) -> str:
        asked = await houses.asked(self.http, str(uuid4()), action=action, **other)
        return str(asked["id"])

    async def ticket(self, command: str, key: str = "t1", by: str = "li", **changed: Any) -> dict[str, Any]:
        given: dict[str, Any] = {"machine": public(MACHINE), "machine_now": self.now} | changed
        return await self.tickets.issue(UUID(command), by, key, **given)

    @property
    def now(self) -> datetime:
        return self.stage.house.clock.now()

    async def command(self, number: str) -> Command:
        found = await self.stage.store.command(UUID(number))
        assert found is not None
        return found

    def deed(
        self, told: dict[str, Any], word: int | None = OPEN, answer: bytes | None = None, **changed: Any
    ) -> dict[str, Any]:
        """What the machine hands in that used this ticket now."""
        self.stage.house.clock.passes(2)
        at = self.now
        self.stage.house.clock.passes(2)
        after = () if word is None else (read("04000503", word.to_bytes(2, "little"), self.now),)
        self.stage.house.clock.passes(2)
        deed = Deed(
            tickets.read(told, self.tickets.key),
            at,
            "whole",
            -300,
            (read("04000402", bytes.fromhex(ADDRESS)[::-1], at),),
            bytes.fromhex(ACCEPTED) if answer is None else answer,
            after,
        )
        key = changed.pop("key", MACHINE)
        return direct_evidence.signed(replace(deed, **changed), told, key)

    async def events(self, number: str) -> list[Any]:
        return list(await relay_evidence.happened(self.stage.house.database, UUID(number)))


def read(di: str, data: bytes, at: datetime) -> Asked:
    question = frame.build(messages.to_frame(ReadRequest(ADDRESS, di)))
    return Asked(at, question, frame.build(messages.to_frame(ReadReply(ADDRESS, di, data))))


@pytest.fixture
async def desk(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    monkeypatch.setattr(tickets, "_COST", 2**4)
    async with switching(database, tmp_path) as stage:
        clock: Any = stage.course._clock
        made: Desk

        async def billing(command: Command, facts: MeterFacts) -> bool | None:
            return made.owes

        relay, numbers = stage.house.parts.relay, station.numbers_of
        assert relay is not None
        assert (numbers("E1"), numbers("202311050013")) == ((), ("202311050013",))
        assert numbers("9912023110500137") == ("023110500137", "202311050013")
        # the house numbers its meters otherwise than any meter does
        monkeypatch.setattr(
            station, "numbers_of", lambda meter: (ADDRESS,) if meter in ("E1", "E2") else numbers(meter)
        )
        made = Desk(
            stage,
            await stage.house.client("nobody"),
            Tickets(
                Commands(database, clock),
                clock,
                lambda: made.rules,
                KEY,
                plain_frames(lambda name: made.profile),
                lambda command: relay_evidence.happened(database, command),
                works_on=lambda command: made.busy,
                ask_billing=billing,
                clock_trusted=lambda: made.trusted,
            ),
            MeterProfile(password=PASSWORD),
            Rules(),
        )
        stage.house.parts = replace(stage.house.parts, relay=replace(relay, tickets=made.tickets))
        made.http = await stage.house.client("billing")
        yield made


async def test_a_ticket_holds_the_frame_whose_hash_was_kept_before(desk: Desk) -> None:
    number = await desk.ask()
    told = await desk.ticket(number)
    command = await desk.command(number)
    found = tickets.read(told, desk.tickets.key)
    raw = tickets.filled(found, PASSWORD)
    assert (command.state, command.attempts) == (State.SENDING, 1)
    assert hashlib.sha256(raw).digest() == command.frame_hash
    assert command.sent_at is not None
    assert command.sent_at == found.since
    assert command.valid_until == found.since + TRIP_VALID
    assert command.look_at == found.since + LOST_AFTER
    ends = found.since + TRIP_VALID - CLOCK_MARGIN
    assert found.until == ends.replace(microsecond=0)
    assert (found.action, found.address, found.numbers) == (Action.TRIP, ADDRESS, (ADDRESS,))
    assert PASSWORD not in str(told)
    with pytest.raises(tickets.NoTicket):
        tickets.filled(found, "246814")


async def test_a_close_has_a_day_and_passes_no_gate_of_a_trip(desk: Desk) -> None:
    await desk.stage.house.rows(
        "INSERT INTO control_setting (name, scope, value, set_by, set_at)"
        " VALUES ('brake', '', 'true', 'x', %s)",
        desk.now,
    )
    desk.owes, desk.trusted = None, False
    desk.rules = replace(desk.rules, from_hour=time(1), to_hour=time(2))
    number = await desk.ask("close")
    found = tickets.read(await desk.ticket(number), desk.tickets.key)
    assert found.until == (found.since + CLOSE_VALID).replace(microsecond=0)
    assert (await desk.command(number)).state is State.SENDING


async def test_a_trip_is_verified_by_the_read_on_the_line_and_its_bundle_holds(desk: Desk) -> None:
    number = await desk.ask()
    told = await desk.ticket(number)
    evidence = desk.deed(told)
    command = await desk.tickets.take(UUID(number), evidence, "li")
    assert (command.state, command.why) == (State.VERIFIED, Why.RELAY_READ)
    assert command.sent_at == direct_evidence.read(evidence, desk.tickets.key).written_at
    await desk.stage.seal()
    verdict = verify(await desk.stage.evidence(number))
    assert verdict.sound, verdict.wrong
    assert verdict.remarks == []
    words = [f"{one.words} {one.words_zh}" for one in verdict.entries]
    assert any("ticket for li until" in one and "操作票 li" in one for one in words), words
    assert any(one.startswith("direct line") and "现场直连下发" in one for one in words)
    assert any("relay open" in one and "现场直连读取" in one for one in words)
    before = await desk.events(number)
    again = await desk.tickets.take(UUID(number), evidence, "li")
    assert again == command
    assert await desk.events(number) == before


async def test_a_close_in_the_field_is_verified_and_its_order_ended(desk: Desk) -> None:
    number = await desk.ask("close")
    async with desk.stage.store.desk((await desk.command(number)).meter_id) as open_desk:
        sending = await step(open_desk, open_desk.facts.open[0], State.SENDING)
        gone = await step(open_desk, sending, State.FIELD, why=Why.NOT_SUPPORTED)
        await open_desk.open_field_order(gone, Why.NOT_SUPPORTED, "")
    told = await desk.ticket(number)
    command = await desk.tickets.take(UUID(number), desk.deed(told, CLOSED), "li")
    assert command.state is State.VERIFIED
    assert command.energised_at is not None
    ((closed,),) = await desk.stage.house.rows("SELECT closed_at IS NOT NULL FROM field_order")
    assert closed


async def shut(desk: Desk, number: str, words: str, **changed: Any) -> None:
    """No ticket, and the command is as it was."""
    before = await desk.command(number)
    events = await desk.events(number)
    with pytest.raises((NotNow, Unfit), match=words):
        await desk.ticket(number, **changed)
    assert await desk.command(number) == before
    assert await desk.events(number) == events


async def test_every_gate_of_a_trip_stands_before_its_ticket(desk: Desk) -> None:
    number = await desk.ask()
    for name, value, words in (
        ("owes", False, "营销"),
        ("owes", None, "营销"),
        ("busy", True, "正在下发"),
        ("trusted", False, "时钟不可信"),
        ("rules", replace(desk.rules, from_hour=time(1), to_hour=time(2)), "时段"),
        ("rules", replace(desk.rules, limits=replace(desk.rules.limits, area=0)), "限额"),
        ("profile", MeterProfile(level="98"), "密文电能表不开操作票"),
        ("profile", MeterProfile(), "身份认证"),
        ("profile", MeterProfile(level="", password=PASSWORD), "不支持"),
    ):
        was = getattr(desk, name)
        setattr(desk, name, value)
        await shut(desk, number, words)
        setattr(desk, name, was)
    await shut(desk, number, "时钟偏差", machine_now=desk.now + timedelta(seconds=11))
    await shut(desk, number, "公钥无效", machine="12")
    relay = desk.stage.house.parts.relay
    assert relay is not None
    await relay.switches.brake(True, "ann", "drill")
    await shut(desk, number, "制动")
    await relay.switches.brake(False, "ann", "over")
    desk.stage.house.clock.passes(1)
    await desk.http.post(
        "/api/v1/control-blocks",
        json={"customer": "C-E1", "kind": "medical", "source": "s", "since": desk.now.isoformat()},
    )
    desk.stage.house.clock.passes(1)
    await shut(desk, number, "停电保护")


async def test_what_waits_for_a_day_or_ends_too_soon_gets_no_ticket(desk: Desk) -> None:
    later = await desk.ask(meter="W1", not_before=(desk.now + timedelta(hours=1)).isoformat())
    await shut(desk, later, "未到下发时间")
    soon = await desk.ask(meter="E2", expires_at=(desk.now + timedelta(minutes=3)).isoformat())
    await shut(desk, soon, "即将过期")
    await shut(desk, await desk.ask(meter="E3"), "表号无法核对")
    just = await desk.ask(expires_at=(desk.now + timedelta(minutes=5)).isoformat())
    found = tickets.read(await desk.ticket(just), desk.tickets.key)
    command = await desk.command(just)
    assert command.valid_until == command.expires_at
    assert command.expires_at is not None
    assert found.until <= command.expires_at - CLOCK_MARGIN


async def test_in_shadow_no_trip_gets_a_ticket(desk: Desk) -> None:
    number = await desk.ask()
    await desk.stage.house.rows("DELETE FROM control_setting WHERE name = 'shadow'")
    await shut(desk, number, "影子")


async def test_keep_power_gets_none(desk: Desk) -> None:
    await shut(desk, await desk.ask("keep-power"), "不开操作票")


async def test_the_same_key_gives_the_same_ticket_and_another_none(desk: Desk) -> None:
    number = await desk.ask()
    told = await desk.ticket(number)
    desk.stage.house.clock.passes(3)
    events = await desk.events(number)
    assert await desk.ticket(number) == told
    assert await desk.events(number) == events
    with pytest.raises(KeyReused):
        await desk.ticket(number, machine="ab" * 32)
    for key, by in (("t2", "li"), ("t1", "wang")):
        with pytest.raises(NotNow, match="操作票"):
            await desk.ticket(number, key, by)
    desk.profile = replace(desk.profile, password="111111")
    with pytest.raises(NotNow, match="已变更"):
        await desk.ticket(number)
    desk.stage.house.clock.passes(600)
    with pytest.raises(NotNow, match="已失效"):
        await desk.ticket(number)
    with pytest.raises(NoSuch):
        await desk.ticket(str(uuid4()))


async def test_a_dispatcher_that_had_seen_it_queued_keeps_the_ticket_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has begun while the ticket's desk was open: until it is done, nobody has the ticket."""
    number = await desk.ask()
    prepared = desk.tickets._prepared

    def begins(*given: Any) -> Any:
        desk.busy = True
        return prepared(*given)

    with monkeypatch.context() as planted:
        planted.setattr(desk.tickets, "_prepared", begins)
        for _ in range(2):
            with pytest.raises(NotNow, match="正在下发"):
                await desk.ticket(number)
    desk.busy = False
    assert (await desk.command(number)).attempts == 1
    assert (await desk.ticket(number))["command"] == number


async def test_another_gateway_that_had_seen_it_queued_sends_nothing_any_more(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = await desk.ask()
    door = desk.stage.door
    status = door.status

    async def while_the_meter_is_read() -> Any:
        found = await status()
        if (await desk.command(number)).state is State.QUEUED:
            await desk.ticket(number)
        return found

    monkeypatch.setattr(door, "status", while_the_meter_is_read)
    await desk.stage.work()
    assert door.written == []
    assert (await desk.command(number)).state is State.SENDING


async def test_a_frame_that_left_meanwhile_keeps_the_ticket_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A course that was on its way has claimed the command as well, and is done already."""
    number = await desk.ask("close")
    claim = desk.tickets._claim

    async def overtaken(*given: Any) -> Any:
        made = await claim(*given)
        async with desk.stage.store.desk((await desk.command(number)).meter_id) as other:
            change = Change({"frame_hash": bytes(32)})
            await other.note(other.facts.open[0], "sending again", {}, change)
        return made

    monkeypatch.setattr(desk.tickets, "_claim", overtaken)
    with pytest.raises(NotNow, match="正在下发"):
        await desk.ticket(number)


async def test_a_ticket_that_nobody_uses_is_resolved_by_reading(desk: Desk) -> None:
    """After LOST_AFTER it may have left; it goes on only once its validity is over and the relay is read."""
    number = await desk.ask()
    await desk.ticket(number)
    assert not await desk.stage.work()
    desk.stage.house.clock.passes(301)
    assert await desk.stage.work()
    assert (await desk.command(number)).state is State.UNCERTAIN
    await desk.stage.work()
    with pytest.raises(NotNow):
        await desk.ticket(number, "t2")
    assert (await desk.command(number)).state is State.UNCERTAIN
    assert desk.stage.door.written == []
    desk.stage.house.clock.passes(400)
    await desk.stage.work()
    assert (await desk.command(number)).state is State.QUEUED
    second = await desk.ticket(number, "t2")
    assert (await desk.command(number)).attempts == 2
    assert second["ticket"]


async def test_a_meter_that_refuses_ends_a_trip_and_sends_a_close_to_the_field(desk: Desk) -> None:
    refusal = frame.build(messages.to_frame(ErrorReply(ADDRESS, 0x1C, 0x04)))
    trip = await desk.ask()
    command = await desk.tickets.take(UUID(trip), desk.deed(await desk.ticket(trip), CLOSED, refusal), "li")
    assert (command.state, command.why) == (State.REFUSED, Why.NOT_AUTHENTICATED)
    close = await desk.ask("close")
    command = await desk.tickets.take(
        UUID(close), desk.deed(await desk.ticket(close, "t2"), None, refusal), "li"
    )
    assert command.state is State.FIELD
    assert await desk.stage.house.rows("SELECT 1 FROM field_order WHERE closed_at IS NULL")
    await desk.stage.seal()
    for number in (trip, close):
        verdict = verify(await desk.stage.evidence(number))
        assert verdict.sound, verdict.wrong


@pytest.mark.parametrize("planted", [False, True])
async def test_that_a_trip_failed_is_believed_of_our_own_reads_only(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, planted: bool
) -> None:
    """However late the machine says that it has read: another frame leaves on our own clock's word."""
    if planted:
        monkeypatch.setattr(ticket_uses, "_counts", lambda action, status: True)
    number = await desk.ask()
    told = await desk.ticket(number)
    late = read("04000503", CLOSED.to_bytes(2, "little"), desk.now + timedelta(seconds=700))
    evidence = desk.deed(told, CLOSED, b"", after=(late,))
    desk.stage.house.clock.passes(900)
    command = await desk.tickets.take(UUID(number), evidence, "li")
    if planted:
        assert command.state is State.QUEUED
        return
    assert (command.state, command.why) == (State.UNCERTAIN, Why.NO_ANSWER)
    await desk.stage.work()
    assert (await desk.command(number)).state is State.QUEUED


async def test_silence_with_an_open_relay_is_proof(desk: Desk) -> None:
    number = await desk.ask()
    told = await desk.ticket(number)
    command = await desk.tickets.take(UUID(number), desk.deed(told, OPEN, b""), "li")
    assert command.state is State.VERIFIED


async def test_what_comes_after_the_gateway_gave_the_ticket_up_still_proves(desk: Desk) -> None:
    number = await desk.ask()
    evidence = desk.deed(await desk.ticket(number))
    desk.stage.house.clock.passes(301)
    desk.stage.relay.unreadable = 99
    while await desk.stage.work():
        pass
    assert (await desk.command(number)).state is State.UNCERTAIN
    command = await desk.tickets.take(UUID(number), evidence, "li")
    assert command.state is State.VERIFIED
    await desk.stage.seal()
    verdict = verify(await desk.stage.evidence(number))
    assert verdict.sound, verdict.wrong


async def test_what_our_own_read_has_proved_takes_the_evidence_as_a_note(desk: Desk) -> None:
    number = await desk.ask()
    evidence = desk.deed(await desk.ticket(number))
    desk.stage.house.clock.passes(301)
    desk.stage.relay.opened = desk.stage.relay.trip_ordered = True
    while await desk.stage.work():
        pass
    before = await desk.command(number)
    assert before.state is State.VERIFIED
    after = await desk.tickets.take(UUID(number), evidence, "li")
    assert (after.state, after.sent_at) == (State.VERIFIED, before.sent_at)
    kinds = [body["kind"] for body in await desk.events(number)]
    assert kinds[-2:] == ["direct line", "direct read"]
    assert await desk.tickets.take(UUID(number), evidence, "li") == after
    assert len(await desk.events(number)) == len(kinds)
    await desk.stage.seal()
    verdict = verify(await desk.stage.evidence(number))
    assert verdict.sound, verdict.wrong


async def test_what_was_cancelled_or_superseded_takes_no_evidence(desk: Desk) -> None:
    number = await desk.ask()
    evidence = desk.deed(await desk.ticket(number))
    await desk.ask("close")
    desk.stage.house.clock.passes(301)
    desk.stage.relay.unreadable = 99
    while (await desk.command(number)).state is not State.SUPERSEDED:
        assert await desk.stage.work()
        desk.stage.house.clock.passes(60)
    with pytest.raises(NotNow, match="请保存证据"):
        await desk.tickets.take(UUID(number), evidence, "li")


async def test_evidence_that_does_not_belong_here_changes_nothing(desk: Desk) -> None:
    number, other = await desk.ask(), await desk.ask(meter="E2")
    told = await desk.ticket(number)
    evidence = desk.deed(told)
    events = await desk.events(number)
    with pytest.raises(Unfit, match="另一命令"):
        await desk.tickets.take(UUID(other), evidence, "li")
    with pytest.raises(InputError, match="签名无效"):
        await desk.tickets.take(UUID(number), desk.deed(told, key=KEY), "li")
    with pytest.raises(InputError):
        await desk.tickets.take(UUID(number), evidence | {"left": "nothing"}, "li")
    future = desk.deed(told)
    desk.stage.house.clock.passes(-60)
    with pytest.raises(Unfit, match="未来"):
        await desk.tickets.take(UUID(number), future, "li")
    assert await desk.events(number) == events


async def test_the_answer_to_an_earlier_ticket_is_noted_and_proves_nothing(desk: Desk) -> None:
    number = await desk.ask()
    first = desk.deed(await desk.ticket(number))
    desk.stage.house.clock.passes(301)
    await desk.stage.work()
    desk.stage.house.clock.passes(400)
    await desk.stage.work()
    await desk.ticket(number, "t2")
    command = await desk.tickets.take(UUID(number), first, "li")
    assert command.state is State.SENDING
    kinds = [body["kind"] for body in await desk.events(number)]
    assert kinds[-2:] == ["direct line", "direct read"]


async def test_a_read_that_is_lost_with_the_database_is_taken_the_second_time(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = await desk.ask()
    evidence = desk.deed(await desk.ticket(number))

    async def lost(*given: object) -> None:
        raise StorageError("away")

    with monkeypatch.context() as planted:
        planted.setattr(Prover, "look", lost)
        with pytest.raises(StorageError, match="away"):
            await desk.tickets.take(UUID(number), evidence, "li")
    assert (await desk.command(number)).state is State.ACKNOWLEDGED
    command = await desk.tickets.take(UUID(number), evidence, "li")
    assert command.state is State.VERIFIED


async def test_a_read_from_before_the_write_does_not_pass_verification(desk: Desk) -> None:
    """What `take` cannot be brought to do, somebody who edits a bundle might: the checker sees it."""
    number = await desk.ask()
    evidence = desk.deed(await desk.ticket(number))
    await desk.tickets.take(UUID(number), evidence, "li")
    made = parsed(await desk.stage.evidence(number))
    (line,) = [one for one in made["events"] if one["body"]["kind"] == "direct line"]
    line["body"]["evidence"]["written_at"] = line["body"]["at"]
    rechained(made)
    wrong = [one.what for one in verify(resealed(made)).wrong]
    assert "the relay was read before the last frame was sent" in wrong


async def test_the_routes_hand_out_and_take_in(desk: Desk) -> None:
    number = await desk.ask()
    path = f"/api/v1/relay-commands/{number}"
    body = {"machine": public(MACHINE), "now": desk.now.isoformat()}
    key = (await desk.http.get("/api/v1/ticket-key")).json()["key"]
    assert (await desk.http.post(f"{path}/ticket", json=body)).status_code == 400
    made = await desk.http.post(f"{path}/ticket", json=body, headers={"idempotency-key": "k"})
    assert made.status_code == 200, made.text
    assert tickets.read(made.json(), key).command == UUID(number)
    second = await desk.http.post(f"{path}/ticket", json=body, headers={"idempotency-key": "k2"})
    assert second.status_code == 409
    taken = await desk.http.post(f"{path}/direct-evidence", json={"evidence": desk.deed(made.json())})
    assert (taken.status_code, taken.json()["state"]) == (200, "verified"), taken.text
    bad = await desk.http.post(f"{path}/direct-evidence", json={"evidence": {"format": 1.5}})
    assert bad.status_code == 422
    mine = [body for body in await desk.events(number) if body["kind"] == "direct line"]
    assert mine[0]["evidence"]["by"] == "billing"
