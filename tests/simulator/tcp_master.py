"""A small master station: confirms what terminals say, and asks each of them for a day's F161."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from typing import Protocol

from protocols.q_gdw376 import messages, midnight
from protocols.q_gdw376.connection import (
    Answered,
    Confirmed,
    Denied,
    Master,
    MasterEvent,
    Silent,
    Spontaneous,
)
from protocols.q_gdw376.frame import Frame

POINTS_A_REQUEST = 16
REPLY_TIMEOUT = 2.0
_NAMES = {1: "login", 2: "logout", 3: "heartbeat"}


class Writer(Protocol):
    """What `talk` needs of a stream."""

    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...


@dataclass
class TcpMaster:
    """points: terminal -> pns to ask for; values: (terminal, pn) -> registers; said: what terminals said."""

    day: date
    points: dict[str, list[int]]
    values: dict[tuple[str, int], tuple[int | None, ...]] = field(default_factory=dict)
    said: Counter[str] = field(default_factory=Counter)
    open_links: int = 0
    reply_timeout: float = REPLY_TIMEOUT

    async def serve(self, context: ssl.SSLContext | None = None) -> asyncio.Server:
        return await asyncio.start_server(self.talk, "127.0.0.1", 0, ssl=context)

    @property
    def missing(self) -> int:
        return sum((terminal, pn) not in self.values for terminal, pns in self.points.items() for pn in pns)

    async def talk(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        """On one link, until it ends."""
        self.open_links += 1
        master = Master(reply_timeout=self.reply_timeout, repeats=1)
        now = asyncio.get_running_loop().time
        try:
            while True:
                if master.terminal and not master.busy:
                    self._ask(master, writer, now())
                wait = None if (at := master.next_timeout()) is None else max(0.0, at - now())
                try:
                    async with asyncio.timeout(wait):  # wait_for of 3.11 loses a cancel that comes with data
                        data = await reader.read(65_536)
                except TimeoutError:
                    master.handle_timeout(now())
                else:
                    if not data:
                        return
                    master.receive_data(data, now())
                while (event := master.next_event()) is not None:
                    self._take(master, writer, event)
                if data := master.data_to_send():
                    writer.write(data)
        except ConnectionError:
            return
        finally:
            self.open_links -= 1
            writer.close()

    def _ask(self, master: Master, writer: Writer, now: float) -> None:
        terminal = master.terminal or ""
        wanted = [pn for pn in self.points.get(terminal, []) if (terminal, pn) not in self.values]
        if wanted:
            request = messages.read_frozen(161, wanted[:POINTS_A_REQUEST], self.day)
            writer.write(master.send(request, now))

    def _take(self, master: Master, writer: Writer, event: MasterEvent) -> None:
        match event:
            case Spontaneous(frame):
                if frame.afn == 0x02:
                    self.said[_NAMES[messages.decode(frame)[0].fn]] += 1
                    master.terminal = frame.terminal
                else:
                    self._file(frame.terminal, (event.frame,))
                writer.write(master.confirm(frame))
            case Answered(_, frames):
                self._file(master.terminal or "", frames)
            case Denied() | Silent() | Confirmed():
                self.said[type(event).__name__.lower()] += 1

    def _file(self, terminal: str, frames: tuple[Frame, ...]) -> None:
        for frame in frames:
            for pn, _, _, read_at, registers in midnight.rows(frame)[0]:
                if read_at is not None:
                    self.values[terminal, pn] = registers
