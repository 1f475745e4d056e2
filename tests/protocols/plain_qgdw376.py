"""A second Q/GDW 376.1 decoder, written plainly from the fact sheet and from nothing in protocols/.

Slow and simple on purpose. It knows frames, the walk over data units, and the units built in the first part;
at a unit that it does not know it stops and says so. Values are tuples in the order of the sheet's layouts;
energies are integers of 0.0001; a time is (yy, MM, dd, hh, mm, ss) or None.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

Unit = tuple[int, int, Any, bytes, int]
"""pn, fn, value or a `Bad`, data, place in the body."""

_SHEET = Path(__file__).parents[2] / "protocols" / "q_gdw376" / "items.csv"
_LISTED = {
    (int(row["afn"], 16), int(row["fn"][1:]))
    for row in csv.DictReader(_SHEET.read_text(encoding="utf-8").splitlines())
}


class Bad(Exception):
    """Digits or dates that cannot be."""


class Cut(Exception):
    """The unit is longer than the body, or nobody can say how long it is."""


# -- frames -------------------------------------------------------------------------------------------


def frame_at(data: bytes, start: int) -> dict[str, Any] | None:
    """The good frame that begins at `start`, or None."""
    rest = data[start:]
    if len(rest) < 16 or rest[0] != 0x68 or rest[5] != 0x68:
        return None
    if rest[1] != rest[3] or rest[2] != rest[4]:
        return None
    length = rest[1] + 256 * rest[2]
    identity = length % 4
    count = length // 4
    if identity not in (1, 2) or count < 8 or len(rest) < count + 8:
        return None
    if rest[7 + count] != 0x16:
        return None
    total = 0
    for byte in rest[6 : 6 + count]:
        total = (total + byte) % 256
    if total != rest[6 + count]:
        return None
    user = rest[6 : 6 + count]
    control, seq = user[0], user[7]
    body = user[8:]
    tp = None
    if seq >= 128 and len(body) >= 10:
        tp = body[-6:]
        body = body[:-6]
    ec = None
    if control >= 128 and control // 32 % 2 == 1 and len(body) >= 6:
        ec = (body[-2], body[-1])
        body = body[:-2]
    return {
        "start": start,
        "size": count + 8,
        "terminal": f"{user[2]:02x}{user[1]:02x}{user[4]:02x}{user[3]:02x}",
        "up": control >= 128,
        "prm": control // 64 % 2 == 1,
        "acd": control // 32 % 2 == 1,
        "fcv": control // 16 % 2 == 1,
        "function": control % 16,
        "msa": user[5] // 2,
        "group": user[5] % 2 == 1,
        "afn": user[6],
        "tpv": seq // 128 % 2 == 1,
        "fir": seq // 64 % 2 == 1,
        "fin": seq // 32 % 2 == 1,
        "con": seq // 16 % 2 == 1,
        "pseq": seq % 16,
        "body": body,
        "ec": ec,
        "tp": tp,
        "protocol_id": identity,
    }


def frames(data: bytes) -> list[dict[str, Any]]:
    """All good frames from left to right, none inside another."""
    found = []
    at = 0
    while at < len(data):
        frame = frame_at(data, at)
        if frame is None:
            at += 1
        else:
            found.append(frame)
            at += frame["size"]
    return found


# -- formats ------------------------------------------------------------------------------------------


def two_digits(byte: int) -> int:
    high, low = byte // 16, byte % 16
    if high > 9 or low > 9:
        raise Bad(f"{byte:02x}")
    return 10 * high + low


def no_value(field: bytes) -> bool:
    return any(byte == 0xEE for byte in field) or all(byte == 0xEF for byte in field)


def number(field: bytes) -> int | None:
    if no_value(field):
        return None
    value = 0
    for byte in reversed(field):
        value = value * 100 + two_digits(byte)
    return value


def a14(field: bytes) -> int | None:
    return number(field)


def a11(field: bytes) -> int | None:
    value = number(field)
    return None if value is None else value * 100


def _real(year: int, month: int, day: int, hour: int, minute: int, second: int) -> tuple[int, ...]:
    if hour > 23 or minute > 59 or second > 59:
        raise Bad("time of day")
    try:
        date(2000 + year, month, day)
    except ValueError as error:
        raise Bad("date") from error
    return year, month, day, hour, minute, second


def _nothing(field: bytes) -> bool:
    return no_value(field) or field == bytes(len(field))


def a1(field: bytes) -> tuple[tuple[int, ...] | None, int]:
    if _nothing(field):
        return None, 0
    weekday, month = field[4] // 32, two_digits(field[4] % 32)
    second, minute, hour, day = (two_digits(byte) for byte in field[:4])
    return _real(two_digits(field[5]), month, day, hour, minute, second), weekday


def a15(field: bytes) -> tuple[int, ...] | None:
    if _nothing(field):
        return None
    minute, hour, day, month, year = (two_digits(byte) for byte in field)
    return _real(year, month, day, hour, minute, 0)


def a20(field: bytes) -> tuple[int, ...] | None:
    if _nothing(field):
        return None
    day, month, year = (two_digits(byte) for byte in field)
    return _real(year, month, day, 0, 0, 0)[:3]


def a21(field: bytes) -> tuple[int, ...] | None:
    if _nothing(field):
        return None
    month, year = (two_digits(byte) for byte in field)
    return _real(year, month, 1, 0, 0, 0)[:3]


def characters(field: bytes) -> str:
    while field and field[-1] in (0x00, 0x20):
        field = field[:-1]
    return "".join(chr(byte) for byte in field)


def address(field: bytes) -> str:
    return "".join(f"{byte:02x}" for byte in reversed(field))


def low_first(field: bytes) -> int:
    value = 0
    for byte in reversed(field):
        value = value * 256 + byte
    return value


class Bytes:
    """A reader from left to right; Cut where there is nothing left."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise Cut
        taken = self.data[self.at : self.at + count]
        self.at += count
        return taken

    def one(self) -> int:
        return self.take(1)[0]

    def two(self) -> int:
        return low_first(self.take(2))


