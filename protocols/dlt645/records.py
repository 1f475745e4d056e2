"""Data of several named fields (records.csv): events, relay records, curves, security messages.

    form  := alternative { " || " alternative }               told apart by length; the first is the usual one
    alternative := "none" | sum
    sum   := part { " + " part }
    part  := english "/" chinese ":" format [ "[" unit "]" ]
           | mark "{" label { "|" label } "}*(" sum ")"        for each label; `mark` in the names becomes it
           | "**(" sum ")"                                     as often as the data says; % is the number
    label := text | english "/" chinese | first ".." last

A format is one of the item table's, with ± where it has a sign; BITSn are n bytes shown high byte first,
BYTESn n bytes in the order of the wire, BYTES* all that are left, and ~ behind a format a data identifier.
"""

from __future__ import annotations

import csv
import re
from functools import cache
from importlib import resources

from protocols.dlt645.formats import Layout, Names, Opaque, Part, Reference, Word, part_of

_LABELLED = re.compile(r"([@#$])\{([^}]*)\}\*\(")
_PART = re.compile(r"([^/:]+)/([^:]+):([^\[+)]+?)(?:\[([^\]]+)\])?")
_NUMBERS = re.compile(r"(\d+)\.\.(\d+)")

_Field = tuple[str, str, Part]


@cache
def forms() -> dict[str, tuple[Layout, ...]]:
    """Name of a form to its layouts, the usual one first."""
    text = resources.files("protocols.dlt645").joinpath("records.csv").read_text(encoding="utf-8")
    return {row["name"]: compile_form(row["form"]) for row in csv.DictReader(text.splitlines())}


def compile_form(text: str) -> tuple[Layout, ...]:
    """The layouts of a form. ValueError names what cannot be read."""
    return tuple(_layout(alternative) for alternative in text.split(" || "))


def _layout(text: str) -> Layout:
    if text == "none":
        return Layout(())
    pieces = _split(text)
    repeated = [piece for piece in pieces if piece.startswith("**(") or ":BYTES*" in piece]
    if not repeated:
        fields = _fields(pieces)
        return Layout(tuple(part for _, _, part in fields), names=_names(fields))
    if len(repeated) > 1:
        raise ValueError(f"{text!r} has two parts of unknown length")
    place = pieces.index(repeated[0])
    head, tail = _fields(pieces[:place]), _fields(pieces[place + 1 :])
    joined = not repeated[0].startswith("**(")
    group = _fields([repeated[0]] if joined else _split(repeated[0][3:-1]))
    return Layout(
        tuple(part for _, _, part in group),
        None,
        tuple(part for _, _, part in head),
        tuple(part for _, _, part in tail),
        _names([*head, *group, *tail]),
        joined,
    )


def _names(fields: list[_Field]) -> tuple[Names, ...]:
    return tuple((english, chinese) for english, chinese, _ in fields)


def _split(text: str) -> list[str]:
    """The parts of a sum, at each + outside brackets."""
    pieces, depth, start = [], 0, 0
    for at, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth and text.startswith(" + ", at):
            pieces.append(text[start:at])
            start = at + 3
    return [*pieces, text[start:]]


def _fields(pieces: list[str]) -> list[_Field]:
    fields: list[_Field] = []
    for piece in pieces:
        labelled = _LABELLED.match(piece)
        if labelled is None:
            fields.append(_field(piece))
            continue
        inner = _fields(_split(piece[labelled.end() : -1]))
        mark = labelled[1]
        for english, chinese in _labels(labelled[2]):
            fields += [(en.replace(mark, english), zh.replace(mark, chinese), part) for en, zh, part in inner]
    return fields


def _labels(text: str) -> list[Names]:
    numbers = _NUMBERS.fullmatch(text)
    if numbers:
        return [(str(one), str(one)) for one in range(int(numbers[1]), int(numbers[2]) + 1)]
    return [
        (english, chinese or english)
        for english, _, chinese in (one.partition("/") for one in text.split("|"))
    ]


def _field(text: str) -> _Field:
    found = _PART.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no field")
    form = found[3]
    part: Part
    if form == "BYTES*":
        part = Opaque(1)
    elif form.startswith("BYTES"):
        part = Opaque(int(form[5:]))
    elif form.startswith("BITS"):
        part = Word(int(form[4:]))
    elif form.endswith("~"):
        part = Reference(len(form) // 2)
    else:
        part = part_of(form.removeprefix("±"), None, found[4] or "", form.startswith("±"))
    return found[1], found[2], part
