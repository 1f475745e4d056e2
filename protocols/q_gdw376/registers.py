"""Layouts of registers: a read time, the number of tariffs M, and M + 1 energies, present or frozen."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import construct
from construct import Array, GreedyBytes, Int8ub, Rebuild, this

from protocols.errors import LocalProtocolError
from protocols.q_gdw376 import forms, values
from protocols.q_gdw376.formats import A11, A14, A15, A20, A21
from protocols.q_gdw376.layout import Layout, plain, whole

MOST_TARIFFS = forms.MOST_TARIFFS
USUAL_TARIFFS = forms.USUAL_TARIFFS
PHASES_LENGTH = 23
"""Length of the daily freeze that has three phases and no number of tariffs."""


def _phases(found: Any) -> values.FrozenPhases:
    return values.FrozenPhases(found.tag, found.read_at, tuple(found.phases))


def _with_registers(
    value_type: type[Any], before: list[Any], place: int, names: dict[str, Any], widths: int
) -> Layout:
    """`before` (`place` bytes), M, then for each name total and M tariffs; `widths` bytes a tariff in all."""
    first = next(iter(names))
    tariffs = "tariffs" / Rebuild(
        construct.ExprValidator(Int8ub, lambda count, _: count <= MOST_TARIFFS),
        lambda context: len(context[first]) - 1,
    )
    registers = [name / Array(this.tariffs + 1, form) for name, form in names.items()]

    def to_value(found: Any) -> object:
        told = {name: tuple(found.get(name) or ()) for name in names}
        return value_type(**{field.name: found[field.name] for field in before}, **told)

    def from_value(value: Any) -> dict[str, Any]:
        told = {field.name: getattr(value, field.name) for field in fields(value_type)}
        if len({len(told[name]) for name in names}) > 1:
            raise LocalProtocolError(f"unlike numbers of registers in {value!r}")
        return told | {"registers": told[first]}

    return Layout(
        value_type,
        whole(*before, tariffs, *registers),
        to_value,
        from_value,
        place=place,
        empty=whole(*before, "tariffs" / construct.OneOf(Int8ub, forms.FILLERS), "filler" / GreedyBytes),
        filler=widths * (USUAL_TARIFFS + 1),
    )


def _energy(value_type: type, tag: Any, tag_length: int, form: Any, width: int) -> Layout:
    before = ["tag" / tag] if tag_length else []
    return _with_registers(value_type, [*before, "read_at" / A15], tag_length + 5, {"registers": form}, width)


def _three_phase(tag: Any, tag_length: int) -> Layout:
    names = {"active": A14, "reactive": A11, "quadrant_a": A11, "quadrant_b": A11}
    return _with_registers(
        values.FrozenThreePhase, ["tag" / tag, "read_at" / A15], tag_length + 5, names, 5 + 3 * 4
    )


PRESENT_ACTIVE = _energy(values.PresentEnergy, None, 0, A14, 5)
PRESENT_REACTIVE = _energy(values.PresentEnergy, None, 0, A11, 4)
DAY_ACTIVE = _energy(values.FrozenEnergy, A20, 3, A14, 5)
DAY_REACTIVE = _energy(values.FrozenEnergy, A20, 3, A11, 4)
MONTH_ACTIVE = _energy(values.FrozenEnergy, A21, 2, A14, 5)
MONTH_REACTIVE = _energy(values.FrozenEnergy, A21, 2, A11, 4)
DAY_THREE_PHASE = _three_phase(A20, 3)
MONTH_THREE_PHASE = _three_phase(A21, 2)

PHASES = Layout(
    values.FrozenPhases,
    whole("tag" / A20, "read_at" / A15, "phases" / Array(3, A14)),
    _phases,
    plain(values.FrozenPhases)[1],
)
"""The other body of F161, F163, F169, F171; see `units`, which tells the two apart."""
