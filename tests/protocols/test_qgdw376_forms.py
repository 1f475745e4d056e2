"""The form language, and every row by it: made values there and back, and lengths by the sheet."""

from __future__ import annotations

import csv
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import LocalProtocolError, RemoteProtocolError
from protocols.q_gdw376 import grammar, units
from protocols.q_gdw376.fields import Field, Fields
from protocols.q_gdw376.forms import Form, compile_form
from protocols.q_gdw376.frame import Frame
from protocols.q_gdw376.grammar import Count, Leaf, Part, Repeat
from protocols.q_gdw376.items import ITEMS, Item, form_of
from protocols.q_gdw376.layouts import LAYOUTS

# -- the language -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "raw", "plain"),
    [
        ("none", "", {}),
        ("a:BIN1 + b/名:A7[V]", "05 0022", {"a": 5, "b": Decimal("220.0")}),
        ("rest", "0102", {"rest": b"\1\2"}),
        ("a:BIN1 + tail/尾:REST", "01", {"a": 1, "tail": b""}),
        ("n:BIN1 + port:n*(p:BIN1)", "02 0102", {"n": 2, "port": [1, 2]}),
        ("n:BIN1 + n*(p:BIN1)", "02 0102", {"n": 2, "p": [1, 2]}),
        ("n:BIN1 + n*(p:BIN1 + q:BIN1)", "01 0102", {"n": 1, "items": [{"p": 1, "q": 2}]}),
        (
            "2*(a:BIN1 + b:BIN1) + 1*(a:BIN1 + b:BIN1)",
            "0102 0304 0506",
            {"items": [{"a": 1, "b": 2}, {"a": 3, "b": 4}], "items_2": [{"a": 5, "b": 6}]},
        ),
        ("M:BIN1 + M+1*(t:A22)", "01 12 34", {"M": 1, "t": [Decimal("1.2"), Decimal("3.4")]}),
        ("N:BIN1 + N-1*(t:A22)", "02 12", {"N": 2, "t": [Decimal("1.2")]}),
        ("mask:BS1 + bits(mask)*(x:BIN1)", "05 0708", {"mask": 5, "x": [7, 8]}),
        ("td_h + x:n*(v:A8)", "23 03 0100", {"hour": "23", "density": 3, "x": [1]}),
        ("d:BIN1 + hourly(d)*(v:BIN1)", "02 0304", {"d": 2, "v": [3, 4]}),
        (
            "td_c + n*(v:A22)",
            "4512160415 01 02 12 34",
            {
                "start": datetime(2015, 4, 16, 12, 45),
                "density": 1,
                "n": 2,
                "v": [Decimal("1.2"), Decimal("3.4")],
            },
        ),
        (
            "head:BS1{0-6:n|7:on} + n*(x:BIN1)",
            "82 0708",
            {"head": {"n": 2, "on": 1}, "x": [7, 8]},
        ),
        ("w:BS2{0-3:w 10 s|15:top}", "0580", {"w": {"w": 5, "top": 1}}),
        ("w:BS1{0:a}", "07", {"w": {"a": 1, "other_bits": 6}}),
        ("k:BIN1 + t:TEXT@k + r:BIN1", "02 4142 09", {"k": 2, "t": "AB", "r": 9}),
        ("k:BIN1 + di:BYTES2 + t:BYTES@k-2", "04 0102 0304", {"k": 4, "di": b"\1\2", "t": b"\3\4"}),
        ("n:BIN1 + t:GB@n", "04 b5e7 b1ed", {"n": 4, "t": "电表"}),
        ("n:BIN1 + t:GB@n", "02 ffff", {"n": 2, "t": b"\xff\xff"}),
        ("t:GB6", "b5e700000000", {"t": "电"}),
        ("**(a:BIN1 + n:BIN1 + t:BYTES@n)", "0101aa 0200", {"items": [
            {"a": 1, "n": 1, "t": b"\xaa"}, {"a": 2, "n": 0, "t": b""}]}),
        ("m:BIN1 + x:m*(n:BIN1 + y:n*(z:BIN1))", "02 0105 020607", {"m": 2, "x": [
            {"n": 1, "y": [5]}, {"n": 2, "y": [6, 7]}]}),
        ("a:INT2", "feff", {"a": -2}),
        ("a:INT2 + b:BIN1", "eeee01", {"a": None, "b": 1}),
        ("a:BCD2 + b:BIN1", "eeee01", {"a": None, "b": 1}),
        ("a:BCD3", "563412", {"a": "123456"}),
        ("a:ASCII4", "41420000", {"a": "AB"}),
        ("a:IP", "0a000001", {"a": "10.0.0.1"}),
        ("a:DADT", "03020114", {"a": ((9, 161), (10, 161))}),
        ("a:BIN2 + b:BIN1", "eeee ee", {"a": None, "b": None}),
        ("a:BIN1 + b:BIN1", "01 ee", {"a": 1, "b": 238}),
        ("td_d:A20 + a:BIN1 + b:BIN1", "231126 eeee", {"td_d": date(2026, 11, 23), "a": None, "b": None}),
    ],
)  # fmt: skip
def test_a_form_reads_and_writes(form: str, raw: str, plain: dict[str, object]) -> None:
    compiled, data = compile_form(form), bytes.fromhex(raw)
    found = compiled.decode(data)
    assert found.plain() == plain
    assert compiled.encode(found) == data
    assert compiled.encode(plain) == data


