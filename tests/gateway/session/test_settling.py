"""What a broker may forget: a report once it is committed and confirmed, all else once it is handled."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

import pytest

from gateway.model import ReadingRow
from gateway.session import stores, unasked
from gateway.session.receipts import Receipt, Receipts, begin, finish
from gateway.session.settings import SessionSettings
from gateway.session.unasked import PENDING, Unasked
from gateway.transports import mqtt
from gateway.transports.link import Settle, settled
from gateway.transports.mqtt_broker import Broker
from gateway.transports.mqtt_settings import MqttSettings
from protocols.q_gdw376.frame import Frame, build
from protocols.q_gdw376.messages import encode_unit
from tests.gateway.session.acknowledged import AcknowledgedLink, dial
from tests.gateway.session.stage import (
    ADDRESS,
    Device,
    HandWriter,
    Stage,
    assets,
    due,
    frozen_unit,
    noon_clock,
    stage,
    until,
)
from tests.gateway.transports.broker import Mosquitto, terminal

UNKNOWN_AFN = bytes.fromhex("00000100 01")
"""of AFN0F: kept raw, whatever it says"""

EVENT = bytes.fromhex("00000100 01000001 0c0700102411260580")
"""0E F1: EC1 = 1, one important record at pointer 0"""


async def logged_in(made: Stage, only_for: frozenset[str] | None = None) -> tuple[Device, AcknowledgedLink]:
    """All that was said at the login is settled, and forgotten here."""
    device, link = dial(made, only_for=only_for)
    await device.confirmed(await device.login())
    await until(lambda: made.registry.session(ADDRESS) is not None)
    await made.session().ready()
    await until(lambda: len(link.settled) == link.given)
    return device, link


def since(link: AcknowledgedLink, before: int) -> list[int]:
    """Messages settled that came from `before` on."""
    return [number - before for number in link.settled if number >= before]


class GatedWriter(HandWriter):
    """Commits the rows of a meter once its gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = {1000 + pn: asyncio.Event() for pn in range(1, 5)}

    async def file(self, rows: Sequence[ReadingRow]) -> object:
        for row in rows:
            await self.gates[row[0]].wait()
        return await super().file(rows)


def with_writer(made: Stage, writer: HandWriter) -> None:
    made.writer = writer
    object.__setattr__(made.registry._parts, "writer", writer)


# reports


async def settled_after_its_commit(made: Stage, *, con: bool) -> bool:
    """Is a report settled only when its rows are committed, and its confirm, if it wants one, was sent?"""
    device, link = await logged_in(made)
    before, sent = link.given, len(link.writes)
    made.writer.gate.clear()
    await device.say(0x0D, frozen_unit(1), con=con)
    await device.confirmed(await device.beat())
    await until(lambda: 1 in since(link, before))
    early = 0 in since(link, before)
    made.writer.gate.set()
    await until(lambda: 0 in since(link, before))
    confirms = link.sent_before[link.settled.index(before)] - sent
    return not early and bool(made.writer.rows) and confirms == (2 if con else 1)


@pytest.mark.parametrize("con", [True, False])
async def test_a_report_is_settled_once_it_is_committed_and_confirmed(con: bool) -> None:
    async with stage(assets()) as made:
        assert await settled_after_its_commit(made, con=con)


