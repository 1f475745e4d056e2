"""One Q/GDW 376.1 frame as JSON-ready fields: envelope, units with their values, a forwarded 645 frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from decimal import Decimal

from protocols.errors import RemoteProtocolError
from protocols.lens.fields import Fields, describe
from protocols.lens.places import meters
from protocols.q_gdw376 import frame as q_gdw376
from protocols.q_gdw376 import items as classes
from protocols.q_gdw376 import messages
from protocols.q_gdw376.event_records import IMPORTANT, NORMAL, Events, decode_events, kind
from protocols.q_gdw376.fields import Fields as UnitFields
from protocols.q_gdw376.messages import (
    Clock,
    Forward,
    Forwarded,
    FrozenEnergy,
    PresentEnergy,
    Registers,
    Unit,
    UnitConfirm,
)

# Keys of a forwarded frame that are also told beside the frame that carries it.
_INNER = ("address", "control", "length", "di", "value", "unit", "relay_cmd")

_EVENTS = 0x0E
_PARAMETERS = (0x04, 0x0A)
_MASTER_ADDRESS, _MASTER_PHONE = 3, 4


def terminal_fields(frame: q_gdw376.Frame, start: int, length: int) -> Fields:
    """The fields of a frame of `length` bytes whose first 68H stands at `start`. Never raises."""
    content = messages.read(frame)
    control = frame.up << 7 | frame.prm << 6 | frame.acd << 5 | frame.fcv << 4 | frame.function
    told: Fields = {
        "protocol": "qgdw376.1",
        "start": start,
        "terminal": frame.terminal,
        "flag": frame.protocol_id,
        "len": length - q_gdw376.OVERHEAD,
        "c": f"{control:02x}",
        "dir": int(frame.up),
        "prm": int(frame.prm),
        "acd_fcb": int(frame.acd),
        "fcv": int(frame.fcv),
        "fc": frame.function,
        "msa": frame.msa,
        "group": int(frame.group),
        "afn": f"{frame.afn:02x}",
        "tpv": int(frame.tpv),
        "fir": int(frame.fir),
        "fin": int(frame.fin),
        "con": int(frame.con),
        "pseq": frame.pseq,
        # An identifier without a bit names no point or class; [] tells it from p0.
        "pn": [],
        "fn": [],
    }
    if content.units:
        first = content.units[0]
        told["pn"] = first.pn
        told["fn"] = first.fn or []
        told |= _highlights(frame, first)
    if content.password:
        told["password"] = content.password.hex()
    if frame.ec is not None:
        told["ec"] = bytes(frame.ec).hex()
    if frame.tp is not None:
        told["tp"] = frame.tp.hex()
    told["units"] = [_unit(frame, unit) for unit in content.units]
    return told


def _unit(frame: q_gdw376.Frame, unit: Unit) -> Fields:
    told: Fields = {"pn": unit.pn, "fn": unit.fn or []}
    item = classes.lookup(frame.afn, unit.fn, frame.up)
    if item is not None:
        told |= {"name": item.name_en, "name_zh": item.name_zh}
    told["values"] = [
        {"name": name, "value": value, "unit": measured} for name, value, measured in unit_values(frame, unit)
    ]
    told["bytes"] = unit.raw.hex()
    if unit.reason is not None:
        told["reason"] = unit.reason
    if isinstance(unit.value, Forward | Forwarded):
        told["inner"] = _inner(unit.value.content)
    return told


def _highlights(frame: q_gdw376.Frame, unit: Unit) -> Fields:
    """What the first unit says, under short keys beside the envelope."""
    match unit.value:
        case Clock(at, weekday):
            return {"clock": None if at is None else str(at), "weekday": weekday}
        case PresentEnergy(read_at, registers) | FrozenEnergy(_, read_at, registers):
            key = "kvarh" if _reactive(frame, unit) else "kwh"
            energies = [_energy(register) for register in registers]
            return {"read_time": _minute(read_at), "tariffs": max(0, len(registers) - 1), key: energies}
        case Forward(port=port, content=content) | Forwarded(port=port, content=content):
            return {"port": port, "inner_len": len(content), **_inner_highlights(_inner(content))}
    told = events_of(frame, unit)
    if told is not None:
        return _first_event(told)
    return _named_fields(frame, unit)


def _first_event(told: Events) -> Fields:
    pointers: Fields = {"ec1": told.ec1, "ec2": told.ec2, "pm": told.pm, "pn_end": told.pn}
    if told.records:
        pointers |= {"erc": told.records[0].erc, "erc_len": len(told.records[0].raw)}
    return pointers


# Short keys for what people ask after first: fields of the unit's form, and the key that lists them.
_SHORT_KEYS: dict[tuple[int, int], dict[str, tuple[str, ...]]] = {
    (0x0C, 25): {
        "p_kw": ("p_total", "p_a", "p_b", "p_c"),
        "pf_pct": ("pf_total", "pf_a", "pf_b", "pf_c"),
        "u_v": ("u_a", "u_b", "u_c"),
        "i_a": ("i_a", "i_b", "i_c"),
    },
}


def _named_fields(frame: q_gdw376.Frame, unit: Unit) -> Fields:
    said = unit.value
    if not isinstance(said, UnitFields):
        return {}
    told: Fields = {}
    for key, names in _SHORT_KEYS.get((frame.afn, unit.fn), {}).items():
        told[key] = [text_of(said.get(name)) for name in names]
    read_at = said.get("read_at")
    if isinstance(read_at, datetime):
        told["read_time"] = _minute(read_at)
    if unit.fn == _MASTER_ADDRESS and frame.afn in _PARAMETERS and "apn" in said:
        told["main"] = f"{said['main_ip']}:{said['main_port']}"
        told["backup"] = f"{said['backup_ip']}:{said['backup_port']}"
        told["apn"] = text_of(said["apn"])
    if unit.fn == _MASTER_PHONE and frame.afn in _PARAMETERS and "phone" in said:
        # Digits end with F nibbles.
        told["phone"] = str(text_of(said["phone"])).rstrip("f")
        told["sms_center"] = str(text_of(said["sms_centre"])).rstrip("f")
    return told


def _inner(content: bytes) -> Fields | None:
    """The first good 645 frame in forwarded bytes; `start` counts from their beginning."""
    place = next(meters(content), None)
    return None if place is None else describe(content, place)


def _inner_highlights(inner: Fields | None) -> Fields:
    told: Fields = {"inner": inner, "inner_valid": int(inner is not None)}
    if inner is not None:
        told |= {f"inner_{key}": inner[key] for key in _INNER if key in inner}
        if "relay" in inner:
            told["relay"] = inner["relay"]
    return told


# -- values of the 376.1 units, told one by one ---------------------------------------------------

_REGISTERS = {
    "registers": "",
    "active": "kWh",
    "reactive": "kvarh",
    "quadrant_a": "kvarh",
    "quadrant_b": "kvarh",
    "phases": "kWh",
}
_PHASES = ("phase A", "phase B", "phase C")

_Told = tuple[str, str | None, str]


def unit_values(frame: q_gdw376.Frame, unit: Unit) -> Iterator[_Told]:
    """(name, text, unit of measure) of everything that a unit's value holds."""
    told = events_of(frame, unit)
    return _values(unit.value if told is None else told, _reactive(frame, unit))


