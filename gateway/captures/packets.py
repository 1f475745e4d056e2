"""Frames in pcap and pcapng files: what UDP, TCP and unknown links carry; TCP is put together again first."""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, BinaryIO, Final, Protocol

import dpkt

from gateway.captures.capture import Capture
from gateway.clock import SHANGHAI
from gateway.errors import InputError
from protocols.lens.places import find, settled

MAGICS: Final = (
    *(b"\xa1\xb2\xc3\xd4", b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\x3c\x4d", b"\x4d\x3c\xb2\xa1"),
    b"\x0a\x0d\x0d\x0a",
)
"""First bytes of pcap (either order, micro- or nanoseconds) and pcapng."""
_NEXT_GENERATION: Final = b"\x0a\x0d\x0d\x0a"

# A capture may hold any number of connections, and any number of segments behind a lost one.
MOST_STREAMS: Final = 4096
MOST_AHEAD: Final = 64
# A frame that never ends is given up with the largest that there is.
LONGEST_WAIT: Final = 16_391

# What a file or a packet made to harm raises inside dpkt.
_BROKEN: Final = (
    dpkt.Error,
    ValueError,
    IndexError,
    KeyError,
    struct.error,
    AttributeError,
    TypeError,
    OverflowError,
)
_WORTH_TELLING: Final = ("wrong checksum", "no 16H at the end")

_LINKS: Final = {
    1: dpkt.ethernet.Ethernet,
    113: dpkt.sll.SLL,
    276: dpkt.sll2.SLL2,
    0: dpkt.loopback.Loopback,
    108: dpkt.loopback.Loopback,
}
_RAW_IP: Final = (12, 14, 101, 228, 229)


class Readable(Protocol):
    """All that is wanted of a file."""

    def read(self, size: int = -1, /) -> bytes: ...


@dataclass(slots=True)
class Prefixed:
    """`rest` with bytes in front that were read already."""

    first: bytes
    rest: BinaryIO

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            taken, self.first = self.first, b""
            return taken + self.rest.read()
        taken, self.first = self.first[:size], self.first[size:]
        return taken + self.rest.read(size - len(taken)) if len(taken) < size else taken


def captured(file: Readable, magic: bytes, name: str) -> Iterator[Capture]:
    """The captures in a pcap or pcapng file, in the order in which their last bytes came.

    magic: the file's first four bytes, which are still to be read. Only what holds a frame, or damage that
    looks like one, is given. InputError where the file is no such file, or ends in the middle.
    """
    streams: OrderedDict[str, _Stream] = OrderedDict()
    try:
        reader: Any = (dpkt.pcapng.Reader if magic == _NEXT_GENERATION else dpkt.pcap.Reader)(file)
        link = int(reader.datalink())
        for stamp, packet in reader:
            yield from _packet(streams, link, float(stamp), bytes(packet))
    except _BROKEN as error:
        yield from _rest(streams)
        raise InputError(f"{name}: broken off, or no pcap file ({error}) 抓包文件损坏") from error
    yield from _rest(streams)


def _packet(
    streams: OrderedDict[str, _Stream], link: int, seconds: float, packet: bytes
) -> Iterator[Capture]:
    """What one packet completes."""
    if link not in _LINKS and link not in _RAW_IP:
        # A serial line's capture has a link type of its maker's; its bytes are the frames.
        yield from _told(packet, seconds, f"link {link}")
        return
    try:
        inside = _network(link, packet)
        segment = inside.data
    except _BROKEN:
        return
    if isinstance(segment, dpkt.udp.UDP):
        yield from _told(bytes(segment.data), seconds, _ends(inside, segment))
    elif isinstance(segment, dpkt.tcp.TCP):
        ends = _ends(inside, segment)
        stream = streams.pop(ends, None)
        if stream is None or segment.flags & dpkt.tcp.TH_SYN:
            if stream is not None:
                yield from stream.end()
            stream = _Stream(ends)
        streams[ends] = stream
        start = int(segment.seq) + (1 if segment.flags & dpkt.tcp.TH_SYN else 0)
        yield from stream.take(start % 2**32, bytes(segment.data), seconds)
        if len(streams) > MOST_STREAMS:
            _, oldest = streams.popitem(last=False)
            yield from oldest.end()


def _network(link: int, packet: bytes) -> Any:
    """The IP packet inside; whatever dpkt finds there where it is none."""
    if link in _RAW_IP:
        return dpkt.ip6.IP6(packet) if packet[0] >> 4 == 6 else dpkt.ip.IP(packet)
    return _LINKS[link](packet).data


def _ends(network: Any, segment: Any) -> str:
    source, target = _address(bytes(network.src)), _address(bytes(network.dst))
    return f"{source}:{int(segment.sport)} > {target}:{int(segment.dport)}"


def _address(raw: bytes) -> str:
    if len(raw) == 4:
        return ".".join(map(str, raw))
    return f"[{raw.hex(':', 2)}]"


def _told(data: bytes, seconds: float, source: str) -> Iterator[Capture]:
    """One capture, if there is a frame in it or what nearly was one."""
    found = find(data)
    if found.frames or found.error in _WORTH_TELLING or _breaks_off(data):
        try:
            at = f"{datetime.fromtimestamp(seconds, SHANGHAI):%Y-%m-%d %H:%M:%S.%f}"[:-3]
        except (ValueError, OverflowError, OSError):
            at = ""
        yield Capture(data.hex(), data, None, at, seconds, source)


def _breaks_off(data: bytes) -> bool:
    """Whether it ends in a frame that had both 68H and no end."""
    begun = data[settled(data) :].lstrip(b"\xfe")
    return len(begun) >= 8 and 0x68 in (begun[5], begun[7])


def _rest(streams: OrderedDict[str, _Stream]) -> Iterator[Capture]:
    for stream in streams.values():
        yield from stream.end()
    streams.clear()


@dataclass(slots=True)
class _Stream:
    """One direction of a TCP connection. Holds LONGEST_WAIT bytes and MOST_AHEAD segments at most."""

    ends: str
    next: int | None = None
    buffer: bytes = b""
    seconds: float = 0.0
    ahead: dict[int, bytes] = field(default_factory=dict)

    def take(self, start: int, data: bytes, seconds: float) -> Iterator[Capture]:
        """One segment, at its place; what comes twice is dropped, what comes early waits."""
        self.seconds = seconds
        if self.next is None:
            self.next = start
        if len(data) > len(self.ahead.get(start, b"")):
            self.ahead[start] = data
        yield from self._in_order()
        if len(self.ahead) > MOST_AHEAD:
            yield from self._over_the_gap()

    def end(self) -> Iterator[Capture]:
        """What is left when nothing more comes."""
        while self.ahead:
            yield from self._over_the_gap()
        if self.buffer:
            yield from _told(self.buffer, self.seconds, self.ends)
            self.buffer = b""

    def _in_order(self) -> Iterator[Capture]:
        while (start := self._following()) is not None:
            data = self.ahead.pop(start)
            assert self.next is not None
            new = data[_distance(start, self.next) :]
            if new:
                self.next = (self.next + len(new)) % 2**32
                yield from self._feed(new)

    def _following(self) -> int | None:
        """The start of a waiting segment that begins at or before the next byte."""
        assert self.next is not None
        return next((start for start in self.ahead if _distance(start, self.next) >= 0), None)

    def _over_the_gap(self) -> Iterator[Capture]:
        """The capture lacks bytes: what came before them is ended, and what comes after begins anew."""
        if self.buffer:
            yield from _told(self.buffer, self.seconds, self.ends)
            self.buffer = b""
        assert self.next is not None
        following = self.next
        self.next = min(self.ahead, key=lambda start: -_distance(start, following))
        yield from self._in_order()

    def _feed(self, data: bytes) -> Iterator[Capture]:
        self.buffer += data
        cut = settled(self.buffer) if len(self.buffer) <= LONGEST_WAIT else len(self.buffer)
        if cut:
            yield from _told(self.buffer[:cut], self.seconds, self.ends)
            self.buffer = self.buffer[cut:]


def _distance(start: int, following: int) -> int:
    """How far `following` lies behind `start`, in sequence numbers that wrap around."""
    return (following - start + 2**31) % 2**32 - 2**31
