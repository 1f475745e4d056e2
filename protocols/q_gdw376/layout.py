"""A data unit with a value type of its own: construct on one side, `values` on the other.

How long it is, the form of its row says, as for every unit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import construct
from construct import Struct

from protocols import wire
from protocols.errors import LocalProtocolError
from protocols.q_gdw376.formats import FILLER
from protocols.q_gdw376.forms import FILLERS, NO_VARIANTS

_FILLER_BYTES = tuple(bytes([filler]) for filler in FILLERS)


@dataclass(frozen=True, slots=True)
class Layout:
    """One unit's data. declared: its bytes; to_value, from_value: between construct's container and `values`.

    empty: the layout where the number of tariffs, at `place`, is filled up; then `filler` bytes are written
    behind it.
    """

    value_type: type
    declared: Any
    to_value: Callable[[Any], object]
    from_value: Callable[[Any], dict[str, Any]]
    place: int = 0
    empty: Any = None
    filler: int = 0

    def decode(self, raw: bytes, variants: Mapping[str, str] = NO_VARIANTS) -> object:
        """The value that exactly these bytes say. variants: a profile's settings; only events have layouts
        that they choose. RemoteProtocolError where the bytes are no such unit."""
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