@pytest.mark.parametrize(
    "form",
    [
        "", "a", "a:B", "a:A28", "a:A0", "a:BIN0", "a:BIN1 +", "a:BIN1 b:BIN1", "a:BIN1 + a:BIN1",
        "n*(a:BIN1)", "n:A8 + n*(a:BIN1)", "n:BIN1 + n*(a:BIN1", "n:BIN1 + n*()", "**(a:BIN1) + b:BIN1",
        "rest + a:BIN1", "n:BIN1 + n*(rest)", "n:BIN1 + n*(t:BYTES@n)", "a:TEXT", "a:BIN1@3", "a:REST@n",
        "a:BIN1{0:x}", "a:BS1{8:x}", "a:BS1{0-3:x|3:y}", "a:BS1{3-0:x}", "a:BS1{0:x|1:x}", "a:BS1{x}",
        "{2009 a:BIN1", "_a:BIN1", "n:BIN1 + **(n*(a:BIN1))",
    ],
)  # fmt: skip
def test_what_is_no_form_is_refused(form: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        compile_form(form)


def test_a_field_tells_its_place_its_bytes_and_its_names() -> None:
    form = compile_form("n/数:BIN1 + r/记录:n*(p/端口:BIN1 + u/电压:A7[V] + w/字:BS1{0:a/甲 s|4-7:b})")
    found = form.decode(bytes.fromhex("02 01 0022 f1 02 0023 01"), base=10)
    first, second = found.field("r").repeats or ()
    assert found.field("n") == Field("n", "数", 2, "", 10, b"\2", "BIN1")
    assert (found.field("r").offset, found.field("r").raw.hex()) == (11, "010022f102002301")
    assert first.field("u") == Field("u", "电压", Decimal("220.0"), "V", 12, b"\x00\x22", "A7")
    assert (second.field("p").offset, second["p"], second.get("q")) == (15, 2, None)
    bits = first["w"]
    assert isinstance(bits, Fields)
    assert bits.fields == (
        Field("a", "甲", 1, "s", 14, b"\xf1", "D0"),
        Field("b", "", 15, "", 14, b"\xf1", "D7-D4"),
    )
    assert list(found.flat())[:4] == [("n", 2, ""), ("r 1 p", 1, ""), ("r 1 u", Decimal("220.0"), "V"),
                                      ("r 1 w a", 1, "s")]  # fmt: skip
    with pytest.raises(KeyError):
        found["x"]


def test_damage_names_the_field_and_its_place() -> None:
    with pytest.raises(RemoteProtocolError) as told:
        compile_form("a:A5 + power:A11").decode(bytes.fromhex("1234 0a112233"))
    assert (told.value.offset, told.value.reason) == (2, "power: not BCD: 0a 11 22 33")
    for raw in ("12", "1234567890aabb"):
        with pytest.raises(RemoteProtocolError):
            compile_form("a:A5 + power:A11").decode(bytes.fromhex(raw))
    with pytest.raises(RemoteProtocolError):
        compile_form("d:BIN1 + hourly(d)*(v:BIN1)").decode(b"\x07\x00")
    with pytest.raises(RemoteProtocolError, match="64 tariffs"):
        compile_form("M:BIN1 + M*(v:BIN1)").decode(b"\x40" + bytes(64))


@pytest.mark.parametrize(
    ("form", "values"),
    [
        ("a:BIN1", {}),
        ("a:BIN1", {"a": [1]}),
        ("n:BIN1 + n*(p:BIN1)", {"n": 0}),
        ("n:BIN1 + n*(p:BIN1 + q:BIN1)", {"items": {"p": 1}}),
        ("w:BS1{0-3:a}", {"w": "x"}),
        ("w:BS1{0-3:a}", {"w": 256}),
        ("k:BIN1 + t:BYTES@k", {"k": 0}),
        ("k:BIN1 + t:BYTES@k", {"t": 5}),
        ("k:BIN1 + t:TEXT@k", {"t": b"a"}),
        ("k:BIN1 + t:GB@k", {"t": 5}),
        ("t:BCD2", {"t": "12x4"}),
        ("t:BCD2", {"t": 12345}),
        ("t:DADT", {"t": 5}),
        ("t:DADT", {"t": (1, 2)}),
        ("a:BIN1", {"a": 256}),
        ("a:BIN1", {"a": True}),
        ("a:BIN1", {"a": "x"}),
        ("a:BIN1", {"a": 1, "b": 2}),
        ("n:BIN1 + n*(p:BIN1)", {"n": 3, "p": [1, 2]}),
        ("n:BIN1 + n*(p:BIN1)", {"p": 1}),
        ("n:BIN1 + n*(p:BIN1 + q:BIN1)", {"items": [1]}),
        ("n:BIN1 + a:n*(p:BIN1) + b:n*(p:BIN1)", {"a": [1], "b": [1, 2]}),
        ("m:BS1 + bits(m)*(x:BIN1)", {"m": 3, "x": [1]}),
        ("td_h + n*(v:BIN1)", {"hour": "01", "density": 9, "v": []}),
        ("w:BS1{0-3:a}", {"w": {"a": 16}}),
        ("w:BS1{0-3:a}", {"w": {}}),
        ("w:BS1{0-3:a}", {"w": {"a": 1, "b": 1}}),
        ("w:BS1{0-3:n} + n*(x:BIN1)", {"w": {"n": 2}, "x": [1]}),
        ("w:BS1{0-3:a}", {"w": {"a": 1, "other_bits": "x"}}),
        ("M:BIN1 + M*(x:BIN1)", {"x": [1] * 64}),
        ("k:BIN1 + t:TEXT@k", {"t": "x" * 256}),
        ("t:ASCII2", {"t": "abc"}),
        ("t:ASCII2", {"t": "电"}),
        ("t:BYTES2", {"t": b"a"}),
        ("t:IP", {"t": "1.2.3.256"}),
        ("t:DADT", {"t": ((1, 1), (9, 1))}),
        ("t:DADT", {"t": ((1, 1), (2, 2))}),
        ("t:DADT", {"t": ()}),
        ("t:DADT", {"t": ((1, 2049),)}),
        ("t:DADT", {"t": "F1"}),
    ],
)  # fmt: skip
def test_values_that_cannot_be_are_never_written(form: str, values: dict[str, object]) -> None:
    with pytest.raises(LocalProtocolError):
        compile_form(form).encode(values)


def test_values_may_be_told_as_text() -> None:
    form = compile_form(
        "a:BIN2 + b:A7 + c:BYTES2 + d:DADT + e:A1 + f:A20 + g:A21 + w:BS1{0-3:x|4-7:y} + i:INT1"
    )
    told = {
        "a": "0x10", "b": "220.1", "c": "0102", "d": "p9 F161, p10 F161", "e": "2026-11-24 08:15:30",
        "f": "2026-11-24", "g": "2026-11", "w": {"x": "3", "y": 4}, "i": "-1",
    }  # fmt: skip
    assert form.encode(told).hex() == "10000122010203020114301508245126241126112643ff"


def test_a_bit_string_may_be_told_as_a_number_and_digits_too() -> None:
    assert compile_form("w:BS1{0-3:a} + d:BCD2").encode({"w": 0xF5, "d": 123}).hex() == "f52301"


def test_an_alternative_is_told_by_its_length_then_by_the_settings() -> None:
    form = compile_form("{2009} a:BIN1 || {2013} a:BIN2 || {order=last} b:BIN1 + a:BIN1 || {2005} none")
    assert form.decode(b"\1").plain() == {"a": 1}
    assert form.decode(b"\1\2").plain() == {"a": 0x201}
    assert form.decode(b"\1\2", {"version": "2009", "order": "last"}).plain() == {"a": 0x201}
    assert form.decode(b"\1\2", {"version": "2005", "order": "last"}).plain() == {"b": 1, "a": 2}
    assert form.lengths(bytes(9), 0, 9) == (2, 1, 0)
    assert form.lengths(bytes(9), 0, 9, {"version": "2009"}) == (1, 2, 0)
    assert form.encode({"a": 5}) == b"\5\0"
    assert form.encode({"a": 5}, {"version": "2009"}) == b"\5"
    assert form.encode(form.decode(b"\5")) == b"\5"
    assert form.encode({"b": 1, "a": 2}, {"version": "2005", "order": "last"}) == b"\1\2"
    assert form.encode({"b": 1, "a": 2}) == b"\1\2"
    with pytest.raises(LocalProtocolError, match="there is no field c"):
        form.encode({"c": 1})
    assert (form.has_data(), form.has_data({"version": "2005"})) == (True, False)
    assert compile_form("a:BIN1 || {2005} a:BIN2").encode({"a": 1}) == b"\1"
    with pytest.raises(RemoteProtocolError):
        form.decode(b"\1\2\3")


def test_a_filled_number_of_tariffs_is_no_data() -> None:
    form = compile_form("td_d:A20 + M:BIN1 + total:A13 + M*(t:A13)")
    data = bytes.fromhex("231126") + b"\xee" * 21
    found = form.decode(data)
    assert found.plain() == {"td_d": date(2026, 11, 23), "M": None, "no_data": b"\xee" * 20}
    assert form.encode(found) == data
    assert form.encode({"td_d": "2026-11-23", "M": None}) == data
    assert form.filled_tariffs(data, 0, len(data)) == (3, 24)
    assert form.filled_tariffs(bytes(9), 0, 9) is None


def test_what_settles_no_byte_goes_back_as_it_came() -> None:
    """A wrong weekday, zero and half-filled times: read, and written back to the same bytes."""
    form = compile_form("a:A1 + b:A15 + c:A14 + d:A12")
    data = bytes.fromhex("301508241126000000000000eeeeeeee0a0000000000")
    found = form.decode(data)
    assert found.plain() == {
        "a": datetime(2026, 11, 24, 8, 15, 30), "b": None, "c": None, "d": "00000000000a"
    }  # fmt: skip
    assert form.encode(found) == data


@given(
    st.binary(max_size=60),
    st.sampled_from([item for item in ITEMS if form_of(item.afn, item.fn, True) is not None]),
)
def test_any_bytes_are_fields_or_damage(raw: bytes, item: Item) -> None:
    form = form_of(item.afn, item.fn, True)
    assert form is not None
    try:
        found = form.decode(raw)
    except RemoteProtocolError:
        return
    assert form.encode(found) == raw


# -- every row ----------------------------------------------------------------------------------------

_ROWS = [
    (item, up, place)
    for item in ITEMS
    for up in (True, False)
    if (form := form_of(item.afn, item.fn, up)) is not None
    for place, each in enumerate(form.alternatives)
    if each.setting or not place  # else reached by its length only
]
_YEAR = datetime(2026, 1, 1)
_DIGITS = {"A5": (3, 1), "A6": (3, 2), "A7": (4, 1), "A8": (4, 0), "A9": (5, 4), "A10": (6, 0), "A11": (8, 2),
           "A13": (8, 4), "A14": (10, 4), "A22": (2, 1), "A23": (6, 4), "A25": (5, 3), "A26": (4, 3),
           "A27": (8, 0)}  # fmt: skip
_SIGNED = ("A5", "A6", "A9", "A25")


def made_value(leaf: Leaf, chance: random.Random) -> object:
    """A value that the leaf's type can say, by its word alone."""
    word = leaf.type
    at = _YEAR + timedelta(minutes=chance.randrange(525_600))
    if word in _DIGITS:
        digits, decimals = _DIGITS[word]
        sign = -1 if word in _SIGNED and chance.random() < 0.5 else 1
        number = sign * chance.randrange(10**digits)
        return None if chance.random() < 0.1 else Decimal(number).scaleb(-decimals) if decimals else number
    match word:
        case "A1" | "A15":
            return at
        case "A20":
            return at.date()
        case "A2":
            return Decimal(chance.randrange(-999, 1000)).scaleb(chance.randrange(-3, 5))
        case "A3":
            return Decimal(chance.randrange(-9_999_999, 10_000_000)).scaleb(chance.choice((0, 3)))
        case "A4":
            return Decimal(chance.randrange(-79, 80))
        case "A12":
            return f"{chance.randrange(10**12):012d}"
        case "DADT":
            pn, fn = chance.randrange(1, 2041), chance.randrange(1, 249)
            return ((pn, fn),)
        case "IP":
            return ".".join(str(chance.randrange(256)) for _ in range(4))
        case "REST":
            return chance.randbytes(chance.randrange(1, 9))
    times = {"A16": "%d %H:%M:%S", "A17": "%m-%d %H:%M", "A18": "%d %H:%M", "A19": "%H:%M", "A21": "%Y-%m",
             "A24": "%d %H"}  # fmt: skip
    if word in times:
        return at.strftime(times[word])
    length = int(re.sub(r"\D", "", word))
    if word.startswith("BCD"):
        return f"{chance.randrange(10 ** (2 * length)):0{2 * length}d}"
    if word.startswith("ASCII"):
        return "".join(chance.choice("ABC 019") for _ in range(length - 1)) + "Z"
    if word.startswith("BYTES"):
        return chance.randbytes(length)
    assert word.startswith(("BIN", "BS")), word
    return chance.randrange(256**length - 1) % 0xEEEE


def made_count(count: Count, chance: random.Random) -> int:
    if count.by == "hourly":
        return chance.choice((1, 2, 3))
    if count.by == "bits":
        return chance.choice((0, 1, 5, 7, 0x41))
    return max(chance.randrange(4), -count.plus)


def counts_in(parts: tuple[Part, ...]) -> Iterator[Count]:
    for part in parts:
        if part.count is not None and part.count.source:
            yield part.count
        if isinstance(part, Repeat):
            yield from counts_in(part.parts)


def made(
    parts: tuple[Part, ...], chance: random.Random, around: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Names and values of one level, counts among them."""
    scope = dict(around or {})
    sources = {count.source: count for count in counts_in(parts)}
    told: dict[str, Any] = {}
    for part in parts:
        times = 2
        if part.count is not None:
            times = part.count.of(scope[part.count.source] if part.count.source else 0)
        if isinstance(part, Repeat):
            rounds = [made(part.parts, chance, scope) for _ in range(times)]
            told[part.name] = (
                [next(iter(each.values())) for each in rounds] if len(part.parts) == 1 else rounds
            )
        elif part.count is not None:
            told[part.name] = (
                chance.randbytes(times)
                if part.type == "BYTES"
                else "".join(chance.choice("AB") for _ in range(times))
            )
        elif part.bits:
            bits = {}
            for bit in part.bits:
                bits[bit.name] = chance.randrange(1 << bit.width)
                if bit.name in sources:
                    bits[bit.name] = made_count(sources[bit.name], chance)
                scope[bit.name] = bits[bit.name]
            told[part.name] = bits
        elif part.name in sources:
            told[part.name] = scope[part.name] = made_count(sources[part.name], chance)
        else:
            told[part.name] = made_value(part, chance)
    return told


def without_counts(parts: tuple[Part, ...], told: Mapping[str, Any]) -> dict[str, Any]:
    """The same, without the counts that a list or text of the same level tells."""
    known = {part.count.source for part in parts if part.count is not None and not part.count.by}
    return {name: value for name, value in told.items() if name not in known}


@pytest.mark.parametrize(("item", "up", "place"), _ROWS, ids=lambda one: str(getattr(one, "fn", one)))
def test_every_row_goes_there_and_back(item: Item, up: bool, place: int) -> None:
    """Made values, bytes, values; alone and twice in a frame, where the walk must find the second."""
    form = form_of(item.afn, item.fn, up)
    assert form is not None
    alternative = form.alternatives[place]
    variants = {alternative.setting or "version": alternative.word or "none of them"}
    chance = random.Random(f"{item.afn} {item.fn} {up} {place}")
    for _ in range(3):
        told = made(alternative.parts, chance)
        data = form.encode(told, variants)
        assert len(data) >= max(0, grammar.fixed_length(alternative.parts))
        found = form.decode(data, variants)
        assert found.plain() == told
        assert form.encode(found, variants) == data
        assert form.encode(without_counts(alternative.parts, told), variants) == data
        assert len(data) in form.lengths(data, 0, len(data), variants)
        if not form.unknown:
            _stands_in_a_frame(item, form, up, data, told, variants)


def _stands_in_a_frame(
    item: Item, form: Form, up: bool, data: bytes, told: dict[str, Any], variants: Mapping[str, str]
) -> None:
    points = (1,) if form.greedy else (1, 2)
    body = b"".join(units.encode_unit(item.afn, item.fn, pn, told, up, variants) for pn in points)
    password = bytes(range(16)) if not up and item.afn in units.PASSWORD_AFNS else b""
    frame = Frame(terminal="02001234", up=up, prm=not up, function=8, afn=item.afn, body=body + password)
    content = units.read(frame, variants)
    assert [(unit.pn, unit.fn, unit.raw) for unit in content.units] == [(pn, item.fn, data) for pn in points]
    assert content.password == password
    for unit in content.units:
        assert unit.reason is None
        seen = units.view(item.afn, up, unit, variants)
        assert (seen is None) == (not data)
        if seen is not None:
            assert seen.plain() == told
            assert b"".join(field.raw for field in seen) == data
        if (item.afn, item.fn, up) not in LAYOUTS:
            assert unit.value == seen


def test_a_unit_of_unknown_layout_is_kept_apart_from_the_password() -> None:
    """AFN06 F11: nobody here knows its data; PW has 16 bytes, in 130-2005 two."""
    data, password = b"\x00\x00\x04\x01" + b"cipher", bytes(range(16))
    frame = Frame(terminal="02001234", up=False, prm=True, function=10, afn=0x06, body=data + password)
    content = units.read(frame)
    assert [(unit.fn, unit.value, unit.raw) for unit in content.units] == [(11, None, b"cipher")]
    assert (content.units[0].reason, content.password, content.whole) == ("length not known", password, False)
    assert units.view(0x06, False, content.units[0]) is None
    content = units.read(replace(frame, protocol_id=1))
    assert (content.units[0].raw, content.password) == (b"cipher" + password[:-2], password[-2:])
    content = units.read(replace(frame, body=data))
    assert (content.units[0].raw, content.password) == (b"cipher", b"")


def test_a_damaged_unit_has_no_view() -> None:
    damaged = Frame(terminal="02001234", up=True, prm=False, function=8, afn=0x0C,
                    body=bytes.fromhex("000002009a0000000000"))  # fmt: skip
    (unit,) = units.decode(damaged)
    assert unit.reason is not None
    assert units.view(0x0C, True, unit) is None
    assert units.view(0x0C, True, replace(unit, fn=200)) is None


def test_three_phases_under_a_tariff_class_have_a_view() -> None:
    body = bytes.fromhex("010101142311260500241126" + "0056341200" * 3)
    frame = Frame(terminal="02001234", up=True, prm=False, function=8, afn=0x0D, body=body)
    (unit,) = units.decode(frame)
    seen = units.view(0x0D, True, unit)
    assert seen is not None
    assert [value for _, value, _ in seen.flat()][2:] == [Decimal("1234.5600")] * 3


# -- lengths by the sheet -----------------------------------------------------------------------------

_SHEET = list(
    csv.DictReader((Path(__file__).parent / "qgdw376_sheet.csv").read_text(encoding="utf-8").splitlines())
)
# What the names of a length stand for where every count of a form is 3: a bit string of 3 has two bits set,
# a density of 3 is one value an hour, and 0C F57 counts from the second harmonic.
_THREE = dict.fromkeys(("n", "m", "k", "M", "N", "ok", "len"), 3)
# AFN10 F9 counts four bytes of its own, and a list to the frame's end has no count.
_OTHERWISE = {
    ("00", "F3", "both"): {"n": 0},
    ("0C", "F5", "up"): {"k": 2},
    ("0C", "F6", "up"): {"k": 2},
    ("10", "F9", "up"): {"k": 0},
}
_TOLD_IN_WORDS = {"1+sum(14+4m)": {1 + 3 * (14 + 4 * 3)}}
_NOT_TOLD = ("var", "7+ln+40n")


def told_lengths(row: Mapping[str, str]) -> set[int]:
    """Every length that the sheet allows where all counts are 3."""
    if row["length"] in _TOLD_IN_WORDS:
        return _TOLD_IN_WORDS[row["length"]]
    names = _THREE | _OTHERWISE.get((row["afn"], row["fn"], row["direction"]), {})
    if row["fields"].startswith("Td_h"):
        names["n"] = 1
        names["len"] = 2 if "A.2" in row["fields"] else 4
    tag = {"Td_d": 3, "Td_m": 2}.get(row["fields"][:4], 0)
    lengths = set()
    for told in re.sub(r"\(20\d\d\)", "", row["length"]).split("|"):
        sum_ = re.sub(r"tag", str(tag), told.strip())
        sum_ = re.sub(r"(\d)(?=[a-zA-Z(])", r"\1*", sum_).replace(" x ", "*")
        total = 0
        for part in re.split(r"\+(?![^(]*\))", sum_):
            product = 1
            for factor in part.split("*"):
                inner = re.fullmatch(r"\(?(\w+)([+-]\d)?\)?", factor.strip())
                assert inner is not None, row
                value = names[inner[1]] if inner[1] in names else int(inner[1])
                product *= value + int(inner[2] or 0)
            total += product
        lengths.add(total)
    return lengths


def our_lengths(form: Form) -> set[int]:
    counts = {
        count.source: max(3, -count.plus) for each in form.alternatives for count in counts_in(each.parts)
    }
    return {form.length(counts, {each.setting: each.word}) for each in form.alternatives}


_TOLD = [row for row in _SHEET if row["length"] not in _NOT_TOLD]


@pytest.mark.parametrize("row", _TOLD, ids=lambda row: f"{row['afn']}-{row['fn']}-{row['direction']}")
def test_a_rows_length_is_the_sheets(row: dict[str, str]) -> None:
    afn, fn = int(row["afn"], 16), int(row["fn"][1:])
    ways = [form for up in (True, False) if (form := form_of(afn, fn, up)) is not None]
    if row["direction"] != "both":
        ways = [form for form in (form_of(afn, fn, row["direction"] == "up"),) if form is not None]
    ours = set().union(*map(our_lengths, ways))
    assert told_lengths(row) <= ours or (told_lengths(row) & ours and "|" in row["length"])


def test_the_sheet_and_the_list_have_the_same_rows() -> None:
    ours = [(f"{item.afn:02X}", f"F{item.fn}", item.direction) for item in ITEMS]
    assert ours == [(row["afn"], row["fn"], row["direction"]) for row in _SHEET]


def test_most_rows_have_a_length_and_few_have_no_form() -> None:
    assert len(_TOLD) == 465
    unknown = {(item.afn, item.fn) for item in ITEMS if item.form == "rest"}
    assert {afn for afn, _ in unknown} <= {0x02, 0x06, 0x09, 0x0C, 0x0D, 0x10}
    assert len(unknown) < 20
    confirmed = {(item.afn, item.fn) for item in ITEMS if item.confidence == "confirmed"}
    assert not confirmed & unknown


def test_a_wrong_form_would_be_noticed() -> None:
    """The checks themselves: a row one byte too wide fails the sheet, a lost count fails the way back."""
    (row,) = [row for row in _SHEET if (row["afn"], row["fn"]) == ("0C", "F129")]
    right = form_of(0x0C, 129, True)
    assert right is not None
    assert told_lengths(row) & our_lengths(right) == {26}
    assert not told_lengths(row) & our_lengths(compile_form(right.text.replace("A14", "A11")))
