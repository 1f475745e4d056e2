"""Frames that mutations found to break something, each with what was wrong."""

from __future__ import annotations

import random

import pytest

from protocols.errors import LocalProtocolError
from protocols.q_gdw376 import messages, units
from protocols.q_gdw376.fields import Fields
from protocols.q_gdw376.forms import compile_form
from protocols.q_gdw376.frame import parse
from tests.fuzz.peers import Peers

FILLED = "6866006600688800023412020d600101801a05265621071026ee11692093300516"
FILLED_IN_PART = (
    "68a600a600688800023412020d6001010418032615eeeeeeeeeeeeeeeeeeeeeeee85201939061510643974121130044d16"
)


@pytest.mark.parametrize("text", [FILLED, FILLED_IN_PART], ids=["digits behind it", "filler and digits"])
def test_a_number_of_tariffs_that_is_filled_up_is_written_as_it_came(text: str) -> None:
    """It was not where something else than filler stands behind it."""
    frame = parse(bytes.fromhex(text))
    (unit,) = messages.decode(frame)
    assert isinstance(unit.value, Fields)
    assert unit.value["M"] == 0xEE
    assert units.encode_data(frame.afn, unit.fn, unit.value) == unit.raw
    Peers(random.Random(1)).feed(bytes.fromhex(text))


def test_a_class_beyond_the_standard_that_a_record_names_is_written_as_it_came() -> None:
    """F1980 was read and then refused."""
    form = compile_form("identifier/数据单元标识:DADT")
    raw = bytes.fromhex("010108f7")
    told = form.decode(raw)
    assert told["identifier"] == ((1, 1980),)
    assert form.encode(told) == form.encode({"identifier": "p1 F1980"}) == raw
    with pytest.raises(LocalProtocolError):
        messages.encode_unit(0x0C, 1980, 1)
