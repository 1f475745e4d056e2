"""Serial ports as pseudo-terminals: noise, echo, slow bytes, and adapters that are pulled out."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import resource
import subprocess
import sys
import termios
import tty
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.errors import LinkClosed
from gateway.transports import serial_port
from gateway.transports.channel import Echo, Parity, SerialChannel
from gateway.transports.dialler import Backoff, Dialler
from gateway.transports.link import Link, Taken
from gateway.transports.serial_port import CHUNK, READ_ROOM, SerialLink
from tests.gateway.transports.waiting import LOOPS, Loop, ended, exactly, until


class Line:
    """A pseudo-terminal: the gateway opens `device`, the test is what hangs on the line."""

    def __init__(self, link_to: Path | None = None) -> None:
        self.master, slave = os.openpty()
        tty.setraw(self.master)
        os.set_blocking(self.master, False)
        self.device = os.ttyname(slave)
        os.close(slave)
        if link_to is not None:
            link_to.unlink(missing_ok=True)
            link_to.symlink_to(self.device)
            self.device = str(link_to)

    def say(self, data: bytes) -> None:
        os.write(self.master, data)

    async def hear(self, count: int) -> bytes:
        got = bytearray()

        def listen() -> bool:
            with contextlib.suppress(BlockingIOError, OSError):
                got.extend(os.read(self.master, count - len(got)))
            return len(got) == count

        await until(listen)
        return bytes(got)

    def unplug(self) -> None:
        if self.master >= 0:
            os.close(self.master)
            self.master = -1

    def channel(
        self, *, echo: Echo = "off", baud: int = 115_200, parity: Parity = "N", bits: int = 8
    ) -> SerialChannel:
        return SerialChannel(self.device, baud, parity, bits, echo=echo)


@contextmanager
def plugged(link_to: Path | None = None) -> Iterator[Line]:
    line = Line(link_to)
    try:
        yield line
    finally:
        line.unplug()


def in_loop(loop: Loop, scene: Callable[[Line], Awaitable[None]]) -> None:
    async def play() -> None:
        with plugged() as line:
            await asyncio.wait_for(scene(line), 60)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(play())


@pytest.mark.parametrize("loop", LOOPS)
def test_bytes_go_both_ways(loop: Loop) -> None:
    async def scene(line: Line) -> None:
        link = await serial_port.connect(line.channel())
        assert link.peer == link.source == line.device
        assert link.certified_as is None
        everything = bytes(range(256))  # nothing in them is a command to the terminal driver
        await link.write(everything)
        assert await line.hear(256) == everything
        line.say(everything)
        assert await exactly(link, 256) == everything
        assert link.write_now(b"\x68now\x16") is Taken.WHOLE
        assert await line.hear(5) == b"\x68now\x16"
        assert link.unsent == 0
        await link.close()
        await link.close()
        with pytest.raises(LinkClosed):
            await link.write(b"x")
        with pytest.raises(LinkClosed):
            await link.read()
        assert link.write_now(b"x") is Taken.NOTHING
        assert (link.waiting, link.unsent) == (0, 0)

    in_loop(loop, scene)


@pytest.mark.parametrize("loop", LOOPS)
def test_slow_bytes_are_given_as_they_come(loop: Loop) -> None:
    async def scene(line: Line) -> None:
        link = await serial_port.connect(line.channel(baud=2400))
        got = []
        for byte in b"\xfe\x68\x11\x16":
            line.say(bytes([byte]))
            got.append((await link.read())[0])
        assert got == [b"\xfe", b"\x68", b"\x11", b"\x16"]
        await link.close()

    in_loop(loop, scene)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_line_that_takes_slowly_gets_all_of_it_and_the_loop_stays_free(loop: Loop) -> None:
    """What asyncio's serial transport does not survive: a write of which the port takes a part."""

    async def scene(line: Line) -> None:
        link = await serial_port.connect(line.channel())
        amount = bytes(range(256)) * 300
        writing = asyncio.create_task(link.write(amount))
        second = asyncio.create_task(link.write(b"second"))
        await until(lambda: link.unsent > 0)
        await asyncio.sleep(0.05)
        assert not writing.done()
        assert await line.hear(len(amount) + 6) == amount + b"second"
        await asyncio.gather(writing, second)
        assert link.unsent == 0
        assert link._port is not None
        # nobody waits for room any more, or the loop would never rest again
        assert not asyncio.get_running_loop().remove_writer(link._port.fileno())
        await link.close()

    in_loop(loop, scene)


async def test_a_caller_given_up_while_writing_leaves_whole_frames() -> None:
    with plugged() as line:
        link = await serial_port.connect(line.channel())
        stuck = asyncio.create_task(link.write(b"\xfe" * 50_000))
        await until(lambda: link.unsent > 0)
        stuck.cancel()
        await asyncio.gather(stuck, return_exceptions=True)
        other = asyncio.create_task(link.write(b"end"))
        assert (await line.hear(50_003))[-4:] == b"\xfeend"
        await other
        await link.close()


