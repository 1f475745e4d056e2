"""Hex as people write it, alone and in logs, and packets in pcap and pcapng files written out by hand."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable
from contextlib import suppress
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.captures.capture import Capture
from gateway.captures.hexadecimal import LINE_LIMIT, capture, capture_lines, captures_in, hex_bytes, log
from gateway.captures.packets import LONGEST_WAIT, MAGICS, MOST_AHEAD, Prefixed, captured
from gateway.cli.decode import PACKET_FILES
from gateway.errors import InputError

E1 = bytes.fromhex("6812000511232068910833333433896745330916")
LOGIN = bytes.fromhex("683200320068C91403326300027300000100EB16")


@pytest.mark.parametrize(
    "text",
    [
        "683200ff",
        "68 32 00 FF",
        "68-32-00-ff",
        "68:32:00:ff",
        "0x68, 0x32, 0x00, 0xFF",
        "0x683200ff",
        "\\x68\\x32\\x00\\xff",
        " 68\t3200ff ",
    ],
)
def test_the_same_bytes_in_any_writing(text: str) -> None:
    assert hex_bytes(text) == bytes.fromhex("683200ff")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("6832g0", "character 5 is 'g'"),
        ("68 32 0x1", "'1' at character 9"),
        ("683", "character 1"),
        ("68 32 0", "'0' at character 7"),
        ("６８", "character 1"),
        ("", "no hex digits"),
        (" - ", "no hex digits"),
        ("hello", "character 1 is 'h'"),
    ],
)
def test_bad_hex_says_where(text: str, where: str) -> None:
    with pytest.raises(InputError) as caught:
        hex_bytes(text)
    assert where in str(caught.value)


def test_lines_come_without_ends_marks_and_empty_ones() -> None:
    assert list(capture_lines(BytesIO(b"\xef\xbb\xbf68 32\r\n\n   \n0016"))) == ["68 32", "0016"]


def test_an_endless_line_is_cut_and_refused_and_the_next_is_read() -> None:
    lines = list(capture_lines(BytesIO(b"00" * LINE_LIMIT + b"\n68\n")))
    assert len(lines) == 2
    assert len(lines[0]) == LINE_LIMIT + 1
    assert lines[1] == "68"
    with pytest.raises(InputError, match="longer than"):
        hex_bytes(lines[0])


def test_single_bytes_on_the_command_line_are_one_capture() -> None:
    assert captures_in(["68", "32", "0"]) == ["68 32 0"]
    assert captures_in(["6832", "68"]) == ["6832", "68"]
    assert captures_in(["68"]) == ["68"]


# -- logs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "at"),
    [
        ("2026-11-24 10:00:00.123 RX(20): 68 12 00 05 11 23 20 68 91 08 33 33 34 33 89 67 45 33 09 16",
         "2026-11-24 10:00:00.123"),
        ("[10:00:01] <- 6812000511232068910833333433896745330916 ok", "10:00:01"),
        ('{"dir": "up", "data": "6812000511232068910833333433896745330916"}', ""),
        ("recv=0x68,0x12,0x00,0x05,0x11,0x23,0x20,0x68,0x91,0x08,0x33,0x33,0x34,0x33,0x89,0x67,0x45,0x33,0x09,0x16",
         ""),
        ("2026/11/24 9:00:00 收: FE FE 68:12:00:05:11:23:20:68:91:08:33:33:34:33:89:67:45:33:09:16。",
         "2026/11/24 9:00:00"),
    ],
)  # fmt: skip
def test_a_frame_in_the_line_of_a_log_is_found_with_its_time(line: str, at: str) -> None:
    found = capture(line)
    assert found.error is None
    assert found.data.lstrip(b"\xfe") == E1
    assert found.at == at
    assert (found.seconds is None) == (not at)
    assert [frame["value"] for frame in found.look()["frames"]] == ["1234.56"]


def test_times_in_a_log_can_be_reckoned_with() -> None:
    first, second = (capture(f"2026-11-24 {clock} {E1.hex()}") for clock in ("23:59:59.250", "23:59:59,900"))
    assert first.seconds is not None
    assert second.seconds is not None
    assert second.seconds - first.seconds == pytest.approx(0.65)
    assert capture(f"99:99:99 {E1.hex()}").at == ""


def test_a_line_without_a_frame_has_the_error_of_bad_hex() -> None:
    found = capture("68 zz")
    assert found.error is not None
    assert "character 4" in found.error
    assert found.look() == {"input": "68 zz", "frames": [], "discarded": 0, "error": found.error}


def logged(*lines: str) -> list[Capture]:
    return list(log(lines, "x.log"))


def test_of_a_log_only_lines_with_frames_or_damage_are_told() -> None:
    damaged = E1[:-2].hex() + "0a16"
    told = logged("gateway started 2026-11-24", "port 68", f"rx {E1.hex()}", "add 16", f"rx {damaged}", "bye")
    assert [one.source for one in told] == ["x.log:3", "x.log:5"]
    assert told[0].data == E1
    assert told[1].look()["error"] == "wrong checksum"


def test_a_frame_may_go_on_in_the_next_lines() -> None:
    cuts = [
        f"10:00:00 rx {LOGIN[:9].hex(' ')}",
        LOGIN[9:12].hex(" "),
        f"{LOGIN[12:].hex(' ')}",
        f"rx {E1.hex()}",
    ]
    first, second = logged(*cuts)
    assert (first.data, first.at, first.source) == (LOGIN, "10:00:00", "x.log:1")
    assert second.data == E1


def test_words_between_the_lines_of_a_frame_are_passed_over() -> None:
    (one,) = logged(f"rx {LOGIN[:9].hex()}", "10:00:01 level 20", "tick", f"rx {LOGIN[9:].hex()}")
    assert one.data == LOGIN


def test_a_frame_that_never_ends_hides_nothing_behind_it() -> None:
    first, second = logged(f"rx {LOGIN[:-1].hex()}", f"rx {E1.hex()}")
    assert first.look()["error"] == "cut short"
    assert second.data == E1
    (alone,) = logged(f"rx {LOGIN[:-1].hex()}")
    assert alone.look()["error"] == "cut short"


def test_a_log_made_to_be_slow_is_read_in_linear_time() -> None:
    header = "68fdfffdff68"  # 16383 bytes are announced
    lines = [header + "68" * 4, *["68" * 4] * 4000, E1.hex()]
    assert logged(*lines)


@given(st.lists(st.text(alphabet="0123456789abcdef68 :|gx-\t", max_size=80), max_size=12))
def test_any_lines_are_captures_or_nothing(lines: list[str]) -> None:
    for one in logged(*lines):
        assert set(one.look()) == {"input", "frames", "discarded", "error"}


# -- packets --------------------------------------------------------------------------------------

A, B = "0a000001", "0a000002"


def ip4(payload: bytes, protocol: int, source: str = A, target: str = B) -> bytes:
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0)
    return head + bytes.fromhex(source + target) + payload


def tcp(data: bytes, seq: int, flags: int = 0x18, ports: tuple[int, int] = (40000, 7000)) -> bytes:
    head = struct.pack(">HHIIBBHHH", *ports, seq % 2**32, 0, 0x50, flags, 65535, 0, 0)
    return ip4(head + data, 6)


def udp(data: bytes) -> bytes:
    return ip4(struct.pack(">HHHH", 40000, 7000, 8 + len(data), 0) + data, 17)


def ethernet(packet: bytes, vlan: bool = False) -> bytes:
    tag = b"\x81\x00\x00\x05" if vlan else b""
    return bytes(12) + tag + b"\x08\x00" + packet


def pcap(packets: Iterable[bytes], link: int = 1, order: str = "<", nano: bool = False) -> bytes:
    """A pcap file; packet n was seen at n seconds and a half."""
    magic = 0xA1B23C4D if nano else 0xA1B2C3D4
    half = 500_000_000 if nano else 500_000
    out = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 65535, link)
    for number, packet in enumerate(packets):
        out += struct.pack(f"{order}IIII", number, half, len(packet), len(packet)) + packet
    return out


def pcapng(packets: Iterable[bytes], link: int = 1) -> bytes:
    def block(kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        length = struct.pack("<I", len(body) + 12)
        return struct.pack("<I", kind) + length + body + length

    out = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    out += block(1, struct.pack("<HHI", link, 0, 65535))
    for number, packet in enumerate(packets):
        microseconds = number * 1_000_000 + 500_000
        head = struct.pack("<IIIII", 0, microseconds >> 32, microseconds % 2**32, len(packet), len(packet))
        out += block(6, head + packet)
    return out


def seen(file: bytes) -> list[Capture]:
    return list(captured(BytesIO(file), file[:4], "x.pcap"))


def frames(captures: Iterable[Capture]) -> list[str]:
    """What is told of the frames, short."""
    return [frame.get("terminal") or frame["address"] for one in captures for frame in one.look()["frames"]]


@pytest.mark.parametrize(
    "file",
    [
        pcap([ethernet(udp(E1))]),
        pcap([ethernet(udp(E1))], order=">"),
        pcap([ethernet(udp(E1))], nano=True),
        pcap([ethernet(udp(E1), vlan=True)]),
        pcap([bytes(14) + b"\x08\x00" + udp(E1)], link=113),
        pcap([b"\x02\x00\x00\x00" + udp(E1)], link=0),
        pcap([udp(E1)], link=101),
        pcap([E1], link=147),
        pcapng([ethernet(udp(E1))]),
        pcapng([ethernet(tcp(E1, 5))]),
    ],
    ids=["pcap", "big-endian", "nano", "vlan", "sll", "loopback", "raw", "serial", "pcapng", "tcp"],
)
def test_a_frame_is_found_in_every_kind_of_file(file: bytes) -> None:
    (one,) = seen(file)
    assert one.data == E1
    assert one.text == E1.hex()
    assert one.seconds == pytest.approx(0.5)
    assert one.at == "1970-01-01 08:00:00.500"
    assert one.source in ("10.0.0.1:40000 > 10.0.0.2:7000", "link 147")


def pieces(stream: bytes, size: int, first: int = 1000) -> list[bytes]:
    """`stream` as TCP segments of `size` bytes."""
    return [ethernet(tcp(stream[at : at + size], first + at)) for at in range(0, len(stream), size)]


@pytest.mark.parametrize("size", [1, 3, 7, 20, 1000])
def test_a_stream_is_put_together(size: int) -> None:
    captures = seen(pcap(pieces(LOGIN + E1 + LOGIN, size)))
    assert frames(captures) == ["03146332", "202311050012", "03146332"]
    assert b"".join(one.data for one in captures) == LOGIN + E1 + LOGIN


def test_segments_may_come_twice_and_in_any_order_and_wrap_around() -> None:
    stream = b"\xfe\xfe" + LOGIN + E1 + LOGIN + E1
    for seed in range(20):
        first = ethernet(tcp(b"", 2**32 - 31, flags=2))
        rest = pieces(stream, 5, first=2**32 - 30)
        rest += rest[3:9]
        random.Random(seed).shuffle(rest)
        assert frames(seen(pcap([first, *rest]))) == ["03146332", "202311050012"] * 2


def test_overlapping_segments_give_each_byte_once() -> None:
    packets = [ethernet(tcp(LOGIN[:8], 100)), ethernet(tcp(LOGIN[4:15], 104)), ethernet(tcp(LOGIN[2:], 102))]
    (one,) = seen(pcap(packets))
    assert one.data == LOGIN


def test_a_lost_segment_costs_the_frames_in_it_and_no_other() -> None:
    packets = pieces(LOGIN * 3, 10)
    del packets[3]
    told = seen(pcap(packets))
    assert frames(told) == ["03146332", "03146332"]


def test_many_segments_behind_a_lost_one_are_not_all_kept() -> None:
    packets = pieces(LOGIN * 300, len(LOGIN))
    del packets[1]
    told = seen(pcap(packets))
    assert len(frames(told)) == 299
    assert told[1].seconds is not None
    assert told[1].seconds <= MOST_AHEAD + 3


def test_two_directions_and_two_connections_are_apart() -> None:
    packets = [
        ethernet(tcp(LOGIN[:9], 1)),
        ethernet(tcp(E1[:5], 1, ports=(7000, 40000))),
        ethernet(tcp(E1[:9], 1, ports=(40001, 7000))),
        ethernet(tcp(LOGIN[9:], 10)),
        ethernet(tcp(E1[5:], 6, ports=(7000, 40000))),
        ethernet(tcp(E1[9:], 10, ports=(40001, 7000))),
    ]
    assert [one.data for one in seen(pcap(packets))] == [LOGIN, E1, E1]


def test_a_new_connection_on_old_ports_begins_anew() -> None:
    packets = [ethernet(tcp(LOGIN[:9], 100)), ethernet(tcp(b"", 7, flags=2)), ethernet(tcp(E1, 8))]
    assert frames(seen(pcap(packets))) == ["202311050012"]


def test_a_frame_that_is_announced_and_never_comes_is_given_up() -> None:
    endless = bytes.fromhex("68fdfffdff68") + bytes(1000)
    packets = pieces(endless + LOGIN * 1000, 1000)
    assert len(frames(seen(pcap(packets)))) >= 1000 - LONGEST_WAIT // len(LOGIN)


def test_damage_is_told_and_what_is_no_frame_is_not() -> None:
    damaged = E1[:-2] + b"\x0a\x16"
    told = seen(pcap([ethernet(udp(b"hello" * 9)), ethernet(udp(damaged)), ethernet(b"\x45"), b""]))
    assert [one.data for one in told] == [damaged]


def test_a_file_that_breaks_off_says_so() -> None:
    """Within a packet's head by an error, within its bytes by the frame that is cut short."""
    with pytest.raises(InputError, match=r"x\.pcap: broken off"):
        seen(pcapng([ethernet(udp(E1))])[:-30])
    (one,) = seen(pcap([ethernet(udp(E1))])[:-3])
    assert one.look()["error"] == "cut short"


