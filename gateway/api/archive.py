"""A terminal's meter archive beside the assets: what differs, and the records that mend it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from gateway.errors import InputError
from gateway.model import ArchiveRecord, Point

PROTOCOL_CODES: Final = {"dlt645-1997": 1, "dlt645-2007": 30}
"""AFN04 F10, byte 5"""

DELETED: Final = 0
"""a record written with this measuring point is deleted (AFN04 F10)"""

LAST_SEQUENCE: Final = 2040


@dataclass(frozen=True, slots=True)
class Difference:
    """One measuring point that is not as the assets say. kind: `missing`, `differs` or `surplus`."""

    pn: int
    kind: str
    assets: Point | None
    terminal: ArchiveRecord | None
    fields: tuple[str, ...] = ()
    """what differs: address, port, protocol, tariffs"""


def compare(points: Iterable[Point], records: Iterable[ArchiveRecord], at: datetime) -> list[Difference]:
    """What differs between the meters installed at instant `at` and the terminal's records, by rising pn."""
    wanted = {point.pn: point for point in points if point.holds_at(at)}
    found = {record.pn: record for record in records if record.pn != DELETED}
    differences = []
    for pn in sorted(wanted.keys() | found.keys()):
        point, record = wanted.get(pn), found.get(pn)
        if point is None:
            differences.append(Difference(pn, "surplus", None, record))
        elif record is None:
            differences.append(Difference(pn, "missing", point, None))
        elif fields := _differing(point, record):
            differences.append(Difference(pn, "differs", point, record, fields))
    return differences


def mending(
    differences: Sequence[Difference], records: Sequence[ArchiveRecord], *, prune: bool
) -> list[ArchiveRecord]:
    """The records to write so that the terminal agrees with the assets; surplus ones go only with `prune`.

    A point that the terminal has keeps its sequence number and what the assets do not know (baud, password);
    a new one takes its own number as sequence if that is free, else the lowest free one.
    """
    taken = {record.sequence for record in records if record.pn != DELETED}
    writing = []
    for difference in differences:
        point, record = difference.assets, difference.terminal
        if point is None:
            if prune and record is not None:
                writing.append(replace(record, pn=DELETED))
        elif record is not None:
            writing.append(
                replace(
                    record,
                    address=point.address,
                    port=point.port,
                    protocol=_code(point, record.protocol),
                    tariffs=point.tariffs,
                )
            )
        else:
            sequence = _free_sequence(point.pn, taken)
            taken.add(sequence)
            writing.append(
                ArchiveRecord(
                    sequence=sequence,
                    pn=point.pn,
                    port=point.port,
                    baud=0,
                    protocol=PROTOCOL_CODES.get(point.protocol, PROTOCOL_CODES["dlt645-2007"]),
                    address=point.address,
                    tariffs=point.tariffs,
                )
            )
    return writing


def _differing(point: Point, record: ArchiveRecord) -> tuple[str, ...]:
    pairs = {
        "address": (point.address, record.address),
        "port": (point.port, record.port),
        "protocol": (_code(point, record.protocol), record.protocol),
        "tariffs": (point.tariffs, record.tariffs),
    }
    return tuple(name for name, (ours, theirs) in pairs.items() if ours != theirs)


def _code(point: Point, code: int) -> int:
    """The code that `point` should have; one that names no edition of DL/T 645 (31: PLC module) stays."""
    return PROTOCOL_CODES.get(point.protocol, code) if code in PROTOCOL_CODES.values() else code


def _free_sequence(pn: int, taken: set[int]) -> int:
    if 1 <= pn <= LAST_SEQUENCE and pn not in taken:
        return pn
    for sequence in range(1, LAST_SEQUENCE + 1):
        if sequence not in taken:
            return sequence
    raise InputError(f"the terminal's archive is full 终端档案已满: no free number up to {LAST_SEQUENCE}")
