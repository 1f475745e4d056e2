"""TLS in both directions, with the certificates of friends and strangers, and with clients that are none."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes

from gateway.errors import ConfigurationError, LinkClosed
from gateway.metrics import HANDSHAKES, Metrics
from gateway.transports import tcp_listener, tls, ways
from gateway.transports.channel import TcpChannel
from gateway.transports.link import Link, Taken
from gateway.transports.memory import Line, pair
from gateway.transports.tcp import TcpLimits, TcpLink
from gateway.transports.tcp_listener import Listener
from gateway.transports.tls import CHUNK, ClientTls, HandshakeFailed, ServerTls, TlsLink
from tests.gateway.api.test_tls import Identity, issue
from tests.gateway.transports.waiting import LOOPS, Loop, echo, ended, exactly, until


@dataclass(frozen=True)
class People:
    """Who there is: an authority and those it vouches for, and one that nobody here knows."""

    authority: Identity
    server: Identity
    terminal: Identity
    stranger: Identity
    terminal_ab: Identity
    """with letters in its address"""
    folder: Path

    def serves(self, *, mutual: bool = True, deadline_s: float = 20.0, handshakes: int = 1000) -> ServerTls:
        authority = self.authority.file if mutual else None
        return ServerTls(self.server.file, self.server.key, authority, deadline_s, handshakes)

    def dials(self, who: Identity | None = None, deadline_s: float = 20.0) -> ClientTls:
        if who is None:
            return ClientTls(self.authority.file, handshake_deadline_s=deadline_s)
        return ClientTls(self.authority.file, who.file, who.key, handshake_deadline_s=deadline_s)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    folder = tmp_path_factory.mktemp("certificates")
    authority = issue(folder, "authority")
    others = issue(folder, "others")
    return People(
        authority,
        issue(folder, "server", authority),
        issue(folder, "02001234", authority),
        issue(folder, "02009999", others),
        issue(folder, "0200ABCD", authority),
        folder,
    )


@asynccontextmanager
async def listening(
    served: ServerTls,
    on_link: Callable[[TlsLink], Awaitable[None]] = echo,
    metrics: Metrics | None = None,
    limits: TcpLimits | None = None,
) -> AsyncIterator[Listener]:
    listener = await tls.listen("127.0.0.1", 0, on_link, served, metrics=metrics, limits=limits)
    try:
        yield listener
    finally:
        await listener.close()


def in_loop(loop: Loop, scene: Callable[[], Awaitable[None]]) -> None:
    async def play() -> None:
        await asyncio.wait_for(scene(), 60)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(play())


def failed(metrics: Metrics) -> dict[str, float]:
    """How many handshakes failed, by reason; those that did."""
    name = "lingdian_handshakes_failed_total"
    counts = {r: metrics.registry.get_sample_value(name, {"reason": r}) or 0.0 for r in HANDSHAKES}
    return {reason: count for reason, count in counts.items() if count}


# friends ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
def test_both_ends_know_who_the_other_is(people: People, loop: Loop) -> None:
    async def scene() -> None:
        links: asyncio.Queue[TlsLink] = asyncio.Queue()

        async def keep(link: TlsLink) -> None:
            links.put_nowait(link)
            await echo(link)

        async with listening(people.serves(), keep) as listener:
            ours = await tls.connect("127.0.0.1", listener.port, people.dials(people.terminal))
            await ours.write(b"\x68login\x16")
            assert await exactly(ours, 7) == b"\x68login\x16"
            theirs = await links.get()
            assert theirs.certified_as is not None
            assert theirs.certified_as.names == ("02001234", "127.0.0.1")
            digest = people.terminal.certificate.fingerprint(hashes.SHA256())
            assert theirs.certified_as.fingerprint == digest.hex()
            assert ours.certified_as is not None
            assert ours.certified_as.names == ("server", "127.0.0.1")
            assert theirs.source == "127.0.0.1"
            assert theirs.peer.startswith("127.0.0.1:")
            await ours.close()
            assert "has closed the link" in await ended(theirs)

    in_loop(loop, scene)


@pytest.mark.parametrize("binding", [True, False])
async def test_a_link_is_for_whom_the_certificate_names_where_it_binds(people: People, binding: bool) -> None:
    links: asyncio.Queue[Link] = asyncio.Queue()

    async def keep(link: Link) -> None:
        links.put_nowait(link)
        await echo(link)

    channel = TcpChannel("127.0.0.1", 0, tls=True)
    listener = await ways.listen(channel, keep, server=people.serves(), binding=binding)
    try:
        link = await tls.connect("127.0.0.1", listener.port, people.dials(people.terminal_ab))
        theirs = await links.get()
        assert theirs.certified_as is not None
        assert theirs.certified_as.names[0] == "0200ABCD"
        assert theirs.only_for == ({"0200abcd", "127.0.0.1"} if binding else None)
        assert link.only_for is None
        await link.close()
    finally:
        await listener.close()


async def test_certificates_that_nobody_asks_for_cannot_bind(people: People) -> None:
    with pytest.raises(ConfigurationError, match="authorities of the"):
        await tls.listen("127.0.0.1", 0, echo, people.serves(mutual=False), binding=True)


async def test_without_client_authorities_a_certificate_proves_nothing(people: People) -> None:
    links: asyncio.Queue[TlsLink] = asyncio.Queue()

    async def keep(link: TlsLink) -> None:
        links.put_nowait(link)
        await echo(link)

    async with listening(people.serves(mutual=False), keep) as listener:
        link = await tls.connect("127.0.0.1", listener.port, people.dials(people.stranger))
        assert (await links.get()).certified_as is None
        await link.close()


@pytest.mark.parametrize("loop", LOOPS)
def test_much_goes_both_ways_in_chunks(people: People, loop: Loop) -> None:
    async def scene() -> None:
        async with listening(people.serves()) as listener:
            link = await tls.connect("127.0.0.1", listener.port, people.dials(people.terminal))
            amount = bytes(range(256)) * 4000
            writing = asyncio.ensure_future(link.write(amount))
            got = bytearray()
            while len(got) < len(amount):
                data, _ = await link.read()
                assert 0 < len(data) <= CHUNK
                got += data
            await writing
            assert got == amount
            assert link.waiting == 0
            await link.close()

    in_loop(loop, scene)


async def test_an_answer_can_follow_the_peers_half_close(people: People) -> None:
    """It says that it has no more to say, and is still told what it asked."""

    async def answer_at_end(link: Link) -> None:
        with contextlib.suppress(LinkClosed):
            while True:
                await link.read()
        await link.write(b"done")

    async with listening(people.serves(), answer_at_end) as listener:
        link = await tls.connect("127.0.0.1", listener.port, people.dials(people.terminal))
        await link.write(b"question")
        with contextlib.suppress(ssl.SSLError):
            link._tls.unwrap()
        await link._send_sealed()
        assert await exactly(link, 4) == b"done"
        await link.close()


async def test_the_link_gives_others_a_turn_with_each_read(people: People) -> None:
    done = asyncio.Event()
    turns: list[int] = []

    async def gather(link: TlsLink) -> None:
        turn = 0
        loop = asyncio.get_running_loop()

        def count() -> None:
            nonlocal turn
            turn += 1
            if not done.is_set():
                loop.call_soon(count)

        loop.call_soon(count)
        await until(lambda: link.waiting >= 8 * CHUNK)
        for _ in range(8):
            await link.read()
            turns.append(turn)
        done.set()

    async with listening(people.serves(), gather) as listener:
        link = await tls.connect("127.0.0.1", listener.port, people.dials(people.terminal))
        await link.write(bytes(9 * CHUNK))
        async with asyncio.timeout(20):
            await done.wait()
        await link.close()
    assert turns == sorted(set(turns))


async def test_dribbled_and_split_bytes_make_a_link_all_the_same(people: People) -> None:
    """Every byte alone, in both directions."""
    far, near = pair(3, up=Line(split=0.9), down=Line(split=0.9))
    server = TlsLink(far, people.serves().context(), server=True)
    client = TlsLink(near, people.dials(people.terminal).context(), server=False, name="127.0.0.1")
    turn = asyncio.Lock()
    await asyncio.gather(server.shake_hands(20, turn), client.shake_hands(20, turn))
    assert server.certified_as is not None
    serving = asyncio.create_task(echo(server))
    await client.write(b"\x68" * 3000)
    assert await exactly(client, 3000) == b"\x68" * 3000
    await client.close()
    await serving


# strangers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
def test_a_strangers_certificate_or_none_is_no_entry(people: People, loop: Loop) -> None:
    async def scene() -> None:
        metrics = Metrics()
        entered: list[Link] = []

        async def enter(link: Link) -> None:
            entered.append(link)

        async with listening(people.serves(), enter, metrics) as listener:
            for who in (people.stranger, None):
                # In TLS 1.3 the client has finished before the server has seen its certificate.
                try:
                    link = await tls.connect("127.0.0.1", listener.port, people.dials(who))
                    with pytest.raises(LinkClosed, match=r"TLS has broken|closed the link"):
                        await link.read()
                    await link.close()
                except HandshakeFailed:
                    pass
            await until(lambda: failed(metrics) == {"certificate": 2})
            await until(lambda: listener.connections == 0)
        assert not entered

    in_loop(loop, scene)


async def test_a_server_that_is_another_is_not_spoken_to(people: People) -> None:
    metrics = Metrics()
    stranger = ServerTls(people.stranger.file, people.stranger.key)
    async with listening(stranger, metrics=metrics) as listener:
        with pytest.raises(HandshakeFailed, match=r"no TLS .*(issuer|verif)") as caught:
            await tls.connect("127.0.0.1", listener.port, people.dials())
        assert caught.value.reason == "certificate"
        await until(lambda: failed(metrics) == {"certificate": 1})
    async with listening(people.serves(mutual=False)) as listener:
        for name in ("head-end.example", "127.0.0.2"):
            with pytest.raises(HandshakeFailed, match="mismatch") as caught:
                await tls.connect("127.0.0.1", listener.port, ClientTls(people.authority.file, name=name))
            assert caught.value.reason == "certificate"


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    "garbage",
    [
        bytes.fromhex("68 32 00 32 00 68 c9 01 02 34 12 00 02 70 00 00 01 00 9d 16"),
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00" * 5000,
        bytes(range(256)) * 300,
    ],
    ids=["a login", "http", "zeros", "much"],
)
def test_a_plain_client_is_closed_and_counted(people: People, garbage: bytes, loop: Loop) -> None:
    async def scene() -> None:
        metrics = Metrics()
        async with listening(people.serves(), metrics=metrics) as listener:
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writer.write(garbage)
            with contextlib.suppress(ConnectionError):
                answer = await asyncio.wait_for(reader.read(), 20)
                assert len(answer) < 10  # no more than an alert
            writer.close()
            await until(lambda: failed(metrics) == {"not_tls": 1})
            await until(lambda: listener.connections == 0)

    in_loop(loop, scene)


async def test_garbage_that_begins_like_tls_is_closed_and_counted(people: People) -> None:
    metrics = Metrics()
    async with listening(people.serves(), metrics=metrics) as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(b"\x16\x03\x01\x02\x00\x01" + b"\xff" * 600)
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(reader.read(), 20)
        writer.close()
        await until(lambda: failed(metrics) == {"protocol": 1})


async def test_who_says_nothing_or_little_is_closed_at_the_deadline(people: People) -> None:
    metrics = Metrics()
    async with listening(people.serves(deadline_s=0.3), metrics=metrics) as listener:
        _, silent = await asyncio.open_connection("127.0.0.1", listener.port)
        _, dribbling = await asyncio.open_connection("127.0.0.1", listener.port)

        async def dribble() -> None:
            dribbling.write(b"\x16\x03\x01\x02\x00")
            while not dribbling.is_closing():
                dribbling.write(b"\x01")
                await asyncio.sleep(0.01)

        task = asyncio.create_task(dribble())
        await until(lambda: failed(metrics) == {"deadline": 2})
        await until(lambda: listener.connections == 0)
        for writer in (silent, dribbling):
            writer.close()
        await task


async def test_handshakes_under_way_are_limited_and_room_comes_back(people: People) -> None:
    metrics = Metrics()
    async with listening(people.serves(handshakes=2), metrics=metrics) as listener:
        waiting = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(2)]
        await until(lambda: listener.connections == 2)
        with pytest.raises(HandshakeFailed) as caught:
            await tls.connect("127.0.0.1", listener.port, people.dials(people.terminal))
        assert caught.value.reason == "broken"
        assert failed(metrics) == {"limit": 1}
        for _, writer in waiting:
            writer.close()
        await until(lambda: failed(metrics) == {"limit": 1, "broken": 2})
        link = await tls.connect("127.0.0.1", listener.port, people.dials(people.terminal))
        await link.write(b"x")
        assert await exactly(link, 1) == b"x"
        more = [
            await tls.connect("127.0.0.1", listener.port, people.dials(people.terminal)) for _ in range(4)
        ]
        for each in (link, *more):  # those that stand are no handshakes
            await each.close()


async def test_a_peer_that_is_no_tls_server_is_given_up(people: People) -> None:
    async def shout(link: Link) -> None:
        await link.write(b"220 mail.example ESMTP\r\n")
        await ended(link)

    async def nothing(link: Link) -> None:
        await ended(link)

    for manner, reason in ((shout, "not_tls"), (nothing, "deadline")):
        listener = await tcp_listener.listen("127.0.0.1", 0, manner)
        with pytest.raises(HandshakeFailed) as caught:
            await tls.connect("127.0.0.1", listener.port, people.dials(deadline_s=0.3))
        assert caught.value.reason == reason
        await listener.close()


async def test_tls_before_1_2_is_refused(people: People) -> None:
    metrics = Metrics()
    async with listening(people.serves(), metrics=metrics) as listener:
        old = people.dials(people.terminal).context()
        old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(HandshakeFailed) as caught:
            await tls.connect("127.0.0.1", listener.port, people.dials(), context=old)
        assert caught.value.reason == "protocol"
        await until(lambda: failed(metrics) == {"protocol": 1})
        newer = people.dials(people.terminal).context()
        newer.maximum_version = ssl.TLSVersion.TLSv1_2
        link = await tls.connect("127.0.0.1", listener.port, people.dials(), context=newer)
        await link.write(b"x")
        assert await exactly(link, 1) == b"x"
        await link.close()


async def test_damage_on_a_link_that_stands_ends_it(people: People) -> None:
    """Every byte is under a signature: nothing false is ever read."""
    far, near = pair(5)
    server = TlsLink(far, people.serves().context(), server=True)
    client = TlsLink(near, people.dials(people.terminal).context(), server=False, name="127.0.0.1")
    turn = asyncio.Lock()
    await asyncio.gather(server.shake_hands(20, turn), client.shake_hands(20, turn))
    near._line = Line(corrupt=1.0)
    await client.write(b"\x68trip\x16")
    with pytest.raises(LinkClosed, match="TLS has broken"):
        await server.read()
    assert far.ended
    assert server.write_now(b"x") is Taken.NOTHING


# what must leave at once -----------------------------------------------------------------------------------


async def standing(people: People, scene: Callable[[TlsLink, TcpLink, Link], Awaitable[None]]) -> None:
    """Play `scene` with the server's link, the one beneath, and the client's."""
    links: asyncio.Queue[TlsLink] = asyncio.Queue()
    over = asyncio.Event()

    async def keep(link: TlsLink) -> None:
        links.put_nowait(link)
        await over.wait()

    limits = TcpLimits(write_deadline_s=5)
    async with listening(people.serves(), keep, limits=limits) as listener:
        peer = await tls.connect("127.0.0.1", listener.port, people.dials(people.terminal))
        link = await links.get()
        assert isinstance(link._link, TcpLink)
        try:
            await scene(link, link._link, peer)
        finally:
            over.set()
            peer.abort()


@pytest.mark.parametrize("loop", LOOPS)
def test_sealed_bytes_are_on_their_way_when_it_returns(people: People, loop: Loop) -> None:
    async def scene(link: TlsLink, beneath: TcpLink, peer: Link) -> None:
        assert link.write_now(b"\x68trip\x16") is Taken.WHOLE
        assert link.unsent == 0
        await link.write(b"then")
        assert await exactly(peer, 10) == b"\x68trip\x16then"

    in_loop(loop, lambda: standing(people, scene))


@pytest.mark.parametrize("loop", LOOPS)
def test_where_others_wait_nothing_of_it_leaves(people: People, loop: Loop) -> None:
    async def scene(link: TlsLink, beneath: TcpLink, peer: Link) -> None:
        writing = asyncio.ensure_future(link.write(b"\xfe" * 40_000_000))
        await until(lambda: link.unsent > 0)
        assert link.write_now(b"\x68trip\x16") is Taken.NOTHING
        with pytest.raises(LinkClosed):
            await writing
        got = b""
        with contextlib.suppress(LinkClosed):
            while True:
                got = (got + (await peer.read())[0])[-50_000:]
        assert b"trip" not in got

    in_loop(loop, lambda: standing(people, scene))


@pytest.mark.parametrize("loop", LOOPS)
def test_a_part_of_the_sealed_bytes_is_perhaps(people: People, loop: Loop) -> None:
    """Of two records the peer may have the first."""

    async def scene(link: TlsLink, beneath: TcpLink, peer: Link) -> None:
        sock = beneath._transport.get_extra_info("socket")  # type: ignore[union-attr]
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        assert link.write_now(b"\x68" * 10_000_000) is Taken.PERHAPS
        assert link.write_now(b"\x68") is Taken.NOTHING
        with pytest.raises(LinkClosed):
            await link.write(b"x")

    in_loop(loop, lambda: standing(people, scene))


@pytest.mark.parametrize("loop", LOOPS)
def test_to_a_peer_that_has_ended_nothing_is_written(people: People, loop: Loop) -> None:
    async def scene(link: TlsLink, beneath: TcpLink, peer: Link) -> None:
        await peer.close()
        await ended(link)
        assert link.write_now(b"\x68trip\x16") is Taken.NOTHING
        assert link.write_now(b"\x68trip\x16") is Taken.NOTHING

    in_loop(loop, lambda: standing(people, scene))


# files -----------------------------------------------------------------------------------------------------


def test_files_that_are_no_certificate_are_named(people: People, tmp_path: Path) -> None:
    empty, missing = tmp_path / "empty", tmp_path / "missing"
    empty.write_bytes(b"")
    sealed = tmp_path / "sealed.key"
    subprocess.run(
        ["openssl", "pkey", "-in", people.server.key, "-aes256", "-passout", "pass:secret", "-out", sealed],
        check=True,
    )
    server, authority = people.server, people.authority
    cases: list[tuple[ServerTls | ClientTls, Path]] = [
        (ServerTls(missing, server.key), missing),
        (ServerTls(server.file, empty), empty),
        (ServerTls(server.file, people.terminal.key), people.terminal.key),
        (ServerTls(server.file, sealed), sealed),
        (ServerTls(server.file, server.key, missing), missing),
        (ServerTls(server.file, server.key, empty), empty),
        (ClientTls(missing), missing),
        (ClientTls(authority.file, server.file, missing), missing),
    ]
    for wrong, named in cases:
        with pytest.raises(ConfigurationError) as caught:
            wrong.context()
        assert str(named) in str(caught.value)
        assert "PEM" in str(caught.value)
    with pytest.raises(ConfigurationError, match="go together"):
        ClientTls(authority.file, certificate=server.file).context()