def events_of(frame: q_gdw376.Frame, unit: Unit) -> Events | None:
    """The event records that a unit brings; None where it brings none, or is not understood."""
    if not frame.up or frame.afn != _EVENTS or unit.fn not in (IMPORTANT, NORMAL) or unit.reason:
        return None
    try:
        return decode_events(unit.raw)
    except RemoteProtocolError:
        return None


def _values(value: object, reactive: bool) -> Iterator[_Told]:
    """(name, text, unit) of everything that a unit's value holds; texts are decimal strings where numbers."""
    if isinstance(value, UnitConfirm):
        yield "afn", f"{value.afn:02x}", ""
        for pn, fn, error in value.results:
            yield f"p{pn} F{fn} error", str(error), ""
        return
    if value is None:
        return
    if isinstance(value, UnitFields):
        yield from ((name, text_of(said), measured) for name, said, measured in value.flat())
        return
    if isinstance(value, Events):
        yield from _events(value)
        return
    for field in fields(value):  # type: ignore[arg-type]  # every value of a unit is a dataclass
        said = getattr(value, field.name)
        if field.name in _REGISTERS and isinstance(said, tuple):
            measured = _REGISTERS[field.name] or ("kvarh" if reactive else "kWh")
            yield from _registers(field.name, said, measured)
        else:
            yield from _flat(field.name, said)


def _events(told: Events) -> Iterator[_Told]:
    for name in ("ec1", "ec2", "pm", "pn"):
        yield name, str(getattr(told, name)), ""
    for place, record in enumerate(told.records, 1):
        known = kind(record.erc)
        before = f"record {place}"
        yield f"{before} erc", str(record.erc), ""
        yield f"{before} event", None if known is None else known.name_en, ""
        if record.fields is None:
            yield f"{before} body", record.raw.hex(), ""
        else:
            for name, said, measured in record.fields.flat(f"{before} "):
                yield name, text_of(said), measured


def _registers(name: str, registers: Registers, measured: str) -> Iterator[_Told]:
    for place, register in enumerate(registers):
        which = f"tariff {place}" if place else "total"
        if name == "phases":
            which = _PHASES[place]
        elif name != "registers":
            which = f"{name} {which}"
        yield which, _energy(register), measured


def _flat(name: str, said: object) -> Iterator[_Told]:
    if isinstance(said, tuple):
        for place, part in enumerate(said, 1):
            yield from _flat(f"{name} {place}", part)
    elif is_dataclass(said):
        for field in fields(said):
            yield from _flat(f"{name} {field.name}", getattr(said, field.name))
    else:
        yield name, text_of(said), ""


def text_of(said: object) -> str | None:
    """A value as JSON and people read it; None where there is no value."""
    match said:
        case None:
            return None
        case bytes():
            return said.hex()
        case Decimal():
            return f"{said:f}"
        case datetime():
            return str(said)
        case date():
            return said.isoformat()
        case tuple():
            return ", ".join(f"p{pn} F{fn}" for pn, fn in said)
    return str(said)


def _reactive(frame: q_gdw376.Frame, unit: Unit) -> bool:
    item = classes.lookup(frame.afn, unit.fn, frame.up)
    return item is not None and "reactive" in item.name_en


def _energy(register: int | None) -> str | None:
    """Units of 0.0001 as a decimal string."""
    if register is None:
        return None
    whole, rest = divmod(abs(register), 10_000)
    return f"{'-' if register < 0 else ''}{whole}.{rest:04d}"


def _minute(at: datetime | None) -> str | None:
    return None if at is None else at.strftime("%Y-%m-%d %H:%M")
