"""A data unit's layout: construct on one side, `values` on the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import construct
from construct import Struct

from protocols import wire
from protocols.errors import LocalProtocolError
from protocols.q_gdw376.formats import FILLER

FILLERS = (FILLER, 0xEF)
"""What may stand for the number of tariffs in an empty answer."""
_FILLER_BYTES = tuple(bytes([filler]) for filler in FILLERS)


@dataclass(frozen=True, slots=True)
class Layout:
    """One unit's data. declared: its bytes; to_value, from_value: between construct's container and `values`.

    fixed: its length, and `each` more bytes for every count; the count stands `size` bytes wide at `place`.
    rest: it takes what is left of the frame. empty: the layout where the count, a number of tariffs, is
    filled up; then `filler` bytes are written behind it.
    """

    value_type: type
    declared: Any
    to_value: Callable[[Any], object]
    from_value: Callable[[Any], dict[str, Any]]
    fixed: int = 0
    each: int = 0
    place: int = 0
    size: int = 0
    rest: bool = False
    empty: Any = None
    filler: int = 0

    def decode(self, raw: bytes) -> object:
        """The value that exactly these bytes say. RemoteProtocolError where they are no such unit."""
        form = self.declared
        if self.empty is not None and raw[self.place : self.place + 1] in _FILLER_BYTES:
            form = self.empty
        return self.to_value(wire.parse(form, raw, self.value_type.__name__))

    def encode(self, value: object) -> bytes:
        """The data of `value`. LocalProtocolError where it is of another type or does not fit.

        Energies without registers are written as an empty answer, as long as one with the usual tariffs.
        """
        if not isinstance(value, self.value_type):
            raise LocalProtocolError(f"{self.value_type.__name__} is wanted here, not {value!r}")
        told = self.from_value(value)
        form = self.declared
        if self.empty is not None and not told["registers"]:
            form = self.empty
            told |= {"tariffs": FILLER, "filler": bytes([FILLER]) * self.filler}
        return wire.build(form, told, self.value_type.__name__)


def whole(*fields: Any) -> Any:
    return Struct(*fields, construct.Terminated)


def plain(value_type: type[Any]) -> tuple[Callable[[Any], Any], Callable[[Any], dict[str, Any]]]:
    """Container to value and back where both have the same names."""
    names = tuple(field.name for field in fields(value_type))

    def to_value(found: Any) -> Any:
        return value_type(**{name: found[name] for name in names})

    def from_value(value: Any) -> dict[str, Any]:
        return {name: getattr(value, name) for name in names}

    return to_value, from_value