def test_what_came_before_the_break_is_told_first() -> None:
    file = pcap([ethernet(udp(E1)), ethernet(tcp(LOGIN, 1)), b"lost"])[:-1]
    told = captured(BytesIO(file), file[:4], "x.pcap")
    assert [next(told).data, next(told).data] == [E1, LOGIN]


def test_what_is_no_packet_file_says_so() -> None:
    with pytest.raises(InputError, match=r"x\.pcap: broken off, or no pcap file"):
        seen(b"\xd4\xc3\xb2\xa1")
    with pytest.raises(InputError, match="no pcap file"):
        seen(MAGICS[-1] + bytes(40))


@given(st.binary(max_size=80), st.sampled_from([0, 1, 101, 108, 113, 147, 276]))
def test_any_packet_is_told_or_passed_over(packet: bytes, link: int) -> None:
    seen(pcap([packet, packet[:20]], link))


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=8), st.booleans())
def test_any_damage_to_a_file_is_an_error_at_most(changes: list[tuple[int, int]], new: bool) -> None:
    file = bytearray((pcapng if new else pcap)([ethernet(udp(E1)), *pieces(LOGIN, 7)]))
    for place, value in changes:
        file[place % len(file)] = value
    with suppress(InputError):
        seen(bytes(file))


def test_bytes_read_already_are_read_again() -> None:
    file = Prefixed(b"abcdef", BytesIO(b"ghi"))
    assert [file.read(4), file.read(4), file.read(4), file.read(4)] == [b"abcd", b"efgh", b"i", b""]
    assert Prefixed(b"ab", BytesIO(b"cd")).read() == b"abcd"


def test_the_command_knows_the_same_files_without_their_library() -> None:
    assert PACKET_FILES == MAGICS
