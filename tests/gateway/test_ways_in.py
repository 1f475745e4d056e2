"""From the settings to listeners, diallers and brokers; what is mistyped is said with its key."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import Clock
from gateway.config import load
from gateway.errors import ConfigurationError
from gateway.metrics import Metrics
from gateway.session.registry import Registry
from gateway.session.settings import SessionSettings
from gateway.ways_in import WaysIn
from tests.gateway.session.stage import assets, stage, until

LINE = "02000009"


def ways_of(registry: Registry, **sections: Any) -> WaysIn:
    sections.setdefault("listen", {"address": "127.0.0.1:0"})
    return WaysIn(load(**sections), registry, Clock(), Metrics())


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"listen": {"address": "127.0.0.1:0", "also": ["tpc://x:1"]}}, "listen.also"),
        ({"listen": {"address": "127.0.0.1:0", "also": ["tcps://127.0.0.1:0"]}}, "listen.also"),
        ({"listen": {"address": "192.0.2.1:1"}}, "listen.address"),
        ({"dial": {"far": {"channel": "tcp://127.0.0.1:0"}}}, "dial.far.channel"),
        ({"dial": {"far": {"channel": "mqtt://127.0.0.1"}}}, "dial.far.channel"),
        ({"dial": {"far": {"channel": "udp://127.0.0.1:9"}}}, "dial.far.channel"),
        ({"lines": {"a": {"terminal": LINE, "channel": "serial://nowhere"}}}, "lines.a.channel"),
        ({"lines": {"a": {"terminal": LINE}}}, "lines.a"),
        ({"modems": {"m": {"channel": "tcp://127.0.0.1:0", "registration": "plain"}}}, "modems.m"),
        ({"modems": {"m": {"channel": "tcp://127.0.0.1:0", "registration": "零点"}}}, "modems.m"),
        ({"mqtt": {"b": {"channel": "tcp://127.0.0.1:1"}}}, "mqtt.b.channel"),
        ({"mqtt": {"b": {"channel": "mqtt://127.0.0.1", "up": ["no/terminal"]}}}, "mqtt.b"),
    ],
)
async def test_what_is_wrong_is_said_with_its_key(sections: dict[str, Any], said: str) -> None:
    async with stage(assets()) as made:
        ways = ways_of(made.registry, **sections)
        with pytest.raises(ConfigurationError, match=said.replace(".", r"\.")):
            await ways.open()


async def test_a_way_that_fails_leaves_none_open() -> None:
    async with stage(assets()) as made:
        first = ways_of(made.registry)
        address = await first.open()
        second = ways_of(made.registry, listen={"address": "127.0.0.1:0", "also": [f"tcp://{address}"]})
        with pytest.raises(ConfigurationError, match=r"listen\.also"):
            await second.open()
        assert second.addresses == []
        await first.close()
        third = ways_of(made.registry, listen={"address": address})
        assert await third.open() == address
        await third.close()


async def test_strangers_stand_at_the_door_of_every_plain_listener_for_terminals() -> None:
    async with stage(assets(), settings=SessionSettings(login_deadline_s=0.3)) as made:
        ways = ways_of(made.registry, listen={"address": "127.0.0.1:0", "also": ["tcp://127.0.0.1:0"]})
        await ways.open()
        writers = [(await asyncio.open_connection(*place))[1] for place in ways.addresses]
        await asyncio.sleep(0.1)
        assert not made.registry._peers
        await until(lambda: made.count("peers_turned_away_total") == len(writers) == 2)
        for writer in writers:
            writer.close()
        await ways.close()


async def test_a_modem_becomes_the_terminal_of_its_line() -> None:
    async with stage(replace(assets(), address=LINE)) as made:
        ways = ways_of(
            made.registry,
            lines={"yard": {"terminal": LINE}},
            modems={"box": {"channel": "tcp://127.0.0.1:0", "registration": r"ID:(?P<line>\w+)\r\n"}},
        )
        await ways.open()
        _, writer = await asyncio.open_connection(*ways.addresses[1])
        writer.write(b"ID:yard\r\n")
        await until(lambda: made.registry.session(LINE) is not None, 10.0)
        writer.close()
        await ways.close()


def test_a_terminal_address_is_looked_at(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"lines\.a\.terminal"):
        load(lines={"a": {"terminal": "0200000G", "channel": "tcp://127.0.0.1:1"}})
    with pytest.raises(ConfigurationError, match="certificates_name_terminals"):
        load(listen={"certificates_name_terminals": True})
