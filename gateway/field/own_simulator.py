"""A simulator that we start ourselves, on a wire of our choosing: the one peer that is proved to be no meter.

Proof is what the kernel says, never what the peer does: the process is our child and lives, and the other end
of the link, a TCP or UDP socket or a pseudo-terminal of this machine, is among its descriptors.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

import psutil

from gateway.errors import InputError, LingdianError
from gateway.field.conversation import Role
from gateway.transports import channel as channels
from gateway.transports import ways
from gateway.transports.channel import SerialChannel, TcpChannel, UdpChannel
from gateway.transports.link import Link
from gateway.transports.ways import Listening

Over = Literal["tcp", "udp", "pty"]

STARTS_S: Final = 30.0
STOPS_S: Final = 10.0
LONGEST_S: Final = 86_400
"""It ends by itself then, should we have been killed."""
HOST: Final = "127.0.0.1"

ROLES: Final[dict[str, Role]] = {"terminal": "master", "line": "meter", "meter": "meter"}
"""What it may play, and what we are to it."""

_PTY_INDEX: Final = re.compile(r"^tty-index:\s*(\d+)$", re.MULTILINE)
"""In what Linux says of the descriptor of a pseudo-terminal's master end."""
_WIRES: Final = ("--listen", "--connect", "--pty", "--seconds")


class OwnSimulator:
    """Made by `start`; `close` ends it. role: what we are to it."""

    def __init__(self, process: asyncio.subprocess.Process, role: Role) -> None:
        self.role = role
        self.link: Link | None = None
        self._process = process
        self._draining: asyncio.Task[None] | None = None
        self._listening: Listening | None = None
        self._done = asyncio.Event()

    def proves(self, link: Link) -> bool:
        """See `conversation_guard.Proved`."""
        alive = self._process.returncode is None
        return alive and link is self.link and link.peer in _ends_of(self._process.pid)

    def end(self) -> None:
        """See `conversation_guard.Proved`."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()

    async def close(self) -> None:
        """End the link and the process."""
        self._done.set()
        if self.link is not None:
            await self.link.close()
        if self._listening is not None:
            await self._listening.close()
        self.end()
        if self._process.returncode is None:
            try:
                async with asyncio.timeout(STOPS_S):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if self._draining is not None:
            await self._draining

    async def _told(self, event: str) -> list[dict[str, Any]]:
        """Milestones until one of that name. LingdianError where it ends, or takes too long."""
        told: list[dict[str, Any]] = []
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(STARTS_S):
                while line := await self._process.stdout.readline():
                    told.append(json.loads(line))
                    if told[-1].get("event") == event:
                        return told
        except TimeoutError:
            raise LingdianError(f"the simulator says nothing for {STARTS_S:g} s 模拟器无响应") from None
        raise LingdianError("the simulator has ended 模拟器已退出: see what it says above")

    async def _drain(self) -> None:
        assert self._process.stdout is not None
        while await self._process.stdout.read(65_536):
            pass

    async def _connect(self, over: Over) -> None:
        told = await self._told("listening")
        channel = channels.parse(told[-1]["channel"])
        ours = isinstance(channel, TcpChannel | UdpChannel) and channel.host == HOST
        if over == "pty":
            ours = isinstance(channel, SerialChannel) and channel.device.startswith("/dev/pts/")
        if not ours:
            raise LingdianError(
                f"the simulator listens on {channel}, where it was not told to 模拟器通道不符"
            )
        if isinstance(channel, SerialChannel):
            hanging = next((one["meters"] for one in told if one["event"] == "hanging"), ())
            bauds = [meter["baud"] for meter in hanging]
            channel = replace(channel, baud=bauds[0] if bauds else channel.baud, echo="off")
        self.link = await ways.opening(channel)()

    async def _await(self, listening: Listening, linked: asyncio.Future[Link]) -> None:
        self._listening = listening
        try:
            async with asyncio.timeout(STARTS_S):
                self.link = await linked
        except TimeoutError:
            raise LingdianError(
                f"the simulator does not dial in within {STARTS_S:g} s 模拟器未连接"
            ) from None

    async def _take(self, linked: asyncio.Future[Link], link: Link) -> None:
        """The first who comes and is our child; anybody else is turned away."""
        if not linked.done() and link.peer in _ends_of(self._process.pid):
            linked.set_result(link)
            await self._done.wait()


async def start(words: Sequence[str], over: Over) -> OwnSimulator:
    """`python -m simulator` with these words, and a link to it over a wire that only it and we have.

    A terminal over UDP dials us, since a terminal speaks first; everything else listens. InputError where the
    words say more than what to play; LingdianError, LinkClosed where it does not come up."""
    role = _role_to(words)
    dials = role == "master" and over == "udp"
    loop = asyncio.get_running_loop()
    linked: asyncio.Future[Link] = loop.create_future()
    started: asyncio.Future[OwnSimulator] = loop.create_future()
    listening: Listening | None = None

    async def on_link(link: Link) -> None:
        await (await asyncio.shield(started))._take(linked, link)

    if dials:
        listening = await ways.listen(UdpChannel(HOST, 0), on_link)
        wire = ["--connect", f"udp://{HOST}:{listening.port}"]
    else:
        wire = ["--listen", "pty" if over == "pty" else f"{over}://{HOST}:0"]
    command = [sys.executable, "-P", "-m", "simulator", *words, "--json", f"--seconds={LONGEST_S}", *wire]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    simulator = OwnSimulator(process, role)
    started.set_result(simulator)
    try:
        if listening is not None:
            await simulator._await(listening, linked)
        else:
            await simulator._connect(over)
    except BaseException:
        await simulator.close()
        raise
    simulator._draining = loop.create_task(simulator._drain())
    return simulator


def _role_to(words: Sequence[str]) -> Role:
    """What we are to what these words play. InputError where they say more, abbreviated options included."""
    if not words or words[0] not in ROLES:
        raise InputError(f"--simulator: begins with one of {', '.join(ROLES)} 须以设备类型开头")
    for word in words:
        name = word.partition("=")[0]
        if name.startswith("--") and any(wire.startswith(name) for wire in _WIRES):
            raise InputError(f"--simulator: {name} is replay's own matter 不可指定; see --over")
    return ROLES[words[0]]


def _ends_of(pid: int) -> set[str]:
    """Where the TCP and UDP sockets of a process are bound, and the pseudo-terminals of which it has the
    other end, as links spell their peers. All of it is the kernel's word."""
    try:
        found = psutil.Process(pid).net_connections(kind="inet4")
    except (psutil.Error, OSError):
        return set()
    ends = {channels.spelled(one.laddr.ip, one.laddr.port) for one in found if one.laddr}
    for descriptor in Path(f"/proc/{pid}/fdinfo").glob("*"):
        with contextlib.suppress(OSError):
            index = _PTY_INDEX.search(descriptor.read_text(encoding="ascii", errors="replace"))
            if index is not None:
                ends.add(f"/dev/pts/{index[1]}")
    return ends
