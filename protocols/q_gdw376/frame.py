"""One Q/GDW 376.1 frame (FT1.2): 68H, L twice, 68H, control, address, AFN, SEQ, data units and AUX, CS, 16H.

`FRAME` is the declared layout. `parse` and `build` are its hand-written twins for speed; tests hold the pairs
equal on field, generated and damaged frames. Q/GDW 130-2005 (protocol id 1) has the same frame.

AUX is cut from the end: Tp where SEQ D7 says so, then, up, EC where ACD says so, but never so far that what
is left could not hold one data unit identifier: a login whose flags are wrong is still a login. PW, down,
stays at the end of `Frame.body`: only whoever walks the data units can tell where it begins.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import construct

from protocols import wire
from protocols.errors import LocalProtocolError

START = 0x68
END = 0x16

OVERHEAD = 8
"""Bytes around the user data: 68 L L L L 68 before it, CS 16 behind it."""
HEADER = 8
"""C, A1 A2 A3, AFN, SEQ: the least that user data can be."""
LARGEST_USER_DATA = 16383
"""What fourteen bits of L can say; a dedicated radio channel allows 255."""
LARGEST_FRAME = LARGEST_USER_DATA + OVERHEAD
IDENTIFIER = 4
"""DA and DT of one data unit."""
TP_LENGTH = 6
EC_LENGTH = 2

GW_2005 = 1
"""Protocol id of Q/GDW 130-2005."""
GW_376 = 2
"""Protocol id of Q/GDW 376.1-2009 and 1376.1-2013."""
_KNOWN_IDS = (GW_2005, GW_376)

_HEX = frozenset("0123456789abcdef")
# A sum of 256 bytes stays under Adler's modulus 65521: adler32 then holds the plain sum, plus one.
_ADLER_STEP = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A frame's content.

    terminal: area code A1 as 4 hex digits and terminal address A2 as 4, lower case: "02001234". group: A2 is
    a group address (A3 D0). msa: 0..127. up: DIR, sent by the terminal. prm: sent by the side that starts
    the exchange. function: D3..D0 of C. acd: D5 of C, up "events wait", down FCB. fcv: D4 of C. tpv, fir,
    fin, con, pseq: SEQ (pseq is RSEQ in an answer). body: data units, and PW if any. ec: EC1, EC2. tp: the
    six bytes of the time label.
    """

    terminal: str
    up: bool
    prm: bool
    function: int
    afn: int
    body: bytes = b""
    group: bool = False
    msa: int = 0
    acd: bool = False
    fcv: bool = False
    tpv: bool = False
    fir: bool = True
    fin: bool = True
    con: bool = False
    pseq: int = 0
    ec: tuple[int, int] | None = None
    tp: bytes | None = None
    protocol_id: int = GW_376


def checksum(data: bytes | bytearray | memoryview) -> int:
    """CS: the sum of all bytes modulo 256; for long data a third of the time that summing takes."""
    if len(data) < 64:
        return sum(data) & 0xFF
    total = 0
    for place in range(0, len(data), _ADLER_STEP):
        total += (zlib.adler32(data[place : place + _ADLER_STEP]) & 0xFFFF) - 1
    return total & 0xFF


def _tp_length(tpv: bool, rest: int) -> int:
    """How many of `rest` bytes behind SEQ are Tp."""
    return TP_LENGTH if tpv and rest >= IDENTIFIER + TP_LENGTH else 0


def _ec_length(up: bool, acd: bool, rest: int) -> int:
    """How many of `rest` bytes, Tp cut off, are EC."""
    return EC_LENGTH if up and acd and rest >= IDENTIFIER + EC_LENGTH else 0


# -- the declared layout --------------------------------------------------------------------------

_LENGTH = construct.ByteSwapped(
    construct.BitStruct("user_data" / construct.BitsInteger(14), "protocol_id" / construct.BitsInteger(2))
)


def _this_tp(this: Any) -> int:
    return _tp_length(this.seq.tpv, this._.length.user_data - HEADER)


def _this_ec(this: Any) -> int:
    return _ec_length(this.control.up, this.control.acd, this._.length.user_data - HEADER - _this_tp(this))


def _this_body(this: Any) -> int:
    return int(this._.length.user_data) - HEADER - _this_tp(this) - _this_ec(this)