@pytest.mark.parametrize("con", [True, False])
async def test_settling_what_is_only_begun_is_caught(con: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    take = Unasked.take

    def hasty(
        self: Unasked, frame: Frame, raw: bytes, receipts: tuple[Receipt, ...] = (), *, late: bool
    ) -> None:
        take(self, frame, raw, late=late)

    monkeypatch.setattr(Unasked, "take", hasty)
    async with stage(assets()) as made:
        assert not await settled_after_its_commit(made, con=con)


async def test_settling_before_the_confirm_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hasty(
        self: Unasked, frame: Frame, raw: bytes, late: bool, at: datetime, receipts: tuple[Receipt, ...]
    ) -> None:
        await self._file(frame, raw, late, at, settles=True)
        await finish(receipts)
        await self._session.confirm(frame)

    monkeypatch.setattr(Unasked, "_handle", hasty)
    async with stage(assets()) as made:
        assert not await settled_after_its_commit(made, con=True)


async def test_reports_are_settled_each_for_itself() -> None:
    async with stage(assets()) as made:
        with_writer(made, writer := GatedWriter())
        device, link = await logged_in(made)
        before = link.given
        for pn in (1, 2, 3, 4):
            await device.say(0x0D, frozen_unit(pn), con=pn % 2 == 0)
        order = []
        for pn in (3, 1, 4, 2):
            writer.gates[1000 + pn].set()
            order.append(pn - 1)
            await until(lambda: len(since(link, before)) >= len(order))
            assert since(link, before) == order


async def test_a_report_in_one_message_with_others_waits_for_them() -> None:
    async with stage(assets()) as made:
        with_writer(made, writer := GatedWriter())
        device, link = await logged_in(made)
        before = link.given
        await device.link.write(b"".join(report(pn) for pn in (1, 2, 3)))
        for pn in (3, 1):
            writer.gates[1000 + pn].set()
        await until(lambda: {row[0] for row in writer.rows} == {1001, 1003})
        assert since(link, before) == []
        writer.gates[1002].set()
        await until(lambda: since(link, before) == [0])


async def test_where_the_link_ends_before_the_commit_nothing_is_settled() -> None:
    async with stage(assets()) as made:
        device, link = await logged_in(made)
        before = link.given
        made.writer.gate.clear()
        await device.say(0x0D, frozen_unit(1), con=False)
        await device.say(0x0D, frozen_unit(2))
        await until(lambda: link.given == before + 2)
        await device.hang_up()
        await until(lambda: made.registry.session(ADDRESS) is None)
        made.writer.gate.set()
        await until(lambda: len(made.writer.rows) == 2)
        await until(lambda: not made.registry._parts.filing)
        assert since(link, before) == []


async def test_a_report_whose_confirm_could_not_be_sent_is_not_settled() -> None:
    async with stage(assets()) as made:
        device, link = await logged_in(made)
        before = link.given
        made.writer.gate.clear()
        await device.say(0x0D, frozen_unit(1))
        await device.say(0x0D, frozen_unit(2), con=False)
        await until(lambda: len(made.session().unasked._tasks) == 2)
        await made.logged_in(host="192.0.2.2")  # the older link stands, and is only listened to
        made.writer.gate.set()
        await until(lambda: since(link, before) == [1])
        await until(lambda: not made.registry._parts.filing)
        assert since(link, before) == [1]
        assert len(made.writer.rows) == 2


async def test_a_frame_in_pieces_is_settled_with_its_last_one() -> None:
    async with stage(assets()) as made:
        with_writer(made, writer := GatedWriter())
        device, link = await logged_in(made)
        before = link.given
        one, two = report(1), report(2)
        for piece in (one[:20], one[20:] + two[:9], two[9:30], two[30:]):
            await device.link.write(piece)
        writer.gates[1002].set()
        await until(lambda: len(writer.rows) == 1)
        # the last two have nothing of the first report
        await until(lambda: since(link, before) == [2, 3])
        writer.gates[1001].set()
        await until(lambda: sorted(since(link, before)) == [0, 1, 2, 3])


async def test_half_a_frame_that_does_not_go_on_is_settled_as_damage() -> None:
    async with stage(assets(), clock=noon_clock(50.0)) as made:
        device, link = await logged_in(made)
        before = link.given
        await device.link.write(report(1)[:20])
        await until(lambda: link.given == before + 1)
        assert since(link, before) == []
        await until(lambda: since(link, before) == [0])
        assert made.count("damaged_total") == 1


async def test_the_receipts_of_pieces() -> None:
    order: list[int] = []

    def settle_of(number: int) -> Settle:
        async def settle() -> None:
            order.append(number)

        return settle

    receipts = Receipts()
    for number in range(3):
        receipts.came(10, settle_of(number))
    begin(whole := receipts.current)
    await receipts.handled(11)
    receipts.came(10, settle_of(3))
    assert [one.size for one in receipts.current] == [10, 10, 10]
    await receipts.handled(10)
    await receipts.handled(0)
    assert order == [3]
    await finish(whole)
    assert order == [3, 0, 1, 2]
    receipts.came(10, settled)
    assert receipts.current == ()
    receipts.came(10, settle_of(4))
    receipts.ended = True
    await receipts.handled(0)
    assert order == [3, 0, 1, 2]


# the database is away


async def test_events_are_settled_once_the_database_is_back() -> None:
    async with stage(assets(), clock=noon_clock(50.0), settings=SessionSettings(fetch_events=False)) as made:
        device, link = await logged_in(made)
        before = link.given
        made.store.away = True
        await device.say(0x0E, EVENT, con=False)
        await device.confirmed(await device.beat())
        await asyncio.sleep(unasked.AGAIN_S / 50 * 1.5)
        assert since(link, before) == [1]
        made.store.away = False
        await until(lambda: since(link, before) == [1, 0])
        assert len(made.store.events) == 1


async def test_what_is_only_kept_raw_is_settled_once_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "RETRY_S", 0.05)
    async with stage(assets()) as made:
        device, link = await logged_in(made)
        before = link.given
        made.store.away = True
        await device.say(0x0F, UNKNOWN_AFN, con=False)
        await device.confirmed(await device.beat())
        await until(lambda: 1 in since(link, before))
        await asyncio.sleep(0.1)
        assert since(link, before) == [1]
        made.store.away = False
        await until(lambda: since(link, before) == [1, 0])
        assert any("AFN0F" in kept.reason for kept in made.store.raw)


