"""A link that is kept: refused, lost, made again, and never two at once."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import Awaitable, Callable

import pytest
from prometheus_client import Counter

from gateway.errors import LinkClosed
from gateway.metrics import Metrics
from gateway.transports import tcp_client
from gateway.transports.dialler import Backoff, Dialler
from gateway.transports.link import Link, Taken
from gateway.transports.memory import MemoryLink, pair
from gateway.transports.tcp import TcpLimits, TcpLink
from gateway.transports.tcp_listener import listen
from tests.gateway.transports.waiting import LOOPS, Loop, echo, ended, exactly, shut_port, until

QUICK = Backoff(first_s=0.001, limit_s=0.01, lasted_s=60)


def counted(counter: Counter) -> float:
    return float(next(iter(counter.collect())).samples[0].value)


class Place:
    """What a dialler dials: says yes or no, and keeps both ends of the links."""

    def __init__(self, *answers: bool) -> None:
        self.answers = list(answers)
        self.tries = 0
        self.ours: list[MemoryLink] = []
        self.theirs: list[MemoryLink] = []

    async def open(self) -> Link:
        self.tries += 1
        if self.answers and not self.answers.pop(0):
            raise LinkClosed("refused; look there")
        ours, theirs = pair()
        self.ours.append(ours)
        self.theirs.append(theirs)
        return ours


async def stay(link: Link) -> None:
    await ended(link)


async def test_it_tries_until_there_is_a_link_and_again_when_it_ends() -> None:
    place, metrics = Place(False, False, True, False, True), Metrics()
    dialler = Dialler("there", place.open, stay, backoff=QUICK, metrics=metrics)
    dialler.start()
    dialler.start()
    await until(lambda: len(place.ours) == 1 and dialler.connected)
    assert counted(metrics.connections) == 1  # type: ignore[arg-type]  # a gauge
    place.theirs[0].abort()
    await until(lambda: len(place.ours) == 2 and dialler.connected)
    assert (counted(metrics.dials["made"]), counted(metrics.dials["failed"])) == (2, 3)
    await dialler.close()
    await dialler.close()
    assert counted(metrics.connections) == 0  # type: ignore[arg-type]
    assert place.ours[1].ended
    assert not dialler.connected
    assert place.tries == 5


async def test_one_link_at_a_time_however_long_its_owner_takes() -> None:
    place = Place()
    standing = most = 0
    let_go = asyncio.Event()

    async def slow(link: Link) -> None:
        nonlocal standing, most
        standing += 1
        most = max(most, standing)
        await ended(link)
        await let_go.wait()
        standing -= 1

    dialler = Dialler("there", place.open, slow, backoff=QUICK)
    dialler.start()
    await until(lambda: standing == 1)
    place.theirs[0].abort()
    for _ in range(20):
        await asyncio.sleep(0)
    assert place.tries == 1
    let_go.set()
    await until(lambda: place.tries == 2)
    assert most == 1
    await dialler.close()


async def test_an_owner_that_gives_a_link_up_has_it_closed() -> None:
    place = Place()

    async def give_up(link: Link) -> None:
        return

    dialler = Dialler("there", place.open, give_up, backoff=QUICK)
    dialler.start()
    await until(lambda: place.tries >= 3)
    assert all(link.ended for link in place.ours[:2])
    await dialler.close()


@pytest.mark.parametrize("where", ["opening", "owner"])
async def test_an_error_of_ours_does_not_end_the_seeking(where: str) -> None:
    place = Place()
    wrong = 2

    def go_wrong() -> None:
        nonlocal wrong
        if wrong:
            wrong -= 1
            raise ZeroDivisionError

    async def opening() -> Link:
        if where == "opening":
            go_wrong()
        return await place.open()

    async def owner(link: Link) -> None:
        if where == "owner":
            go_wrong()
        await ended(link)

    dialler = Dialler("there", opening, owner, backoff=QUICK)
    dialler.start()
    await until(lambda: not wrong and dialler.connected)
    await dialler.close()


async def test_closing_does_not_wait_for_an_opening_that_hangs() -> None:
    begun = asyncio.Event()

    async def hang() -> Link:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    dialler = Dialler("there", hang, stay)
    dialler.start()
    await begun.wait()
    async with asyncio.timeout(5):
        await dialler.close()


def test_waits_double_to_their_limit_and_differ() -> None:
    backoff, chance = Backoff(), random.Random(1)
    for failures, whole in [(0, 1), (1, 1), (2, 2), (5, 16), (9, 256), (10, 300), (10_000, 300)]:
        waits = [backoff.wait_s(failures, chance) for _ in range(200)]
        assert whole / 2 <= min(waits) < max(waits) <= whole
        assert max(waits) - min(waits) > whole / 4


class Watch:
    """A clock that tells what it was asked to wait, and goes on only by hand."""

    def __init__(self) -> None:
        self.time = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)


async def test_only_a_link_that_lasted_sets_the_wait_back() -> None:
    watch, place = Watch(), Place(*[False] * 4, True, True, True)
    lasting = [59.0, 61.0, 0.0]

    async def stand(link: Link) -> None:
        if not lasting:
            await ended(link)
        watch.time += lasting.pop(0)

    dialler = Dialler("there", place.open, stand, clock=watch, chance=random.Random(2))  # type: ignore[arg-type]
    dialler.start()
    await until(lambda: not lasting and dialler.connected)
    await dialler.close()
    whole = [1, 2, 4, 8, 16, 1, 2]
    assert len(watch.slept) == len(whole)
    assert all(most / 2 <= slept <= most for slept, most in zip(watch.slept, whole, strict=True))


# TCP as client ---------------------------------------------------------------------------------------------


def in_loop(loop: Loop, scene: Callable[[], Awaitable[None]]) -> None:
    async def play() -> None:
        await asyncio.wait_for(scene(), 60)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(play())


@pytest.mark.parametrize("loop", LOOPS)
def test_a_dialled_link_is_a_link(loop: Loop) -> None:
    async def scene() -> None:
        listener = await listen("127.0.0.1", 0, echo)
        link = await tcp_client.connect("127.0.0.1", listener.port, limits=TcpLimits(write_deadline_s=7))
        assert (link.peer, link.source) == (f"127.0.0.1:{listener.port}", "127.0.0.1")
        assert link.certified_as is None
        sock = link._transport.get_extra_info("socket")  # type: ignore[union-attr]
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7000
        await link.write(b"\x68ask\x16")
        assert await exactly(link, 5) == b"\x68ask\x16"
        assert link.write_now(b"\x68now\x16") is Taken.WHOLE
        assert await exactly(link, 5) == b"\x68now\x16"
        await listener.close()
        assert "has closed the link" in await ended(link)
        await link.close()
        with pytest.raises(LinkClosed):
            await link.write(b"x")

    in_loop(loop, scene)


@pytest.mark.parametrize("loop", LOOPS)
def test_who_refuses_and_who_is_not_there(loop: Loop) -> None:
    async def scene() -> None:
        with pytest.raises(LinkClosed, match=r"127\.0\.0\.1:\d+ cannot be reached .*refused.*check"):
            await tcp_client.connect("127.0.0.1", shut_port())
        with pytest.raises(LinkClosed, match="cannot be reached"):
            await tcp_client.connect("no-such-host.invalid", 1)

    in_loop(loop, scene)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_peer_that_says_nothing_to_the_dialling_is_given_up(loop: Loop) -> None:
    """Its queue of connections is full: the kernel drops what comes."""

    async def scene() -> None:
        with contextlib.ExitStack() as open_:
            deaf = open_.enter_context(socket.socket())
            deaf.bind(("127.0.0.1", 0))
            deaf.listen(0)
            for _ in range(4):
                sock = open_.enter_context(socket.socket())
                sock.setblocking(False)
                sock.connect_ex(deaf.getsockname())
            with pytest.raises(LinkClosed, match="no answer"):
                await tcp_client.connect("127.0.0.1", deaf.getsockname()[1], timeout_s=0.2)

    in_loop(loop, scene)


async def test_a_name_that_is_never_resolved_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*told: object, **also: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", hang)
    async with asyncio.timeout(20):
        with pytest.raises(LinkClosed, match="no answer"):
            await tcp_client.connect("somewhere.example", 1, timeout_s=0.1)


async def test_every_address_of_a_name_has_its_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is shut and the second takes nothing; the third is there."""
    listener = await listen("127.0.0.1", 0, echo)
    with contextlib.ExitStack() as open_:
        deaf = open_.enter_context(socket.socket())
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(4):
            sock = open_.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(deaf.getsockname())
        ports = [shut_port(), deaf.getsockname()[1], listener.port]

        async def resolve(*told: object, **also: object) -> list[tuple[object, ...]]:
            return [
                (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))
                for port in ports
            ]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
        link = await tcp_client.connect("terminal.example", 1, timeout_s=3.0)
        assert link.peer == f"127.0.0.1:{listener.port}"
        await link.close()
    await listener.close()