_USER_DATA = construct.Struct(
    "control"
    / construct.BitStruct(
        "up" / construct.Flag,
        "prm" / construct.Flag,
        "acd" / construct.Flag,
        "fcv" / construct.Flag,
        "function" / construct.Nibble,
    ),
    "area" / construct.Int16ul,
    "address" / construct.Int16ul,
    "master" / construct.BitStruct("msa" / construct.BitsInteger(7), "group" / construct.Flag),
    "afn" / construct.Int8ub,
    "seq"
    / construct.BitStruct(
        "tpv" / construct.Flag,
        "fir" / construct.Flag,
        "fin" / construct.Flag,
        "con" / construct.Flag,
        "pseq" / construct.Nibble,
    ),
    "body" / construct.Bytes(_this_body),
    "ec" / construct.Array(_this_ec, construct.Int8ub),
    "tp" / construct.Bytes(_this_tp),
)

FRAME = construct.Struct(
    "start" / construct.Const(bytes([START])),
    "length" / _LENGTH,
    "length_again" / construct.Rebuild(_LENGTH, construct.this.length),
    construct.Check(lambda this: this.length == this.length_again),
    construct.Check(lambda this: this.length.protocol_id in _KNOWN_IDS),
    construct.Check(lambda this: this.length.user_data >= HEADER),
    "second_start" / construct.Const(bytes([START])),
    "summed" / construct.RawCopy(_USER_DATA),
    "checksum" / construct.Checksum(construct.Int8ub, wire.checksum, construct.this.summed.data),
    "end" / construct.Const(bytes([END])),
    construct.Terminated,
)


def parse_by_layout(raw: bytes) -> Frame:
    """`parse` by the declared layout."""
    found = wire.parse(FRAME, raw, "376.1 frame")
    user = found.summed.value
    return Frame(
        terminal=f"{user.area:04x}{user.address:04x}",
        up=bool(user.control.up),
        prm=bool(user.control.prm),
        function=int(user.control.function),
        afn=int(user.afn),
        body=bytes(user.body),
        group=bool(user.master.group),
        msa=int(user.master.msa),
        acd=bool(user.control.acd),
        fcv=bool(user.control.fcv),
        tpv=bool(user.seq.tpv),
        fir=bool(user.seq.fir),
        fin=bool(user.seq.fin),
        con=bool(user.seq.con),
        pseq=int(user.seq.pseq),
        ec=(int(user.ec[0]), int(user.ec[1])) if user.ec else None,
        tp=bytes(user.tp) or None,
        protocol_id=int(found.length.protocol_id),
    )


def build_by_layout(frame: Frame) -> bytes:
    """`build` by the declared layout."""
    _check(frame)
    user = {
        "control": {
            "up": frame.up,
            "prm": frame.prm,
            "acd": frame.acd,
            "fcv": frame.fcv,
            "function": frame.function,
        },
        "area": int(frame.terminal[:4], 16),
        "address": int(frame.terminal[4:], 16),
        "master": {"msa": frame.msa, "group": frame.group},
        "afn": frame.afn,
        "seq": {
            "tpv": frame.tpv,
            "fir": frame.fir,
            "fin": frame.fin,
            "con": frame.con,
            "pseq": frame.pseq,
        },
        "body": frame.body,
        "ec": list(frame.ec or ()),
        "tp": frame.tp or b"",
    }
    length = {"user_data": _user_data_length(frame), "protocol_id": frame.protocol_id}
    return wire.build(FRAME, {"length": length, "summed": {"value": user}}, "376.1 frame")


# -- the hand-written twins -----------------------------------------------------------------------


def announced(buffer: bytes | bytearray, start: int, limit: int = LARGEST_USER_DATA) -> int | str | None:
    """The frame length that a header at `start` announces; None if more bytes are needed; else what is wrong.

    Looks at six bytes only. limit: most user data bytes that this channel allows.
    """
    size = len(buffer) - start
    if size <= 0:
        return None
    if buffer[start] != START:
        return "no 68H at the start"
    if size < 6:
        return None
    if buffer[start + 5] != START:
        return "no second 68H"
    if buffer[start + 1] != buffer[start + 3] or buffer[start + 2] != buffer[start + 4]:
        return "the two lengths differ"
    field = buffer[start + 1] | buffer[start + 2] << 8
    if field & 3 not in _KNOWN_IDS:
        return f"protocol id {field & 3}"
    length = field >> 2
    if length < HEADER:
        return f"user data of {length} bytes is less than a header"
    if length > limit:
        return f"user data of {length} bytes is more than the {limit} allowed"
    return length + OVERHEAD


def examine(buffer: bytes | bytearray, start: int, limit: int = LARGEST_USER_DATA) -> int | str | None:
    """A whole frame at `start`? Its length; None if more bytes are needed; else why none is there."""
    length = announced(buffer, start, limit)
    if not isinstance(length, int):
        return length
    end = start + length
    if len(buffer) < end:
        return None
    if buffer[end - 1] != END:
        return "no 16H at the end"
    if checksum(buffer[start + 6 : end - 2]) != buffer[end - 2]:
        return "wrong checksum"
    return length