async def test_readings_that_the_database_refuses_are_kept_raw_and_do_not_come_again() -> None:
    async with stage(assets()) as made:
        device, link = await logged_in(made)
        before = link.given
        made.writer.refuses = True
        sent = await device.say(0x0D, frozen_unit(1))
        await until(lambda: since(link, before) == [0])
        assert any("not filed" in kept.reason for kept in made.store.raw)
        assert sent.pseq not in [confirm.pseq for confirm in device.confirms]


async def test_reports_before_the_terminal_could_be_looked_up_wait_for_that() -> None:
    async with stage(assets(), clock=noon_clock(50.0)) as made:
        made.store.away = True
        device, link = dial(made)
        await device.confirmed(await device.login())
        for _ in range(20):
            await device.say(0x0D, frozen_unit(1), con=False)
        await until(lambda: link.given == 21)
        await device.confirmed(await device.beat())
        assert link.settled == [0, 21]
        made.store.away = False
        await until(lambda: len(link.settled) == link.given)
        assert len(made.writer.rows) == 20


async def test_what_waits_is_as_much_as_the_link_gives() -> None:
    async with stage(assets()) as made:
        device, link = await logged_in(made)
        before = link.given
        made.writer.gate.clear()
        for _ in range(3 * PENDING):
            await device.say(0x0D, frozen_unit(1), con=False)
        await until(lambda: link.given == before + 3 * PENDING)
        await device.confirmed(await device.beat())
        assert len(made.session().unasked._tasks) == 3 * PENDING
        made.writer.gate.set()
        await until(lambda: len(link.settled) == link.given)
        assert len(made.writer.rows) == 3 * PENDING


async def test_a_message_full_of_frames_finds_an_end_and_is_not_settled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unasked, "PENDING_UNSETTLED", 10)
    async with stage(assets()) as made:
        device, link = await logged_in(made)
        before = link.given
        made.writer.gate.clear()
        await device.link.write(report(1) * 11)
        await device.confirmed(await device.beat())
        assert len(made.session().unasked._tasks) == 10
        made.writer.gate.set()
        await until(lambda: len(made.writer.rows) == 10)
        await until(lambda: not made.registry._parts.filing)
        assert since(link, before) == [1]


# what is not filed


async def test_heartbeats_answers_and_damage_are_settled_as_soon_as_they_are_handled() -> None:
    async with stage(assets()) as made:
        device, link = await logged_in(made)
        before = link.given
        made.writer.gate.clear()
        device.answers[0x0D, 161] = lambda frame: [frozen_unit(2)]
        assert (await made.session().read_frozen([due(2)])).rows
        await until(lambda: since(link, before) == [0])
        made.store.away = True
        await device.confirmed(await device.beat())
        await device.link.write(bytes(40))
        await until(lambda: since(link, before) == [0, 1, 2])


async def test_a_late_answer_is_settled_at_once() -> None:
    async with stage(assets(), settings=SessionSettings(reply_timeout_s=0.05, repeats=0)) as made:
        device, link = await logged_in(made)
        before = link.given
        made.writer.gate.clear()
        await made.session().read_frozen([due(1)])
        (asked,) = device.requests(0x0D)
        await device.link.write(device.reply(asked, [frozen_unit(1)]))
        await until(lambda: since(link, before) == [0])
        assert made.count("exchanges_total", outcome="late") == 1


