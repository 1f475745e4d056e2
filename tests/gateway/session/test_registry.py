"""Logins, heartbeats, takeovers: who a connection is, and when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import to_device
from gateway.errors import LinkClosed
from gateway.session.settings import SessionSettings, TerminalProfile
from protocols.q_gdw376 import messages
from protocols.q_gdw376.frame import parse
from tests.gateway.session.stage import (
    ADDRESS,
    NOON,
    Device,
    Stage,
    assets,
    due,
    frozen_unit,
    noon_clock,
    stage,
    until,
)

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "frames.json").read_text(encoding="utf-8")
)

GREETINGS = [
    vector
    for vector in VECTORS
    if vector["protocol"] == "qgdw376.1"
    and vector["valid"]
    and vector["direction"] == "up"
    and vector["expected"].get("afn") == "02"
    and vector["expected"].get("fn") in (1, 3)
]


@pytest.mark.parametrize("vector", GREETINGS, ids=lambda vector: vector["id"])
async def test_a_captured_greeting_is_confirmed_with_its_sequence_number(vector: dict[str, Any]) -> None:
    raw = bytes.fromhex(vector["hex"])
    sent = parse(raw)
    async with stage() as made:
        device = made.dial(sent.terminal)
        for byte in raw:
            await device.link.write(bytes([byte]))
        confirm = await device.confirmed(sent)
        assert (confirm.terminal, confirm.msa, confirm.pseq) == (sent.terminal, sent.msa, sent.pseq)
        assert confirm.protocol_id == sent.protocol_id
        assert confirm.afn == 0
        (unit,) = messages.decode(confirm)
        assert unit.fn == 3
        fn = vector["expected"]["fn"]
        assert unit.value == messages.UnitConfirm(0x02, ((0, fn, 0),))
        await until(lambda: made.store.strangers == [sent.terminal])
        assert made.registry.session(sent.terminal) is None


def test_the_captures_are_here() -> None:
    assert len(GREETINGS) >= 10


async def test_a_known_terminal_has_a_session_and_is_announced() -> None:
    async with stage(assets()) as made:
        seen: list[str] = []
        made.registry.on_login(lambda session: seen.append(session.address))
        await made.logged_in()
        session = made.session()
        assert session.alive
        assert (session.generation, session.address, seen) == (1, ADDRESS, [ADDRESS])
        await session.ready()
        assert session.learned
        assert abs(session.clock_offset or 9e9) < 2
        assert made.count("sessions") == 1


async def test_a_heartbeat_without_a_login_binds_too() -> None:
    async with stage(assets()) as made:
        device = made.dial()
        await device.confirmed(await device.beat())
        await until(lambda: made.registry.session(ADDRESS) is not None)


async def test_an_address_is_never_taken_from_the_host() -> None:
    other = assets()
    async with stage(assets(), type(other)(8, "02005678", "default", other.points, other.archive)) as made:
        await made.logged_in(ADDRESS, "192.0.2.9")
        await made.logged_in("02005678", "192.0.2.9")
        assert {session.address for session in made.registry.sessions()} == {ADDRESS, "02005678"}
        assert made.count("takeovers_total") == 0


async def test_a_repeated_login_on_the_same_link_is_confirmed_again_and_takes_nothing_over() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        session = made.session()
        await device.confirmed(await device.login())
        assert made.session() is session
        assert made.count("takeovers_total") == 0


async def test_a_logout_ends_the_session_and_a_login_opens_it_again() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        first = made.session()
        await device.confirmed(await device.say(2, messages.encode_unit(2, 2, 0)))
        await until(lambda: made.registry.session(ADDRESS) is None)
        await device.confirmed(await device.login())
        await until(lambda: made.registry.session(ADDRESS) is not None)
        assert made.session() is not first
        assert made.count("takeovers_total") == 0


async def test_a_profile_may_want_the_confirm_of_all() -> None:
    settings = SessionSettings(profiles={"old": TerminalProfile(confirm_form="F1")})
    async with stage(assets(profile="old"), settings=settings) as made:
        device = await made.logged_in()
        confirm = await device.confirmed(await device.beat())
        (unit,) = messages.decode(confirm)
        assert (unit.fn, unit.value) == (1, None)


async def test_an_unknown_terminal_is_answered_and_listed_and_found_once_imported() -> None:
    async with stage() as made:
        device = made.dial()
        await device.confirmed(await device.login())
        await until(lambda: made.store.strangers == [ADDRESS])
        assert made.registry.session(ADDRESS) is None
        made.store.terminals[ADDRESS] = assets()
        made.teach(device)
        await made.registry.reload()
        await until(lambda: made.registry.session(ADDRESS) is not None)


async def test_a_heartbeat_finds_a_terminal_that_was_imported_meanwhile() -> None:
    async with stage(clock=noon_clock(100.0)) as made:
        device = made.dial()
        await device.confirmed(await device.login())
        await until(lambda: made.store.strangers == [ADDRESS])
        made.store.terminals[ADDRESS] = assets()
        made.teach(device)
        await asyncio.sleep(0.7)  # 70 s of this clock
        await device.confirmed(await device.beat())
        await until(lambda: made.registry.session(ADDRESS) is not None)


async def test_an_unknown_terminal_can_be_refused() -> None:
    async with stage(settings=SessionSettings(refuse_unknown=True)) as made:
        device = made.dial()
        denied = await device.confirmed(await device.login())
        assert messages.decode(denied)[0].fn == 2
        await until(lambda: device.link.ended)


async def test_a_login_waits_out_a_database_that_is_away_but_is_confirmed_at_once() -> None:
    async with stage(assets(), clock=noon_clock(50.0)) as made:
        made.store.away = True
        device = made.dial()
        made.teach(device)
        await device.confirmed(await device.login())
        await asyncio.sleep(0.1)
        assert made.registry.session(ADDRESS) is None
        made.store.away = False
        await until(lambda: made.registry.session(ADDRESS) is not None)


async def test_no_login_within_the_deadline_closes_the_link() -> None:
    async with stage(settings=SessionSettings(login_deadline_s=0.2)) as made:
        device = made.dial()
        began = time.monotonic()
        await device.link.write(b"GET / HTTP/1.1\r\n")
        await until(lambda: device.link.ended)
        assert 0.15 < time.monotonic() - began < 1.5


@pytest.mark.parametrize("beats", [0, 3])
async def test_three_missed_heartbeats_close_the_link_and_any_frame_is_life(beats: int) -> None:
    settings = SessionSettings(heartbeat_s=0.3, missed_heartbeats=3)
    async with stage(assets(), settings=settings) as made:
        device = await made.logged_in()
        await made.session().ready()
        heard = time.monotonic()
        for _ in range(beats):
            await asyncio.sleep(0.4)
            heard = time.monotonic()
            await device.say(0x0E, b"\x00\x00\x01\x00", con=False)
            assert not device.link.ended
        await until(lambda: device.link.ended, 5)
        assert 0.7 < time.monotonic() - heard < 3.0
        await until(lambda: made.registry.session(ADDRESS) is None)
        assert made.count("sessions") == 0


async def test_rubbish_is_no_life() -> None:
    settings = SessionSettings(heartbeat_s=0.1)
    async with stage(assets(), settings=settings) as made:
        device = await made.logged_in()
        for _ in range(20):
            if device.link.ended:
                break
            await device.link.write(b"\x00\x01\x02")
            await asyncio.sleep(0.05)
        assert device.link.ended


# takeover and contest


async def test_a_new_login_takes_over_and_the_old_link_is_closed_after_a_while() -> None:
    settings = SessionSettings(listen_after_takeover_s=0.3)
    async with stage(assets(), settings=settings) as made:
        old = await made.logged_in()
        first = made.session()
        await first.ready()
        new = await made.logged_in()
        second = made.session()
        assert second is not first
        assert (second.generation, first.alive, second.alive) == (2, False, True)
        assert not old.link.ended
        await until(lambda: old.link.ended)
        assert not new.link.ended
        assert not second.contested
        assert made.count("takeovers_total") == 1


async def test_twenty_redials_without_fin_are_no_contest() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        for _ in range(20):
            await device.vanish()
            device = await made.logged_in()
            assert not made.session().contested
        assert made.count("sessions_contested") == 0


async def test_what_had_come_before_the_takeover_is_no_contest() -> None:
    async with stage(assets()) as made:
        old = await made.logged_in()
        (old_peer,) = made.registry._peers
        made.dial()
        await asyncio.sleep(0.01)
        (new_peer,) = made.registry._peers - {old_peer}
        await old.beat()  # in the gateway's buffer now, and not read before the next line
        made.registry.bind(new_peer, ADDRESS)
        await asyncio.sleep(0.05)
        assert not made.registry.contested(ADDRESS)
        await old.beat()
        await until(lambda: made.registry.contested(ADDRESS))


async def test_the_older_peer_speaking_after_the_takeover_is_a_contest_at_once() -> None:
    async with stage(assets(), settings=SessionSettings(heartbeat_s=0.2)) as made:
        old = await made.logged_in()
        await made.session().ready()
        await made.logged_in()
        assert not made.registry.contested(ADDRESS)
        began = time.monotonic()
        await old.beat()
        await until(lambda: made.registry.contested(ADDRESS))
        assert time.monotonic() - began < 2.0
        assert made.session().contested
        assert made.count("sessions_contested") == 1
        await asyncio.sleep(0.1)
        assert not old.confirms, "the older peer is only listened to"


async def test_a_contest_ends_when_one_has_been_silent_for_three_heartbeats() -> None:
    clock = noon_clock(20.0)
    async with stage(assets(), settings=SessionSettings(heartbeat_s=5.0), clock=clock) as made:
        old = await made.logged_in()
        await made.session().ready()
        new = await made.logged_in()
        await old.beat()
        await until(lambda: made.registry.contested(ADDRESS))
        began = clock.monotonic()
        while made.registry.contested(ADDRESS):
            await new.beat()
            await asyncio.sleep(0.05)
        assert 14 <= clock.monotonic() - began < 30
        await until(lambda: made.count("sessions_contested") == 0)
        assert made.session().alive


async def test_three_takeovers_to_and_fro_between_two_hosts_are_a_contest() -> None:
    async with stage(assets()) as made:
        for number, host in enumerate(("192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.2")):
            assert not made.registry.contested(ADDRESS), number
            await made.logged_in(host=host)
            await made.session().ready()
        assert made.registry.contested(ADDRESS)


async def test_a_dead_link_answering_nothing_ends_exchanges_of_the_old_session() -> None:
    async with stage(assets()) as made:
        await made.logged_in()
        session = made.session()
        await session.ready()
        asking = asyncio.create_task(session.reading_state())
        await asyncio.sleep(0.05)
        await made.logged_in()
        with pytest.raises(Exception, match="gone"):
            await asking


# clocks


async def test_the_clock_of_a_heartbeat_is_taken() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        await made.session().ready()
        shown = to_device(made.clock.now()) + timedelta(minutes=10)
        await device.confirmed(await device.beat(shown.replace(microsecond=0)))
        await until(lambda: (made.session().clock_offset or 0) > 500)
        assert made.session().clock_off
        assert made.count("terminal_clocks_off") == 1
        await device.confirmed(await device.beat(to_device(made.clock.now()).replace(microsecond=0)))
        await until(lambda: not made.session().clock_off)
        assert made.count("terminal_clocks_off") == 0


async def test_a_clock_that_a_heartbeat_shows_to_be_off_is_set_by_policy() -> None:
    async with stage(assets(), settings=SessionSettings(correct_clock=True)) as made:
        device = await made.logged_in()
        await made.session().ready()
        device.answers[0x05, 31] = device.confirm
        shown = to_device(made.clock.now()) + timedelta(minutes=10)
        await device.beat(shown.replace(microsecond=0))
        await until(lambda: len(device.requests(0x05)) == 1)
        await until(lambda: not made.session().clock_off)


async def test_the_clock_of_a_first_heartbeat_is_not_asked_for_again() -> None:
    async with stage(assets()) as made:
        device = made.dial()
        made.teach(device)
        await device.confirmed(await device.beat(to_device(NOON)))
        await until(lambda: made.registry.session(ADDRESS) is not None)
        await made.session().ready()
        assert not device.requests(0x0C)


# hostile peers


async def test_a_peer_that_sends_nothing_but_rubbish_is_closed_and_others_go_on() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        hostile = made.dial("02005555")
        flood = asyncio.create_task(_flood(hostile))
        await until(lambda: hostile.link.ended, 10)
        flood.cancel()
        await device.confirmed(await device.beat())
        assert 8_000 < made.count("damaged_bytes_total") < 16_000
        assert len(made.store.raw) <= 2_000


async def test_a_terminal_that_sends_nothing_but_rubbish_after_its_login_is_closed() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        flood = asyncio.create_task(_flood(device))
        await until(lambda: device.link.ended, 10)
        flood.cancel()
        assert 65_000 < made.count("damaged_bytes_total") < 80_000


async def _flood(device: Device) -> None:
    while not device.link.ended:
        await device.link.write(b"\x68\x32\x00\x32\x00\x68" * 500)


async def test_frames_of_another_terminal_are_kept_raw_and_not_answered() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        await made.session().ready()
        await device.say(0x0E, b"\x00\x00\x01\x00\x01\x02\x00\x00", address="02009999")
        await asyncio.sleep(0.05)
        assert not device.confirms
        await made.registry.close()
        assert any("02009999" in kept.reason for kept in made.store.raw)


async def test_another_terminals_login_on_the_same_link_moves_the_link_to_it() -> None:
    other = assets()
    async with stage(assets(), type(other)(8, "02005678", "default", other.points, other.archive)) as made:
        device = await made.logged_in()
        device.address = "02005678"
        await device.confirmed(await device.login())
        await until(lambda: made.registry.session("02005678") is not None)
        assert made.registry.session(ADDRESS) is None


async def test_what_was_asked_of_one_terminal_never_goes_to_the_next_on_the_link() -> None:
    other = assets()
    async with stage(assets(), type(other)(8, "02005678", "default", other.points, other.archive)) as made:
        device = await made.logged_in()
        session = made.session()
        await session.ready()
        asking = [asyncio.create_task(session.read_frozen([due(pn)])) for pn in (1, 2, 3)]
        await until(lambda: bool(device.requests(0x0D)))
        device.address = "02005678"
        device.answers[0x0D, 161] = lambda frame: [frozen_unit(pn) for pn in (1, 2, 3)]
        await device.confirmed(await device.login())
        answers = await asyncio.gather(*asking)
        assert all(answer.closed and not answer.rows for answer in answers)
        assert len(device.requests(0x0D)) == 1
        assert not session.alive


async def test_a_stop_waits_for_what_is_being_filed() -> None:
    made = Stage(SessionSettings(), noon_clock(), assets())
    device = await made.logged_in()
    await made.session().ready()
    made.writer.gate.clear()
    await device.say(0x0D, frozen_unit(1), con=False)
    await until(lambda: bool(made.registry._parts.filing))
    await device.hang_up()
    await until(lambda: made.registry.session(ADDRESS) is None)
    stopping = asyncio.create_task(made.registry.close())
    await asyncio.sleep(0.05)
    assert not stopping.done()
    made.writer.gate.set()
    await stopping
    assert len(made.writer.rows) == 1
    await asyncio.gather(*made.tasks, device._task, return_exceptions=True)


async def test_signs_of_life_are_written_down() -> None:
    async with stage(assets(), clock=noon_clock(2000.0)) as made:
        device = await made.logged_in()
        for _ in range(20):
            await device.beat()
            await asyncio.sleep(0.02)
        await until(lambda: made.store.touched == [[7]] * len(made.store.touched) != [])


async def test_signs_of_life_of_many_are_written_down_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.session.registry.TOUCHED_AT_ONCE", 2)
    known = [replace(assets(), terminal_id=number, address=f"0200000{number}") for number in range(1, 6)]
    async with stage(*known, clock=noon_clock(500.0)) as made:
        devices = [await made.logged_in(one.address) for one in known]
        for _ in range(100):
            for device in devices:
                await device.beat()
            if len(made.store.touched) >= 3:
                break
            await asyncio.sleep(0.02)
        assert sorted(map(len, made.store.touched[:3])) == [1, 2, 2]
        assert sorted(one for some in made.store.touched[:3] for one in some) == [1, 2, 3, 4, 5]


async def test_a_terminal_that_another_process_has_is_only_listened_to() -> None:
    async with stage(assets(), clock=noon_clock(2000.0)) as made:
        device = await made.logged_in()
        session = made.session()
        made.store.elsewhere = True
        for _ in range(100):
            if device.link.ended:
                break
            with contextlib.suppress(LinkClosed):
                await device.beat()
            await asyncio.sleep(0.02)
        assert device.link.ended
        assert not session.alive
        assert made.registry.session(ADDRESS) is None


async def test_closing_ends_all_and_writes_out_what_is_held() -> None:
    made = Stage(SessionSettings(), noon_clock(), assets())
    device = await made.logged_in()
    await device.link.write(b"\x00junk\x00")
    await until(lambda: made.count("damaged_total") > 0)
    await made.registry.close()
    await until(lambda: device.link.ended)
    assert made.store.raw[0].terminal == ADDRESS
    assert b"junk" in b"".join(kept.raw for kept in made.store.raw)
    device._task.cancel()
    await asyncio.gather(*made.tasks, device._task, return_exceptions=True)
