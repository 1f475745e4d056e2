"""From an address to a link, for every kind of channel; and what cannot be."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tty
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.errors import ConfigurationError, LinkClosed
from gateway.metrics import Metrics
from gateway.transports.channel import SerialChannel, TcpChannel, UdpChannel, parse
from gateway.transports.dialler import Backoff
from gateway.transports.link import Link
from gateway.transports.memory import MemoryLink
from gateway.transports.serial_port import SerialLink
from gateway.transports.tcp import TcpLimits, TcpLink
from gateway.transports.tls import ClientTls, ServerTls, TlsLink
from gateway.transports.udp_link import UdpLink
from gateway.transports.ways import Terms, dialler, listen, opening
from tests.gateway.api.test_tls import issue
from tests.gateway.transports.waiting import echo, exactly, shut_port, until


def all_are_links(
    tcp: TcpLink, tls: TlsLink, udp: UdpLink, serial: SerialLink, memory: MemoryLink
) -> list[Link]:
    """Checked by the type checker."""
    return [tcp, tls, udp, serial, memory]


@pytest.mark.parametrize(
    "text", ["tcp://127.0.0.1:0", "tcps://127.0.0.1:0", "udp://127.0.0.1:0", "tcp://[::1]:0"]
)
async def test_what_listens_is_dialled(text: str, tmp_path: Path) -> None:
    authority = issue(tmp_path, "authority")
    ours, theirs = issue(tmp_path, "server", authority), issue(tmp_path, "02001234", authority)
    channel = parse(text)
    assert isinstance(channel, TcpChannel | UdpChannel)
    metrics, heard = Metrics(), asyncio.Event()

    async def ask(link: Link) -> None:
        await link.write(b"\x68ask\x16")
        assert await exactly(link, 5) == b"\x68ask\x16"
        heard.set()
        with contextlib.suppress(LinkClosed):
            await link.read()

    server = ServerTls(ours.file, ours.key, authority.file)
    listening = await listen(channel, echo, server=server, metrics=metrics)
    dialling = dialler(
        replace(channel, port=listening.port),
        ask,
        client=ClientTls(authority.file, theirs.file, theirs.key),
        metrics=metrics,
    )
    dialling.start()
    async with asyncio.timeout(20):
        await heard.wait()
    assert listening.connections == 1
    assert metrics.registry.get_sample_value("lingdian_connections") == 2
    await dialling.close()
    await listening.close()
    assert metrics.registry.get_sample_value("lingdian_connections") == 0


async def test_a_serial_port_is_kept() -> None:
    master, slave = os.openpty()
    tty.setraw(master)
    heard = asyncio.Event()

    async def ask(link: Link) -> None:
        assert await exactly(link, 3) == b"yes"
        heard.set()

    dialling = dialler(SerialChannel(os.ttyname(slave), parity="N"), ask)
    dialling.start()
    await until(lambda: dialling.connected)
    os.write(master, b"yes")
    async with asyncio.timeout(20):
        await heard.wait()
    await dialling.close()
    os.close(slave)
    os.close(master)


async def test_the_terms_are_those_given() -> None:
    terms = Terms(tcp=TcpLimits(connections=1), connect_timeout_s=0.5, backoff=Backoff(0.001, 0.01))
    metrics = Metrics()
    listening = await listen(TcpChannel("127.0.0.1", 0), echo, terms=terms, metrics=metrics)
    make = opening(TcpChannel("127.0.0.1", listening.port), terms=terms)
    links = [await make(), await make()]
    await until(lambda: metrics.registry.get_sample_value("lingdian_connections_refused_total") == 1)
    for link in links:
        await link.close()
    await listening.close()

    dialling = dialler(TcpChannel("127.0.0.1", shut_port()), echo, terms=terms, metrics=metrics)
    dialling.start()
    await until(
        lambda: (metrics.registry.get_sample_value("lingdian_dials_total", {"outcome": "failed"}) or 0) > 3
    )
    await dialling.close()


async def test_what_cannot_be_is_said_at_once(tmp_path: Path) -> None:
    for text, why in [
        ("serial:///dev/ttyS0", "listen on tcp"),
        ("mqtt://broker", "listen on tcp"),
        ("tcps://127.0.0.1:0", "certificate"),
    ]:
        with pytest.raises(ConfigurationError, match=why) as caught:
            await listen(parse(text), echo)
        assert text.partition("?")[0] in str(caught.value)
    cases: list[tuple[str, Callable[[], ClientTls | None], str]] = [
        ("tcp://127.0.0.1:0", lambda: None, "port other than 0"),
        ("udp://127.0.0.1:0", lambda: None, "port other than 0"),
        ("mqtt://broker", lambda: None, "broker gives many links"),
        ("tcps://127.0.0.1:1", lambda: ClientTls(tmp_path / "missing"), "missing"),
    ]
    for text, client, why in cases:
        with pytest.raises(ConfigurationError, match=why):
            opening(parse(text), client=client())
