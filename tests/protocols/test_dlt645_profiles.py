"""Dialects of DL/T 645: rows, bases, and what is wrong with a row."""

from __future__ import annotations

import pytest

from protocols.dlt645.profiles import load, standard
from protocols.errors import LocalProtocolError


def test_rows_take_from_their_base() -> None:
    rows = load()
    assert rows["standard-2007"].edition == "2007"
    assert rows["broadcast-1997"].edition == "1997"
    assert rows["broadcast-1997"].longest_write == 50
    assert [name for name, row in rows.items() if row.broadcast_reads] == ["broadcast-1997"]
    assert rows["base-2007"].longest_write == 50
    assert rows["standard-2007"].longest_write == 200
    assert standard("1997") == rows["standard-1997"]
    assert standard() == rows["standard-2007"]
    with pytest.raises(LocalProtocolError, match="edition"):
        standard("2005")


def test_a_configuration_adds_and_changes() -> None:
    rows = load({"maker": {"control_level": "04", "reply_timeout_s": 90}, "base-2007": {"lead_in": 1}})
    assert (rows["maker"].edition, rows["maker"].control_level) == ("2007", "04")
    assert rows["maker"].reply_timeout_s == 90.0
    assert isinstance(rows["maker"].reply_timeout_s, float)
    assert (rows["base-2007"].lead_in, rows["base-2007"].longest_write) == (1, 50)
    assert load({"old": {"base": "standard-1997"}})["old"].edition == "1997"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"base": "nobody"}, "unknown or leads back"),
        ({"base": "maker"}, "leads back to itself"),
        ({"speed": 9600}, "no key 'speed'"),
        ({"edition": "2005"}, "edition is '2005'"),
        ({"control_level": "00"}, "control_level is '00'"),
        ({"repeats": -1}, "less than 0"),
        ({"repeats": True}, "not of type int"),
        ({"lead_in": "4"}, "not of type int"),
        ({"speed_38400": 1}, "not of type bool"),
        ({"reply_timeout_s": "2"}, "not of type float"),
    ],
)
def test_a_wrong_row_is_named(row: dict[str, object], said: str) -> None:
    with pytest.raises(LocalProtocolError, match=said) as told:
        load({"maker": row})
    assert "profile maker" in str(told.value)