@pytest.mark.parametrize("loop", LOOPS)
def test_a_server_that_comes_and_goes_is_found_again(loop: Loop) -> None:
    async def scene() -> None:
        heard: asyncio.Queue[bytes] = asyncio.Queue()

        async def ask(link: Link) -> None:
            with contextlib.suppress(LinkClosed):
                await link.write(b"who")
                heard.put_nowait(await exactly(link, 3))
                await link.read()

        port = shut_port()
        dialler = Dialler("it", lambda: tcp_client.connect("127.0.0.1", port), ask, backoff=QUICK)
        dialler.start()
        for _ in range(3):
            listener = await listen("127.0.0.1", port, echo)
            assert await heard.get() == b"who"
            await listener.close()
            await until(lambda: not dialler.connected)
        await dialler.close()

    in_loop(loop, scene)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_half_open_peer_ends_at_the_write_deadline_and_not_before(loop: Loop) -> None:
    """It takes the connection and then no bytes: the owner learns it by writing only."""

    async def scene() -> None:
        with socket.socket() as stuck:
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stuck.bind(("127.0.0.1", 0))
            stuck.listen(1)
            outcome: asyncio.Queue[str] = asyncio.Queue()

            async def fill(link: Link) -> None:
                try:
                    while True:
                        await link.write(bytes(65_536))
                except LinkClosed as error:
                    outcome.put_nowait(str(error))

            limits = TcpLimits(write_deadline_s=0.2)

            async def opening() -> TcpLink:
                return await tcp_client.connect("127.0.0.1", stuck.getsockname()[1], limits=limits)

            dialler = Dialler("it", opening, fill, backoff=QUICK)
            dialler.start()
            for _ in range(2):
                peer, _ = await asyncio.to_thread(stuck.accept)
                assert "took no bytes for 0.2 s" in await outcome.get()
                peer.close()
            await dialler.close()

    in_loop(loop, scene)