async def test_reports_of_a_stranger_are_settled_and_kept_raw() -> None:
    async with stage() as made:
        device, link = dial(made)
        await device.login()
        await device.say(0x0D, frozen_unit(1), con=False)
        await until(lambda: made.store.strangers == [ADDRESS])
        await device.say(0x0D, frozen_unit(1), con=False)
        await until(lambda: sorted(link.settled) == [0, 1, 2])
        await made.registry.close()
        assert [kept.reason for kept in made.store.raw] == [
            "frame of a terminal that is not in the assets"
        ] * 2


async def test_what_an_older_link_still_has_goes_to_the_newer_login() -> None:
    async with stage(assets()) as made:
        older, link = await logged_in(made)
        before = link.given
        newer = await made.logged_in(host="192.0.2.2")
        await older.say(0x0D, frozen_unit(1), con=False)
        await older.beat()
        await until(lambda: since(link, before) == [1])
        assert not made.writer.rows
        assert newer.link.ended is False


# what comes again comes without its login


async def filed_without_a_login(made: Stage, only_for: frozenset[str] | None) -> bool:
    device, link = dial(made, only_for=only_for)
    await device.say(0x0D, frozen_unit(1), con=False)
    await until(lambda: 0 in link.settled)
    return bool(made.writer.rows)


async def test_a_report_on_a_link_of_its_terminal_needs_no_login() -> None:
    async with stage(assets()) as made:
        assert await filed_without_a_login(made, frozenset({ADDRESS}))
        assert made.registry.session(ADDRESS) is not None


@pytest.mark.parametrize("only_for", [None, frozenset({"02009999"})])
async def test_a_report_on_a_link_of_anybody_or_another_does(only_for: frozenset[str] | None) -> None:
    async with stage(assets()) as made:
        assert not await filed_without_a_login(made, only_for)
        assert made.registry.session(ADDRESS) is None
        await made.registry.close()
        assert [kept.reason for kept in made.store.raw] == [
            f"frame of {ADDRESS}, which is not logged in here"
        ]


async def test_a_report_takes_nothing_over_from_a_login() -> None:
    async with stage(assets()) as made:
        await made.logged_in()
        await made.session().ready()
        session = made.session()
        assert not await filed_without_a_login(made, frozenset({ADDRESS}))
        assert made.session() is session


async def test_a_report_of_a_terminal_that_is_refused_opens_nothing() -> None:
    async with stage(settings=SessionSettings(refuse_unknown=True)) as made:
        assert not await filed_without_a_login(made, frozenset({ADDRESS}))
        assert not made.store.strangers


@pytest.mark.parametrize("version", ["3.1.1", "5"])
async def test_a_report_survives_the_gateway_that_had_not_committed_it(
    tmp_path: Path, version: Literal["3.1.1", "5"]
) -> None:
    """Over a real broker: the report has no CON, so the terminal says it once."""
    with Mosquitto(tmp_path) as broker:
        settings = MqttSettings(Broker("127.0.0.1", broker.port, version=version))
        async with terminal(broker.port, ADDRESS, version=version) as device:
            async with stage(assets(), clock=noon_clock(50.0)) as first:
                first.writer.gate.clear()
                terminals = mqtt.connect(settings, first.registry.accept)
                await until(lambda: terminals.connected, 20)
                await device.say(said(2, encode_unit(2, 1, 0)))
                await until(lambda: first.registry.session(ADDRESS) is not None, 20)
                await device.say(said(0x0D, frozen_unit(1)))
                await until(lambda: bool(first.session().unasked._tasks), 20)
                await until(lambda: terminals.window.unsettled == 1, 20)
                assert terminals.connection is not None
                terminals.connection.reset()
                await terminals.close()
                for task in list(first.registry._parts.filing):
                    task.cancel()
            assert not first.writer.rows
            async with stage(assets(), clock=noon_clock(50.0)) as second:
                terminals = mqtt.connect(settings, second.registry.accept)
                try:
                    await until(lambda: len(second.writer.rows) == 1, 20)
                    await until(lambda: terminals.window.unsettled == 0, 20)
                finally:
                    await terminals.close()


def said(afn: int, unit: bytes) -> bytes:
    return build(
        Frame(terminal=ADDRESS, up=True, prm=True, function=9 if afn == 2 else 10, afn=afn, body=unit)
    )


def report(pn: int) -> bytes:
    """A frame without CON."""
    return said(0x0D, frozen_unit(pn))
