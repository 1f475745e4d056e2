"""Every good field frame: what `lingdian decode --json` says of it, and the same bytes written again.

The two lists of exceptions stand first, each with its reason: where the file's own decoding does not hold,
and which frames are not written again from what they say.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from protocols.dlt645 import control, items, messages
from protocols.dlt645 import frame as dlt645
from protocols.dlt645.commands import Command
from protocols.dlt645.control_messages import RelayCommand, SecurityRequest
from protocols.errors import LocalProtocolError, RemoteProtocolError
from protocols.permit import Permit
from protocols.q_gdw376 import frame as q_gdw376
from protocols.q_gdw376.messages import encode_unit, read
from tests.protocols.vectors import Vector, valid

# -- the file's decoding ------------------------------------------------------------------------------

# Where the file's own decoding does not hold: id -> key -> (what it says, what the standard says, why).
DISPUTED: dict[str, dict[str, tuple[Any, Any, str]]] = {
    "m07-027": {
        "unit": (
            "kWh",
            "kvarh",
            "DI 00440000: DI2 = 44 is phase C, QIV reactive (2007 annex A); no source key of the file",
        )
    },
}

# Whole frames that the file calls good and we do not: id -> why.
REFUSED = {"gw-114": "protocol id 3 in D1-D0 of L is reserved, and the file itself cannot name its point"}

# Keys of the file that are not in our answer: key -> why.
OTHER_KEYS = {
    "inner645": "the forwarded frame's hex once more: decoded under `inner`",
    "note": "a remark of the file's collector",
    **dict.fromkeys(("a1", "a2", "a2_hex"), "the two halves of `terminal`"),
    "seq": "the byte of `tpv`, `fir`, `fin`, `con`, `pseq`",
    "payload": "the body's hex: the bytes of `units`",
    "missing_marker": "the filler of registers that are null here",
    **dict.fromkeys(("C041", "C043", "C044", "C045"), "parts of the maker's own item C04F, not described"),
    **dict.fromkeys(("seconds", "offline"), "data of the vendor's own AFN FE, not described"),
}

# -- writing again ------------------------------------------------------------------------------------

_NO_WILDCARD = "a write goes to one meter, never to a wildcard or to all"
_NOT_UNDERSTOOD = "what it orders is not known, and such a request is never sent"
_UNFIT = "its data do not fit its function: "
_BAD_VALUE = "the frame is written again, its data are no value of the item: "

# Frames that are not written again from what they say, byte for byte: id -> why. `frame.build` writes every
# one of them; a permit for the action is given where one is needed.
NOT_REBUILT = {
    "m07-051": "relay command: N2 is 01 where it is reserved",
    "m07-052": "relay command: N2 is 01 where it is reserved",
    "m07-087": "relay command: six zero bytes are no deadline",
    "m07-088": "relay command: six zero bytes are no deadline",
    "m07-090": "relay command: six zero bytes are no deadline",
    "m07-102": _UNFIT + "1CH of 9 bytes has no deadline",
    "m07-162": "no security command has DI 07000001",
    "m07-163": "no security command has DI 07000002",
    "m07-164": "no security command has DI 07000003",
    "m07-139": _NO_WILDCARD,
    "m07-168": _NO_WILDCARD + ", and PA 39H is no level",
    "m97-067": _NO_WILDCARD,
    "m07-098": _UNFIT + "08H without a time",
    "m07-107": _UNFIT + "08H whose month is 34H",
    "m07-122": _UNFIT + "12H without SEQ",
    "m07-137": _UNFIT + "17H whose word is no rate",
    "m07-184": _UNFIT + "18H without data",
    "m07-136": _NOT_UNDERSTOOD + ": 2007 function 00H",
    "m07-119": _NOT_UNDERSTOOD + ": 2007 function 03H with D5 of C set, which a master never does",
    "m07-120": _NOT_UNDERSTOOD + ": 2007 function 03H with D5 of C set, which a master never does",
    "m97-073": _NOT_UNDERSTOOD + ": 1997 function 05H",
    "m97-074": _NOT_UNDERSTOOD + ": 1997 function 05H",
    "m07-021": _BAD_VALUE + "3 bytes of a voltage, which has 2",
    "m07-045": _BAD_VALUE + "a nibble EH in BCD",
    "m07-067": _BAD_VALUE + "4 bytes of a voltage, which has 2",
    "m07-133": _BAD_VALUE + "5 bytes of an energy, which has 4",
    "m07-172": _BAD_VALUE + "27 bytes of an energy",
    "gw-088": "vendor's AFN0C F1002: there is no such class",
    "gw-107": "vendor's AFN FE: its identifier names no point or class",
    "gw-108": "vendor's AFN FE: its identifier names no point or class",
}

# What is written again as it came, not from a meaning: a class that is not in the list of items, an answer
# that nobody describes: id -> which.
KEPT_RAW = {
    "m07-054": "91H without a DI",
    "m07-165": "9FH, an event notification of a maker's own",
    "gw-026": "vendor's AFN A4 F12",
    "gw-051": "vendor's AFN0A F50",
    "gw-064": "AFN04 F24",
    "gw-088": "vendor's AFN0C F1002",
    "gw-095": "AFN0F F3",
    "gw-102": "vendor's AFN94 F1",
    "gw-107": "vendor's AFN FE",
    "gw-108": "vendor's AFN FE",
    "gw-115": "AFN0D F96",
}


GOOD = [one for one in valid("dlt645-2007", "dlt645-1997", "qgdw376.1") if one.id not in REFUSED]


@pytest.fixture(scope="module")
def decoded() -> dict[str, dict[str, Any]]:
    """What the program says of every good frame, by id."""
    lines = "\n".join(vector.raw.hex() for vector in GOOD)
    result = CliRunner().invoke(app, ["decode", "--json"], input=lines)
    assert result.exit_code == 0
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert all(len(line["frames"]) == 1 and not line["discarded"] for line in found)
    return {vector.id: line["frames"][0] for vector, line in zip(GOOD, found, strict=True)}


@pytest.mark.parametrize("vector", GOOD, ids=str)
def test_the_program_agrees_with_the_files_decoding(
    vector: Vector, decoded: dict[str, dict[str, Any]]
) -> None:
    told = decoded[vector.id]
    assert told["protocol"] == vector.protocol
    for key, expected in vector.expected.items():
        if key in OTHER_KEYS:
            continue
        if key == "inner":
            inner = CliRunner().invoke(app, ["decode", "--json", expected])
            (expected,) = json.loads(inner.stdout)["frames"]
            assert {**told[key], "start": 0} == {**expected, "start": 0}
            continue
        if key in DISPUTED.get(vector.id, {}):
            said, right, _ = DISPUTED[vector.id][key]
            assert expected == said
            expected = right
        assert told[key] == expected, key


def test_only_values_are_disputed_and_no_exception_is_idle() -> None:
    envelope = {"address", "control", "length", "di", "data", "terminal", "afn", "fn", "pn"}
    assert all(not envelope & set(keys) for keys in DISPUTED.values())
    assert set(OTHER_KEYS) <= {key for vector in GOOD for key in vector.expected}
    assert {one.id for one in valid("qgdw376.1")} >= set(REFUSED)


@pytest.mark.parametrize("vector", GOOD, ids=str)
def test_every_frame_is_written_again(vector: Vector) -> None:
    raw = vector.raw.lstrip(b"\xfe")
    if vector.protocol == "qgdw376.1":
        assert q_gdw376.build(q_gdw376.parse(raw)) == raw
    else:
        assert dlt645.build(dlt645.parse(raw)) == raw


def rebuilt_645(raw: bytes, edition: str) -> tuple[bytes, bool]:
    """The frame from its message, its data from their values, and whether it was only kept raw. A permit is
    there for what needs one."""
    frame = dlt645.parse(raw)
    message = messages.from_frame(frame, edition)
    if isinstance(message, RelayCommand):
        permit = Permit(control.action(message.verb), frame.address, "rebuilt in a test")
        return dlt645.build(control.build_control(message, permit)), False
    if isinstance(message, SecurityRequest):
        permit = Permit("645 03", frame.address, "rebuilt in a test")
        return dlt645.build(control.build_security(message, permit)), False
    if isinstance(message, messages.ReadReply) and not message.more:
        values = [value.value for value in items.decode(message.di, message.data, edition)]
        data = items.encode(message.di, values, edition)
        message = messages.ReadReply(message.address, message.di, data)
    permit = Permit(f"645 {frame.control:02x}", frame.address, "rebuilt in a test")
    again = messages.to_frame(message, permit if isinstance(message, Command) else None)
    return dlt645.build(again), isinstance(message, messages.Unknown)


def rebuilt_376(raw: bytes) -> tuple[bytes, bool]:
    """The frame from its units' values, and whether some were only kept raw."""
    frame = q_gdw376.parse(raw)
    content = read(frame)
    body = b""
    kept = False
    for unit in content.units:
        kept = kept or bool(unit.raw and unit.value is None)
        value = unit.raw if unit.value is None else unit.value
        body += encode_unit(frame.afn, unit.fn, unit.pn, value, frame.up)
    again = {name: getattr(frame, name) for name in q_gdw376.Frame.__dataclass_fields__}
    return q_gdw376.build(q_gdw376.Frame(**{**again, "body": body + content.password})), kept


def rebuilt(protocol: str, raw: bytes) -> tuple[bytes, bool]:
    return rebuilt_376(raw) if protocol == "qgdw376.1" else rebuilt_645(raw, protocol[-4:])


@pytest.mark.parametrize("vector", GOOD, ids=str)
def test_a_frame_is_written_again_from_what_it_says(vector: Vector) -> None:
    raw = vector.raw.lstrip(b"\xfe")
    if vector.id in NOT_REBUILT:
        with pytest.raises((LocalProtocolError, RemoteProtocolError)):
            rebuilt(vector.protocol, raw)
        return
    again, kept = rebuilt(vector.protocol, raw)
    assert again == raw
    assert kept == (vector.id in KEPT_RAW)


def test_nothing_is_listed_that_is_not_in_the_file() -> None:
    assert set(NOT_REBUILT) | set(KEPT_RAW) | set(DISPUTED) <= {vector.id for vector in GOOD}