@pytest.mark.parametrize("loop", LOOPS)
def test_a_line_that_takes_nothing_ends_the_link_at_the_deadline(loop: Loop) -> None:
    async def scene(line: Line) -> None:
        link = await serial_port.connect(line.channel(), write_deadline_s=0.1)
        with pytest.raises(LinkClosed, match="took no bytes"):
            await link.write(b"\xfe" * 20_000)
        assert "was closed" in await ended(link)
        await link.close()

    in_loop(loop, scene)


@pytest.mark.parametrize("loop", LOOPS)
def test_what_must_leave_at_once_does_not_stand_behind_others(loop: Loop) -> None:
    async def scene(line: Line) -> None:
        link = await serial_port.connect(line.channel())
        writing = asyncio.create_task(link.write(b"\xfe" * 50_000))
        await until(lambda: link.unsent > 0)
        assert link.write_now(b"\x68trip\x16") is Taken.NOTHING
        with pytest.raises(LinkClosed):
            await writing
        await link.close()
        again = await serial_port.connect(line.channel())
        assert again.write_now(b"\x68trip\x16" * 10_000) is Taken.PERHAPS
        with pytest.raises(LinkClosed):
            await again.write(b"x")
        await again.close()

    in_loop(loop, scene)


async def test_what_nobody_reads_is_held_to_a_bound() -> None:
    with plugged() as line:
        link = await serial_port.connect(line.channel())
        said = 0

        def more() -> bool:
            nonlocal said
            with contextlib.suppress(BlockingIOError):
                while True:
                    said += os.write(line.master, bytes(4096))
            return len(link._buffer) >= READ_ROOM

        # what is beyond the bound stays in the kernel
        await until(lambda: more() and link.waiting > READ_ROOM + 2048)
        assert len(link._buffer) < READ_ROOM + 2048
        got = 0
        async with asyncio.timeout(20):
            while got < said:
                data, _ = await link.read()
                assert len(data) <= CHUNK
                got += len(data)
        line.say(b"end")
        assert await exactly(link, 3) == b"end"
        await link.close()


# echo ------------------------------------------------------------------------------------------------------

QUESTION = bytes.fromhex("fefefefe 68 111111111111 68 11 04 33333433 16 16")
ANSWER = bytes.fromhex("fefefefe 68 111111111111 68 91 08 33333433 44 33 33 33 ae 16")


@pytest.mark.parametrize("mode", ["on", "auto"])
@pytest.mark.parametrize("loop", LOOPS)
def test_an_echo_with_noise_before_it_is_not_read(loop: Loop, mode: Echo) -> None:
    async def scene(line: Line) -> None:
        link = await serial_port.connect(line.channel(echo=mode))
        for _ in range(4):
            await link.write(QUESTION)
            echo = await line.hear(len(QUESTION))
            line.say(b"\x00" + echo[:5])
            await asyncio.sleep(0)
            line.say(echo[5:])
            line.say(ANSWER)
            assert await exactly(link, 1 + len(ANSWER)) == b"\x00" + ANSWER
        assert link.write_now(QUESTION) is Taken.WHOLE
        line.say(await line.hear(len(QUESTION)) + ANSWER)
        assert await exactly(link, len(ANSWER)) == ANSWER
        await link.close()

    in_loop(loop, scene)


@pytest.mark.parametrize("mode", ["off", "on", "auto"])
async def test_without_an_echo_nothing_is_missing(mode: Echo) -> None:
    with plugged() as line:
        link = await serial_port.connect(line.channel(echo=mode))
        for _ in range(5):
            await link.write(QUESTION)
            await line.hear(len(QUESTION))
            line.say(ANSWER)
            assert await exactly(link, len(ANSWER)) == ANSWER
        await link.close()


async def test_with_echo_off_it_is_read_like_anything_else() -> None:
    with plugged() as line:
        link = await serial_port.connect(line.channel(echo="off"))
        await link.write(QUESTION)
        line.say(await line.hear(len(QUESTION)))
        assert await exactly(link, len(QUESTION)) == QUESTION
        await link.close()


async def test_a_beginning_of_an_echo_that_is_none_is_given_in_time() -> None:
    with plugged() as line:
        link = await serial_port.connect(line.channel(echo="on"))
        await link.write(QUESTION)
        line.say(QUESTION[:6])
        assert await exactly(link, 6) == QUESTION[:6]
        await link.close()


# settings of the port --------------------------------------------------------------------------------------


def settings_of(line: Line) -> tuple[int, int]:
    """(output speed, control flags) as the kernel has them."""
    found = termios.tcgetattr(line.master)
    return found[5], found[2]


@pytest.mark.parametrize("loop", LOOPS)
def test_the_speed_changes_after_what_was_written_has_left(loop: Loop) -> None:
    async def scene(line: Line) -> None:
        link = await serial_port.connect(line.channel(baud=2400))
        assert settings_of(line)[0] == termios.B2400
        writing = asyncio.create_task(link.write(b"\xfe" * 50_000))
        await until(lambda: link.unsent > 0)
        changing = asyncio.create_task(link.set_speed(9600))
        await asyncio.sleep(0.05)
        assert settings_of(line)[0] == termios.B2400
        await line.hear(50_000)
        await asyncio.gather(writing, changing)
        assert settings_of(line)[0] == termios.B9600
        assert link.baud == 9600
        for wrong in (0, 1234, -1):
            with pytest.raises(ValueError, match="300, 600"):
                await link.set_speed(wrong)
        await link.close()
        again = await serial_port.connect(line.channel(baud=2400))
        assert settings_of(line)[0] == termios.B2400
        await again.close()
        with pytest.raises(LinkClosed):
            await again.set_speed(9600)

    in_loop(loop, scene)


