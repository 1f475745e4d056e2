"""What closes do at their meter while the database is away, and what becomes of them when it is back."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest

from gateway.command import Action, NotInstalled, State, Why
from gateway.control.journal_entries import MOST_RECORDS
from gateway.model import RelayKind
from tests.gateway.control.bench import Bench
from tests.gateway.control.outage import MINUTE, Outage, dark
from tests.gateway.control.test_policy import FACTS


async def test_a_restore_lets_the_customer_close_until_the_database_says_more() -> None:
    outage = await dark(Outage())
    outage.relay.button_pressed = False
    kept = await outage.keep("restore")
    assert kept.command.action is Action.PERMIT_CLOSE
    await outage.work_journal()
    assert outage.relay.obeyed == [Action.PERMIT_CLOSE]
    assert outage.relay.opened
    await outage.back()
    assert (outage.only().action, outage.only().state) == (Action.CLOSE, State.QUEUED)
    await outage.work_until(kept.command.id, State.VERIFIED)
    assert outage.relay.obeyed == [Action.PERMIT_CLOSE, Action.CLOSE]
    permitted = await dark(Outage(replace(FACTS, restore_mode="permit")))
    kept = await permitted.keep("restore")
    await permitted.work_journal()
    await permitted.back()
    assert (permitted.only().action, permitted.only().state) == (Action.PERMIT_CLOSE, State.ACKNOWLEDGED)


async def test_silence_is_read_before_anything_is_repeated() -> None:
    outage = await dark(Outage())
    outage.relay.mute = 1
    await outage.keep()
    await outage.work_journal()
    assert len(outage.door.written) == 1
    lost = await dark(Outage())
    lost.relay.deaf = 1
    await lost.keep()
    await lost.work_journal()
    assert len(lost.door.written) == 2
    assert not lost.relay.opened


async def test_what_can_be_cured_is_cured_and_no_direct_close_becomes_a_permission() -> None:
    outage = await dark(Outage())
    outage.relay.refuses = [Why.NOT_AUTHENTICATED, Why.DEADLINE]
    await outage.keep()
    (entry,) = outage.journal.due()
    await outage.journal.work(entry)
    assert not outage.relay.opened
    old = await dark(Outage())
    old.relay.refuses = [Why.NOT_SUPPORTED]
    kept = await old.keep()
    await old.work_journal(1)
    assert [action for action, _ in old.door.written] == [Action.CLOSE, Action.PERMIT_CLOSE]
    old.relay.refuses = [Why.NOT_SUPPORTED]
    await old.back()
    assert (old.command(kept.command.id).action, old.command(kept.command.id).state) == (
        Action.CLOSE,
        State.QUEUED,
    )
    await old.work_until(kept.command.id, State.SUPERSEDED)


async def test_a_refused_close_goes_to_the_field_when_the_database_is_back() -> None:
    outage = await dark(Outage())
    outage.relay.refuses = [Why.REFUSED_BY_METER]
    kept = await outage.keep()
    (entry,) = outage.journal.due()
    await outage.journal.work(entry)
    await outage.back()
    assert outage.only().state is State.FIELD
    assert outage.store.kept.field_orders == {1: kept.command.id}
    await outage.work_until(kept.command.id, State.VERIFIED)
    assert outage.store.kept.field_orders == {}


async def test_a_meter_that_does_not_obey_is_not_hammered() -> None:
    outage = await dark(Outage())
    outage.relay.deaf = 10_000
    await outage.keep()
    await outage.work_journal(10)
    same = Bench()
    same.relay.opened = same.relay.trip_ordered = True
    same.relay.deaf = 10_000
    close = await same.accept(Action.CLOSE)
    with suppress(AssertionError):
        await same.work_until(close, State.VERIFIED, within=10 * MINUTE)
    assert 3 <= len(outage.door.written) <= len(same.door.written) + 1
    await outage.work_journal(3 * 24 * 60)
    (entry,) = outage.journal._of_meter[1]
    assert len(entry.records) <= MOST_RECORDS + 2
    frames = len(outage.door.written)
    await outage.work_journal(24 * 60)
    assert len(outage.door.written) == frames
    outage.relay.deaf = 0
    await outage.back()
    await outage.work_until(outage.only().id, State.VERIFIED)


async def test_a_trip_that_may_still_be_obeyed_is_waited_for() -> None:
    outage = await dark(Outage())
    outage.relay.opened = outage.relay.trip_ordered = False
    await outage.keep()
    await outage.work_journal(5)
    assert len(outage.door.written) == 1  # sent, although the relay was closed
    outage.relay.opened = outage.relay.trip_ordered = True  # an older trip has come at last
    await outage.work_journal(20)
    assert len(outage.door.written) == 2
    assert not outage.relay.opened
    (entry,) = outage.journal._of_meter[1]
    assert entry.look_at is None


async def test_nothing_leaves_where_shadow_mode_may_be_on() -> None:
    outage = await dark(Outage(replace(FACTS, shadow=True)))
    outage.live = False
    kept = await outage.keep()
    await outage.work_journal()
    assert outage.door.written == []
    await outage.back()
    await outage.work_until(kept.command.id, State.CANCELLED)
    assert outage.door.written == []


async def test_a_terminal_that_is_gone_and_a_frame_that_did_not_leave() -> None:
    outage = await dark(Outage())
    outage.door.fails_to_write = True
    kept = await outage.keep()
    await outage.work_journal(1)
    assert outage.door.written == []
    outage.doors.door = None
    await outage.work_journal(1)
    await outage.back()
    assert outage.only().state is State.QUEUED
    assert "journal: not written" in outage.kinds(kept.command.id)
    assert outage.only().attempts == 0


async def test_a_close_waits_for_its_time() -> None:
    outage = await dark(Outage())
    await outage.keep(not_before=outage.clock.now() + 30 * MINUTE)
    assert outage.journal.due() == []
    await outage.crash()
    assert outage.journal.due() == []
    outage.clock.shown += 31 * MINUTE
    assert len(outage.journal.due()) == 1


async def test_a_meter_without_relay_or_without_place_is_not_forgotten() -> None:
    outage = await dark(Outage(replace(FACTS, relay_kind=RelayKind.NONE)))
    await outage.keep()
    await outage.back()
    assert (outage.only().state, outage.only().why) == (State.CANCELLED, Why.NO_RELAY)
    gone = await dark(Outage())
    await gone.keep()
    gone.away = False
    facts = gone.store.meters.pop(1)
    assert not await gone.journal.file_all()
    with pytest.raises(NotInstalled):
        await gone.journal.file_meter(1)
    gone.store.meters[1] = facts
    await gone.back()


async def test_a_close_whose_meter_was_taken_away_meanwhile_is_a_persons() -> None:
    outage = await dark(Outage(replace(FACTS, installed=False)))
    await outage.keep()
    await outage.back()
    filed = await outage.work_until(outage.only().id, State.FIELD)
    assert (filed.why, outage.door.written) == (Why.NOT_INSTALLED, [])