# -- units --------------------------------------------------------------------------------------------


def points(da: bytes) -> list[int]:
    if da == b"\0\0":
        return [0]
    if len(da) < 2 or da[1] == 0:
        return []
    return [8 * (da[1] - 1) + bit + 1 for bit in range(8) if da[0] // 2**bit % 2]


def classes(dt: bytes) -> list[int]:
    if len(dt) < 2:
        return []
    return [8 * dt[1] + bit + 1 for bit in range(8) if dt[0] // 2**bit % 2]


DAY_ACTIVE = (161, 163, 169, 171)
DAY_REACTIVE = (162, 164, 165, 166, 167, 168, 170, 172, 173, 174, 175, 176)
MONTH_ACTIVE = (177, 179)
MONTH_REACTIVE = (178, 180, 181, 182, 183, 184)
DAY_SETS = (1, 2, 9, 10)
MONTH_SETS = (17, 18)

Form = Callable[[bytes], Any]


def energy_forms(afn: int, fn: int) -> tuple[int, list[tuple[int, Form]]] | None:
    """(length of the tag, [(bytes, format) of each set of registers]); None where Fn has no registers."""
    active: tuple[int, Form] = (5, a14)
    reactive: tuple[int, Form] = (4, a11)
    sets = [active, reactive, reactive, reactive]
    if afn == 0x0C:
        table = {0: ((129, 131), [active]), 1: ((130, 132, 133, 134, 135, 136), [reactive])}
        for fns, forms in table.values():
            if fn in fns:
                return 0, forms
    if afn == 0x0D:
        for length, fns, forms in (
            (3, DAY_ACTIVE, [active]),
            (3, DAY_REACTIVE, [reactive]),
            (3, DAY_SETS, sets),
            (2, MONTH_ACTIVE, [active]),
            (2, MONTH_REACTIVE, [reactive]),
            (2, MONTH_SETS, sets),
        ):
            if fn in fns:
                return length, forms
    return None


def is_built(afn: int, fn: int, up: bool) -> bool:
    """Whether this decoder knows the unit."""
    if afn in (0x0C, 0x0D) and energy_forms(afn, fn) is not None:
        return up or afn == 0x0D
    up_only = {(0x02, 1), (0x02, 3), (0x09, 1), (0x09, 2), (0x09, 3), (0x0C, 2), (0x0C, 11)}
    down_only = {(0x04, 10), (0x05, 31)}
    both = {(0x00, 3), (0x0A, 10), (0x0E, 1), (0x0E, 2), (0x10, 1)}
    return (afn, fn) in both or (afn, fn) in (up_only if up else down_only)


def units(frame: dict[str, Any]) -> tuple[list[Unit], bool]:
    """The frame's units up to the first that this decoder cannot read past; whether that was all."""
    if frame["up"] and frame["afn"] == 0x0D:
        phases = _phases(frame["body"])
        if phases is not None and any(phase is not None for unit in phases for phase in unit[2][2]):
            return phases, True
    return _walk(frame)


def _walk(frame: dict[str, Any]) -> tuple[list[Unit], bool]:
    body, afn, up = frame["body"], frame["afn"], frame["up"]
    found: list[Unit] = []
    lengths: dict[int, int] = {}
    at = 0
    while at < len(body):
        if found and not up and afn in (1, 4, 5, 6, 15, 16) and len(body) - at in (2, 16):
            return found, True
        pns, fns = points(body[at : at + 2]), classes(body[at + 2 : at + 4])
        if not pns or not fns:
            return found, False
        at += 4
        shared = not up and afn in (0x0C, 0x0D)
        first = at
        for pn in pns:
            for fn in fns:
                if shared:
                    at = first
                if not is_built(afn, fn, up):
                    return found, False
                try:
                    end = at + _length(afn, fn, up, body, at, lengths, bool(found))
                except Cut:
                    return found, False
                data = body[at:end]
                value: Any
                try:
                    value = _value(afn, fn, up, data) if data else None
                except (Bad, Cut):
                    value = Bad
                found.append((pn, fn, value, data, at))
                at = end
    return found, True


def _length(afn: int, fn: int, up: bool, body: bytes, at: int, lengths: dict[int, int], others: bool) -> int:
    left = len(body) - at
    length = _plain_length(afn, fn, up, body, at, left)
    if length is None:
        length = _energy_length(afn, fn, body, at, lengths, others)
    if length > left:
        raise Cut
    return length


def _plain_length(afn: int, fn: int, up: bool, body: bytes, at: int, left: int) -> int | None:
    reader = Bytes(body, at)
    if afn == 0x00 or (afn, fn) in ((0x02, 1), (0x09, 3)):
        return left
    if (afn, fn) == (0x02, 3):
        return 6 if left else 0
    if (afn, fn) in ((0x05, 31), (0x0C, 2)):
        return 6
    if afn == 0x0E:
        return _events_length(body, at) if up else 2
    if (afn, fn) == (0x09, 1):
        return 41
    if (afn, fn) == (0x09, 2):
        reader.take(16)
        return 17 + 12 * reader.one()
    if (afn, fn) == (0x0C, 11):
        return 1 + 19 * reader.one()
    if afn in (0x04, 0x0A):
        return 2 + (27 if afn == 0x04 or up else 2) * reader.two()
    if afn == 0x10:
        reader.take(1 if up else 4)
        return (3 if up else 6) + reader.two()
    if afn == 0x0D and not up:
        forms = energy_forms(afn, fn)
        assert forms is not None
        return forms[0]
    return None


def _events_length(body: bytes, at: int) -> int:
    left = len(body) - at
    if left < 5:
        return 4
    count = body[at + 3] - body[at + 2]
    if count < 0:
        count += 256
    if count == 0:
        if body[at + 4 : at + 6] == b"\0\0" and body[at + 6 : at + 8] in (b"\1\0", b"\2\0", b"\3\0"):
            return 4
        count = 256
    place = at + 4
    for _ in range(count):
        if place + 2 > len(body) or place + 2 + body[place + 1] > len(body):
            return left
        place += 2 + body[place + 1]
    return place - at


def _events(data: bytes) -> Any:
    """Counters, pointers, (ERC, body) of every record, and what is left over."""
    count = (data[3] - data[2]) % 256 or 256
    records: list[tuple[int, bytes]] = []
    place = 4
    while len(records) < count and place + 1 < len(data) and place + 2 + data[place + 1] <= len(data):
        records.append((data[place], data[place + 2 : place + 2 + data[place + 1]]))
        place += 2 + data[place + 1]
    return (*data[:4], tuple(records), data[place:])


def _energy_length(afn: int, fn: int, body: bytes, at: int, lengths: dict[int, int], others: bool) -> int:
    forms = energy_forms(afn, fn)
    assert forms is not None
    before = forms[0] + 5
    each = sum(width for width, _ in forms[1])
    reader = Bytes(body, at)
    reader.take(before)
    tariffs = reader.one()
    if tariffs not in (0xEE, 0xEF):
        if tariffs > 63:
            raise Cut
        lengths[fn] = before + 1 + each * (tariffs + 1)
        return lengths[fn]
    run = before + 1
    while at + run < len(body) and body[at + run] == tariffs:
        run += 1
    usual = before + 1 + each * 5
    for length in (run, lengths.get(fn, usual), usual):
        if at + length == len(body):
            return length
        pns, fns = (
            points(body[at + length : at + length + 2]),
            classes(body[at + length + 2 : at + length + 4]),
        )
        if pns and fns and all((afn, one) in _LISTED for one in fns):
            return length
    if others:
        raise Cut
    return len(body) - at


def _phases(body: bytes) -> list[Unit] | None:
    found: list[Unit] = []
    if not body or len(body) % 27:
        return None
    for at in range(0, len(body), 27):
        pns, fns = points(body[at : at + 2]), classes(body[at + 2 : at + 4])
        if len(pns) != 1 or len(fns) != 1 or fns[0] not in DAY_ACTIVE:
            return None
        data = body[at + 4 : at + 27]
        try:
            value = (a20(data[:3]), a15(data[3:8]), (a14(data[8:13]), a14(data[13:18]), a14(data[18:])))
        except Bad:
            return None
        found.append((pns[0], fns[0], value, data, at + 4))
    return found


def _value(afn: int, fn: int, up: bool, data: bytes) -> Any:
    reader = Bytes(data)
    forms = energy_forms(afn, fn)
    if afn in (0x0C, 0x0D) and forms is not None and up:
        return _energy(reader, *forms)
    if afn == 0x0D:
        return ((a20 if len(data) == 3 else a21)(data),)
    if (afn, fn) in ((0x02, 3), (0x05, 31), (0x0C, 2)):
        return a1(data)
    if (afn, fn) == (0x02, 1):
        return (data,)
    if afn == 0x00:
        return _confirm(reader)
    if afn == 0x04 or (afn == 0x0A and up):
        return (tuple(_record(reader) for _ in range(reader.two())),)
    if afn == 0x0A:
        return (tuple(reader.two() for _ in range(reader.two())),)
    if afn == 0x09:
        return _configuration(fn, reader)
    if afn == 0x0E:
        return _events(data) if up else (data[0], data[1])
    if afn == 0x0C:
        return (tuple(_progress(reader) for _ in range(reader.one())),)
    port = reader.one()
    options = () if up else (reader.one(), reader.one(), reader.one())
    return (port, *options, reader.take(reader.two()))


def _energy(reader: Bytes, tag_length: int, forms: list[tuple[int, Form]]) -> Any:
    value: list[Any] = []
    if tag_length:
        value.append((a20 if tag_length == 3 else a21)(reader.take(tag_length)))
    value.append(a15(reader.take(5)))
    tariffs = reader.one()
    for width, form in forms:
        count = 0 if tariffs in (0xEE, 0xEF) else tariffs + 1
        value.append(tuple(form(reader.take(width)) for _ in range(count)))
    return tuple(value)


def _confirm(reader: Bytes) -> Any:
    afn = reader.one()
    results = []
    while reader.at < len(reader.data):
        da, dt, error = reader.take(2), reader.take(2), reader.one()
        results += [(pn, fn, error) for pn in points(da) for fn in classes(dt)]
    return afn, tuple(results)


def _record(reader: Bytes) -> Any:
    sequence, pn, line, protocol = reader.two(), reader.two(), reader.one(), reader.one()
    meter, password = address(reader.take(6)), reader.take(6)
    tariffs, digits, collector, user_class = reader.one(), reader.one(), address(reader.take(6)), reader.one()
    baud = [0, 600, 1200, 2400, 4800, 7200, 9600, 19200][line // 32]
    integer, decimal = digits // 4 % 4 + 4, digits % 4 + 1
    head = (sequence, pn, line % 32, baud, protocol, meter, tariffs % 64, collector, user_class)
    return (*head, password, integer, decimal)


def _configuration(fn: int, reader: Bytes) -> Any:
    if fn == 1:
        vendor, device, software = (characters(reader.take(count)) for count in (4, 8, 4))
        software_date = a20(reader.take(3))
        capacity, protocol, hardware = (characters(reader.take(count)) for count in (11, 4, 4))
        return vendor, device, software, software_date, capacity, protocol, hardware, a20(reader.take(3))
    if fn == 2:
        head = [reader.one() for _ in range(4)] + [reader.two() for _ in range(3)]
        mac = reader.take(6).hex()
        ports = []
        for _ in range(reader.one()):
            word, baud = reader.two(), low_first(reader.take(4))
            ports.append((word, baud, reader.two(), reader.two(), reader.two()))
        return (*head, mac, tuple(ports))
    return (reader.two(), reader.one(), reader.one(), reader.one(), reader.take(len(reader.data) - reader.at))


def _progress(reader: Bytes) -> Any:
    port, total, flags, read, key = reader.one(), reader.two(), reader.one(), reader.two(), reader.one()
    return port, total, flags, read, key, a1(reader.take(6))[0], a1(reader.take(6))[0]