async def test_bits_and_stop_bits_are_set_and_what_a_port_cannot_is_told() -> None:
    with plugged() as line:
        link = await serial_port.connect(SerialChannel(line.device, 300, "N", 8, 2))
        speed, flags = settings_of(line)
        assert speed == termios.B300
        assert flags & termios.CSTOPB
        await link.close()
        with pytest.raises(LinkClosed, match=r"cannot do 2400 bit/s 8E1"):  # no pseudo-terminal does
            await serial_port.connect(SerialChannel(line.device))


async def test_who_cannot_be_opened_is_told_why(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    for device, why in [(tmp_path / "none", "is not there"), (plain, "is no serial port")]:
        with pytest.raises(LinkClosed, match=why) as caught:
            await serial_port.connect(SerialChannel(str(device)))
        assert str(device) in str(caught.value)


async def test_the_port_is_ours_alone() -> None:
    with plugged() as line:
        link = await serial_port.connect(line.channel())
        with pytest.raises(LinkClosed, match="used by another program"):
            await serial_port.connect(line.channel())
        other = f"import serial; serial.Serial({line.device!r}, exclusive=True)"
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", other], capture_output=True, text=True, check=False
        )
        assert done.returncode != 0
        assert "exclusively lock" in done.stderr or "busy" in done.stderr
        await link.write(b"undisturbed")
        assert await line.hear(11) == b"undisturbed"
        await link.close()
        again = await serial_port.connect(line.channel())
        await again.close()


async def test_a_descriptor_above_1023_is_read_too() -> None:
    """pyserial's own read asks select(), which cannot."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1200:
        pytest.skip("this user may not have so many descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    try:
        with plugged() as line, contextlib.ExitStack() as open_:
            while True:
                null = open_.enter_context(open(os.devnull, "rb"))  # noqa: ASYNC230
                if null.fileno() > 1024:
                    break
            link = await serial_port.connect(line.channel())
            assert link._port is not None
            assert link._port.fileno() > 1023
            line.say(b"far")
            assert await exactly(link, 3) == b"far"
            await link.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# unplugged -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("when", ["reading", "writing", "before a write"])
def test_an_unplugged_port_ends_its_link(loop: Loop, when: str) -> None:
    async def scene(line: Line) -> None:
        link = await serial_port.connect(line.channel())
        line.say(b"last words")
        await until(lambda: len(link._buffer) == 10)  # what the kernel has yet is lost with the port
        if when == "writing":
            writing = asyncio.create_task(link.write(b"\xfe" * 50_000))
            await until(lambda: link.unsent > 0)
            line.unplug()
            with pytest.raises(LinkClosed, match="unplugged"):
                await writing
        line.unplug()
        if when == "before a write":
            with contextlib.suppress(LinkClosed):
                await link.write(b"x")
        assert await exactly(link, 10) == b"last words"
        assert "unplugged" in await ended(link)
        assert link.write_now(b"x") is Taken.NOTHING
        with pytest.raises(LinkClosed):
            await link.write(b"x")
        await link.close()
        assert link._port is None or link._port.fd is None

    in_loop(loop, scene)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_port_that_is_back_is_opened_again(loop: Loop, tmp_path: Path) -> None:
    async def scene(line: Line) -> None:
        name = tmp_path / "ttyMETERS"
        heard: asyncio.Queue[bytes] = asyncio.Queue()

        async def keep(link: Link) -> None:
            with contextlib.suppress(LinkClosed):
                while True:
                    heard.put_nowait((await link.read())[0])

        channel = SerialChannel(str(name), 2400, "N")
        tries = 0

        async def opening() -> SerialLink:
            nonlocal tries
            tries += 1
            return await serial_port.connect(channel)

        dialler = Dialler(str(channel), opening, keep, backoff=Backoff(0.001, 0.01))
        dialler.start()
        await until(lambda: tries >= 3)
        for _ in range(3):
            with plugged(name) as line:
                await until(lambda: dialler.connected)
                line.say(b"hello")
                assert await heard.get() == b"hello"
            await until(lambda: not dialler.connected)
        await dialler.close()
        assert not dialler.connected

    in_loop(loop, scene)


async def test_a_port_whose_opening_was_given_up_is_let_go() -> None:
    with plugged() as line:
        task = asyncio.create_task(serial_port.connect(line.channel()))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

        def free() -> bool:
            try:
                descriptor = os.open(line.device, os.O_RDWR | os.O_NOCTTY)
            except OSError:  # still ours alone, which the superuser does not notice
                return False
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            finally:
                os.close(descriptor)
            return True

        await until(free)