def parse(raw: bytes) -> Frame:
    """One whole frame. RemoteProtocolError where it is anything else."""
    wire.require_whole(raw, examine(raw, 0))
    return content(raw)


def content(raw: bytes) -> Frame:
    """The content of bytes that `examine` has found to be one whole good frame."""
    control = raw[6]
    master = raw[11]
    seq = raw[13]
    end = len(raw) - 2
    tp = None
    if seq & 0x80 and end - 14 >= IDENTIFIER + TP_LENGTH:
        tp = raw[end - TP_LENGTH : end]
        end -= TP_LENGTH
    ec = None
    if control & 0xA0 == 0xA0 and end - 14 >= IDENTIFIER + EC_LENGTH:
        ec = (raw[end - 2], raw[end - 1])
        end -= EC_LENGTH
    return Frame(
        terminal=f"{raw[8]:02x}{raw[7]:02x}{raw[10]:02x}{raw[9]:02x}",
        up=control & 0x80 != 0,
        prm=control & 0x40 != 0,
        function=control & 0x0F,
        afn=raw[12],
        body=raw[14:end],
        group=master & 1 != 0,
        msa=master >> 1,
        acd=control & 0x20 != 0,
        fcv=control & 0x10 != 0,
        tpv=seq & 0x80 != 0,
        fir=seq & 0x40 != 0,
        fin=seq & 0x20 != 0,
        con=seq & 0x10 != 0,
        pseq=seq & 0x0F,
        ec=ec,
        tp=tp,
        protocol_id=raw[1] & 3,
    )


def signed_data(raw: bytes, units: int) -> bytes:
    """What PW of a down frame is made from: C to the last of `units` bytes of data units."""
    return raw[6 : 14 + units]


def build(frame: Frame) -> bytes:
    """The frame's bytes. LocalProtocolError where they cannot say it, or would read back as another."""
    _check(frame)
    area = int(frame.terminal[:4], 16)
    address = int(frame.terminal[4:], 16)
    user = b"%c%c%c%c%c%c%c%c%b%b%b" % (
        frame.up << 7 | frame.prm << 6 | frame.acd << 5 | frame.fcv << 4 | frame.function,
        area & 0xFF,
        area >> 8,
        address & 0xFF,
        address >> 8,
        frame.msa << 1 | frame.group,
        frame.afn,
        frame.tpv << 7 | frame.fir << 6 | frame.fin << 5 | frame.con << 4 | frame.pseq,
        frame.body,
        bytes(frame.ec or ()),
        frame.tp or b"",
    )
    length = (len(user) << 2 | frame.protocol_id).to_bytes(2, "little")
    return b"\x68%b%b\x68%b%c\x16" % (length, length, user, checksum(user))


def _user_data_length(frame: Frame) -> int:
    return HEADER + len(frame.body) + len(frame.ec or ()) + len(frame.tp or b"")


def _check(frame: Frame) -> None:
    """LocalProtocolError where `frame` holds a value that its bytes cannot say."""
    if len(frame.terminal) != 8 or not _HEX.issuperset(frame.terminal):
        raise LocalProtocolError(f"terminal {frame.terminal!r} is not 8 lower-case hex digits")
    if not (0 <= frame.function <= 15 and 0 <= frame.pseq <= 15):
        raise LocalProtocolError(f"function {frame.function} or sequence {frame.pseq} is not within 0..15")
    if not (0 <= frame.msa <= 127 and 0 <= frame.afn <= 255):
        raise LocalProtocolError(f"MSA {frame.msa} is not within 0..127 or AFN {frame.afn} not within 0..255")
    if frame.protocol_id not in _KNOWN_IDS:
        raise LocalProtocolError(f"protocol id {frame.protocol_id} is not 1 or 2")
    if not all(0 <= count <= 255 for count in frame.ec or ()):
        raise LocalProtocolError(f"EC {frame.ec} is not two bytes")
    length = _user_data_length(frame)
    if length > LARGEST_USER_DATA:
        raise LocalProtocolError(f"user data of {length} bytes; a frame holds {LARGEST_USER_DATA}")
    rest = length - HEADER
    tp = _tp_length(frame.tpv, rest)
    if tp != len(frame.tp or b""):
        raise LocalProtocolError(f"SEQ and length announce {tp} bytes of Tp, the frame has {frame.tp!r}")
    ec = _ec_length(frame.up, frame.acd, rest - tp)
    if ec != len(frame.ec or ()):
        raise LocalProtocolError(f"control and length announce {ec} bytes of EC, the frame has {frame.ec}")
