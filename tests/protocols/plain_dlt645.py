"""A second DL/T 645-2007 decoder, written plainly from the standard's rules and from nothing in protocols/.

Slow and simple on purpose: byte by byte, one rule a line. It knows frames, the messages for reading, and the
values of the common registers by the structure of their DI, without the table of items.
"""

from __future__ import annotations

from fractions import Fraction


def frame_at(data: bytes, start: int) -> dict[str, object] | None:
    """The good frame that begins at `start`, or None."""
    rest = data[start:]
    if len(rest) < 12 or rest[0] != 0x68 or rest[7] != 0x68:
        return None
    length = rest[9]
    if len(rest) < 12 + length or rest[11 + length] != 0x16:
        return None
    total = 0
    for byte in rest[: 10 + length]:
        total = (total + byte) % 256
    if total != rest[10 + length]:
        return None
    digits = ""
    for byte in (rest[6], rest[5], rest[4], rest[3], rest[2], rest[1]):
        digits += "0123456789ABCDEF"[byte // 16] + "0123456789ABCDEF"[byte % 16]
    plain = []
    for byte in rest[10 : 10 + length]:
        plain.append((byte + 256 - 0x33) % 256)
    return {"address": digits, "control": rest[8], "data": bytes(plain), "size": 12 + length, "start": start}


def frames(data: bytes) -> list[dict[str, object]]:
    """All good frames from left to right, none inside another."""
    found = []
    at = 0
    while at < len(data):
        frame = frame_at(data, at)
        if frame is None:
            at += 1
            continue
        found.append(frame)
        size = frame["size"]
        assert isinstance(size, int)
        at += size
    return found


def message(control: int, data: bytes) -> tuple[object, ...] | None:
    """What a frame says, as (kind, fields …); None where this decoder knows no such message."""
    length = len(data)
    if control == 0x11 and length >= 4:
        return ("read", di_of(data), data[4:])
    if control == 0x12 and length == 5:
        return ("follow-up", di_of(data), data[4])
    if control == 0x13 and length == 0:
        return ("read address",)
    if control in (0x91, 0xB1) and length >= 4:
        return ("reply", di_of(data), data[4:], control == 0xB1)
    if control in (0x92, 0xB2) and length >= 5:
        return ("follow-up reply", di_of(data), data[4 : length - 1], data[length - 1], control == 0xB2)
    if control == 0x93 and length == 6:
        return ("address", f"{int.from_bytes(data, 'little'):012X}")
    if control // 32 == 6 and length in (1, 2):
        return ("error", control % 32, int.from_bytes(data, "little"))
    return None


def di_of(data: bytes) -> str:
    """DI3 DI2 DI1 DI0 as hex digits."""
    return f"{data[3]:02x}{data[2]:02x}{data[1]:02x}{data[0]:02x}"


def shape(di: str) -> tuple[int, int, bool, int] | None:
    """(bytes a value, decimals, signed, number of values; 0 where the data says) of common registers."""
    di3, di2, di1, di0 = (int(di[at : at + 2], 16) for at in (0, 2, 4, 6))
    if di3 == 0x00 and di2 <= 0x0A and di0 <= 0x0C:
        signed = di2 in (0x00, 0x03, 0x04)
        if di1 <= 0x3F:
            return (4, 2, signed, 1)
        if di1 == 0xFF:
            return (4, 2, signed, 0)
    if di3 == 0x02 and di0 == 0x00:
        kinds = {1: (2, 1, False), 2: (3, 3, True), 3: (3, 4, True), 4: (3, 4, True), 6: (2, 3, True)}
        if di2 in kinds:
            size, decimals, signed = kinds[di2]
            total = di2 in (3, 4, 6)
            if 1 <= di1 <= 3 or (total and di1 == 0):
                return (size, decimals, signed, 1)
            if di1 == 0xFF:
                return (size, decimals, signed, 4 if total else 3)
    if di3 == 0x05 and di2 == 0x06 and 1 <= di1 <= 8 and 1 <= di0 <= 0x3E:
        return (4, 2, di1 in (3, 4), 0)
    return None


def values(di: str, data: bytes) -> list[Fraction | None] | str | None:
    """The values of a common register; the reason where the data cannot be; None where the DI is unknown."""
    known = shape(di)
    if known is None:
        return None
    size, decimals, signed, count = known
    if not count and len(data) % size == 1 and data[-1] == 0xAA:
        data = data[:-1]
    if len(data) % size or not data or (count and len(data) != count * size):
        return "length"
    found: list[Fraction | None] = []
    for at in range(0, len(data), size):
        piece = list(data[at : at + size])
        if all(byte == 0xFF for byte in piece):
            found.append(None)
            continue
        sign = 1
        if signed and piece[-1] >= 0x80:
            sign = -1
            piece[-1] -= 0x80
        number = 0
        for byte in reversed(piece):
            if byte // 16 > 9 or byte % 16 > 9:
                return "digits"
            number = number * 100 + byte // 16 * 10 + byte % 16
        found.append(Fraction(sign * number, 10**decimals))
    return found
