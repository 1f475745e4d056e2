"""Reading ports are paused for relay work and always go on: the row stands before the pause and until after
it."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.session.reading_ports import ReadingPorts
from protocols.q_gdw376 import messages
from protocols.q_gdw376.frame import Frame
from tests.gateway.session.relay_stage import FACTS, Bench, bench
from tests.gateway.session.stage import until

KEY = (7, 31)


def listens(one: Bench, device: Any = None) -> list[tuple[str, int]]:
    """The terminal confirms F49 and F50; what it was told, with the pauses that stood then."""
    told: list[tuple[str, int]] = []
    device = device or one.device

    def confirm(asked: Frame) -> bytes:
        unit = messages.decode(asked)[0]
        assert asked.body[4] == 31, "the port"
        told.append(("pause" if unit.fn == 49 else "resume", len(one.pauses.rows)))
        return bytes(device.confirm(asked))

    device.answers[0x05, 49] = device.answers[0x05, 50] = confirm
    return told


async def test_a_port_is_paused_while_a_door_is_open_and_written_down_longer_than_that() -> None:
    async with bench(relay_pauses_reading=True) as one:
        told = listens(one)
        async with one.door() as door:
            assert told == [("pause", 1)]
            assert one.pauses.rows == {KEY}
            assert await door.identify() is None
        assert told == [("pause", 1), ("resume", 1)]
        assert not one.pauses.rows


async def test_without_the_setting_no_port_is_paused() -> None:
    async with bench() as one:
        told = listens(one)
        async with one.door():
            pass
        assert (told, one.pauses.log) == ([], [])


async def test_a_block_that_fails_has_its_port_resumed() -> None:
    async with bench(relay_pauses_reading=True) as one:
        told = listens(one)
        try:
            async with one.door():
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass
        assert [name for name, _ in told] == ["pause", "resume"]
        assert not one.pauses.rows


async def test_with_the_database_away_the_port_is_not_paused_and_the_door_opens() -> None:
    async with bench(relay_pauses_reading=True) as one:
        told = listens(one)
        one.pauses.away = True
        async with one.door() as door:
            assert await door.identify() is None
        assert told == []


async def test_a_terminal_that_is_silent_is_told_again_later() -> None:
    async with bench(relay_pauses_reading=True, speed=100.0) as one:
        async with one.door() as door:  # F49 and F50 get no answer
            assert await door.identify() is None
        assert one.pauses.rows == {KEY}
        assert len(one.device.requests(0x05)) == 2, "neither is repeated by the link"
        told = listens(one)
        await one.ports.resume_left_over()
        assert told == [("resume", 1)]
        assert not one.pauses.rows


async def test_a_link_that_breaks_leaves_the_row_and_the_next_login_has_the_port_resumed() -> None:
    async with bench(relay_pauses_reading=True, speed=20.0) as one:
        told = listens(one)
        running = asyncio.create_task(one.ports.run())
        async with one.door():
            await one.device.hang_up()
            await until(lambda: one.made.registry.session(FACTS.terminal) is None)
        assert told == [("pause", 1)]
        assert one.pauses.rows == {KEY}
        device = one.made.dial()
        one.made.teach(device)
        again = listens(one, device)
        await device.confirmed(await device.login())
        await until(lambda: not one.pauses.rows, 10)
        assert again == [("resume", 1)]
        running.cancel()


async def test_what_a_dead_process_left_is_resumed_at_the_first_login_after_a_restart() -> None:
    async with bench(speed=20.0) as one:
        told = listens(one)
        one.pauses.rows |= {KEY, (8, 31)}  # terminal 8 is not here
        ports = ReadingPorts(one.made.registry, one.pauses, one.made.clock)
        await ports.resume_left_over()
        assert told == [("resume", 2)]
        assert one.pauses.rows == {(8, 31)}


async def test_a_port_that_somebody_works_behind_is_not_resumed() -> None:
    async with bench(relay_pauses_reading=True) as one:
        told = listens(one)
        async with one.door() as door:
            await asyncio.wait_for(one.ports.resume_left_over(), 1)
            assert await door.identify() is None
            assert [name for name, _ in told] == ["pause"]
        one.pauses.away = True
        await one.ports.resume_left_over()  # says so in the log, and tries again
