"""A second DL/T 645 decoder, written plainly from the standard's rules and from nothing in protocols/.

Slow and simple on purpose: byte by byte, one rule a line. It knows frames, the messages of every function
of both editions, and the values of the common registers by the structure of their DI, without the table.
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
    return order(control, data)


RELAY_VERBS = {
    0x1A: "trip",
    0x1B: "permit-close",
    0x1C: "close",
    0x1D: "trip-then-close",
    0x1E: "trip-then-permit",
    0x2A: "alarm",
    0x2B: "clear-alarm",
    0x3A: "keep-power",
    0x3B: "release-keep-power",
}


def order(control: int, data: bytes) -> tuple[object, ...] | None:
    """What the functions say that are no reads (2007)."""
    length = len(data)
    if control == 0x08:
        time = time_of(data)
        return None if time is None else ("time", time)
    if control == 0x14 and length >= 12:
        return ("write", di_of(data), *authority(data[4:]), data[12:])
    if control == 0x15 and length == 6:
        return ("new address", high_first(data).upper())
    if control == 0x16 and length == 4:
        pattern = freeze_pattern(data)
        return None if pattern is None else ("freeze", *pattern)
    if control in (0x17, 0x97) and length == 1 and data[0] in (2, 4, 8, 16, 32, 64, 128):
        return ("speed" if control == 0x17 else "speed set", data[0])
    if control == 0x18 and length == 12:
        return ("password", di_of(data), *pair(data[4:8]), *pair(data[8:12]))
    if control == 0x98 and length == 4:
        return ("password set", *pair(data))
    if control in (0x19, 0x1A) and length >= 8:
        return ("clear demand" if control == 0x19 else "clear meter", *authority(data), data[8:])
    if control == 0x1B and length >= 8 and data[0] == 0x98:
        return ("clear events", *authority(data), "", data[8:])
    if control == 0x1B and length == 12:
        return ("clear events", *authority(data), di_of(data[8:]), b"")
    if control in (0x1D, 0x9D) and length == 1 and data[0] <= 2:
        return ("output" if control == 0x1D else "output set", data[0])
    if control in (0x94, 0x95, 0x96, 0x99, 0x9A, 0x9B) and length == 0:
        return ("done", control - 0x80)
    if control == 0x9C and length == 0:
        return ("relay accepted", None)
    if control == 0x9C and length == 2:
        return ("relay accepted", data[0] + 256 * data[1])
    if control == 0x03 and length >= 8:
        return ("security", di_of(data), high_first(data[4:8]), data[8:])
    if control == 0x83 and length >= 4:
        return ("security reply", di_of(data), data[4:])
    if control == 0x1C and length > 8 and data[0] in (0x98, 0x99):
        return ("relay sealed", *authority(data), data[8:])
    if control == 0x1C and length == 16 and data[0] not in (0x98, 0x99) and data[8] in RELAY_VERBS:
        deadline = time_of(data[10:])
        if data[10:] != b"\0\0\0\0\0\0" and deadline is None:
            return None
        return ("relay", RELAY_VERBS[data[8]], *authority(data), data[9] * 5, deadline)
    return None


def message_1997(control: int, data: bytes) -> tuple[object, ...] | None:
    """The same in the edition of 1997."""
    length = len(data)
    di = f"{data[1]:02x}{data[0]:02x}" if length >= 2 else ""
    if control == 0x01 and length >= 2:
        return ("read", di, data[2:])
    if control == 0x02 and length == 2:
        return ("follow-up", di, 0)
    if control == 0x03 and length == 0:
        return ("read again",)
    if control in (0x81, 0xA1) and length >= 2:
        return ("reply", di, data[2:], control == 0xA1)
    if control in (0x82, 0xA2) and length >= 2:
        return ("follow-up reply", di, data[2:], 0, control == 0xA2)
    if control in (0x83, 0xA3) and length >= 2:
        return ("again", di, data[2:], control == 0xA3)
    if control // 32 == 6 and length == 1:
        return ("error", control % 32, data[0])
    if control == 0x04 and length >= 6:
        return ("write", di, *pair(data[2:6]), "", data[6:])
    if control == 0x08:
        time = time_of(data)
        return None if time is None else ("time", time)
    if control == 0x0A and length == 6:
        return ("new address", high_first(data).upper())
    if control == 0x0C and length == 1:
        return ("speed", data[0])
    if control == 0x0F and length == 8:
        return ("password", "", *pair(data[0:4]), *pair(data[4:8]))
    if control == 0x10:
        return ("clear demand", data)
    if control in (0x84, 0x8A, 0x90) and length == 0:
        return ("done", control - 0x80)
    if control in (0x8C, 0x8F):
        return ("done", control - 0x80)
    return None


def high_first(data: bytes) -> str:
    """Hex digits from the last byte to the first."""
    text = ""
    for byte in data:
        text = f"{byte:02x}" + text
    return text


def pair(data: bytes) -> tuple[str, str]:
    """PA and P2 P1 P0."""
    return (f"{data[0]:02x}", f"{data[3]:02x}{data[2]:02x}{data[1]:02x}")


def authority(data: bytes) -> tuple[str, str, str]:
    """PA, P2 P1 P0, C3 C2 C1 C0."""
    return (*pair(data), high_first(data[4:8]))


def two_digits(byte: int) -> int:
    """BCD, or -1."""
    if byte // 16 > 9 or byte % 16 > 9:
        return -1
    return byte // 16 * 10 + byte % 16


def days_of(month: int, year: int) -> int:
    """Days of a month of 20YY."""
    if month == 2:
        return 29 if year % 4 == 0 else 28
    return 30 if month in (4, 6, 9, 11) else 31


def time_of(data: bytes) -> tuple[int, int, int, int, int, int] | None:
    """ss mm hh DD MM YY as year, month, day, hour, minute, second; None where it is no time."""
    if len(data) != 6:
        return None
    second, minute, hour, day, month, year = (two_digits(byte) for byte in data)
    if min(second, minute, hour, day, month, year) < 0 or second > 59 or minute > 59 or hour > 23:
        return None
    if not 1 <= month <= 12 or not 1 <= day <= days_of(month, year):
        return None
    return (2000 + year, month, day, hour, minute, second)


def freeze_pattern(data: bytes) -> tuple[int | None, ...] | None:
    """mm hh DD MM as month, day, hour, minute; None for 99; None where it is no pattern."""
    pattern: list[int | None] = []
    for byte, low, high in ((data[3], 1, 12), (data[2], 1, 31), (data[1], 0, 23), (data[0], 0, 59)):
        if byte == 0x99:
            if any(part is not None for part in pattern):
                return None
            pattern.append(None)
            continue
        if not low <= two_digits(byte) <= high:
            return None
        pattern.append(two_digits(byte))
    return tuple(pattern)


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
