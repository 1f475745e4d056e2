"""Dialects of Q/GDW 376.1: the rows that stand, the rows a configuration adds, and what is refused."""

from __future__ import annotations

from datetime import date

import pytest

from protocols.errors import LocalProtocolError
from protocols.q_gdw376.profiles import DEFAULT_PROFILE, FREEZE_DAY, load


def test_the_standing_rows() -> None:
    profiles = load()
    assert {"standard-2009", "standard-2013", "gw-2005"} <= set(profiles)
    assert all(profile.name == name for name, profile in profiles.items())
    assert profiles[DEFAULT_PROFILE].password == bytes(16)
    assert (profiles["gw-2005"].protocol_id, profiles["gw-2005"].password) == (1, bytes(2))
    assert profiles["gw-2005"].store_days == profiles[DEFAULT_PROFILE].store_days
    assert not profiles["standard-2009"].heartbeat_clock


def test_which_day_the_tag_names() -> None:
    profiles = load()
    assert profiles[DEFAULT_PROFILE].tag_of(date(2026, 11, 23)) == date(2026, 11, 23)
    assert profiles["freeze-day"].tag_of(date(2026, 12, 31)) == date(2027, 1, 1)


def test_a_configuration_adds_and_changes_rows() -> None:
    profiles = load(
        {
            "maker": {"td_d_names": FREEZE_DAY, "store_days": 62, "reply_timeout_s": 15},
            "province": {"base": "maker", "password": "12" * 16},
            "standard-2009": {"repeats": 0},
        }
    )
    maker, province = profiles["maker"], profiles["province"]
    assert (maker.td_d_names, maker.store_days, maker.reply_timeout_s) == ("freeze_day", 62, 15.0)
    assert maker.points_a_request == profiles[DEFAULT_PROFILE].points_a_request
    assert (province.td_d_names, province.password) == ("freeze_day", b"\x12" * 16)
    assert profiles["standard-2009"].repeats == 0
    assert profiles["gw-2005"].repeats == 0
    assert profiles[DEFAULT_PROFILE].repeats == 2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"colour": 1}, "there is no key 'colour'"),
        ({"base": "nobody"}, "base 'nobody'"),
        ({"base": "maker"}, "base 'maker'"),
        ({"base": 7}, "base 7"),
        ({"td_d_names": "yesterday"}, "td_d_names is 'yesterday'"),
        ({"confirm_form": "F2"}, "confirm_form"),
        ({"protocol_id": 3}, "protocol_id"),
        ({"password": "00"}, "password"),
        ({"password": "xy"}, "password"),
        ({"password": 0}, "password"),
        ({"repeats": 1.5}, "repeats"),
        ({"repeats": True}, "repeats"),
        ({"repeats": -1}, "less than 0"),
        ({"heartbeat_clock": 1}, "heartbeat_clock"),
        ({"reply_timeout_s": "30"}, "reply_timeout_s"),
    ],
)
def test_a_wrong_row_is_refused_with_its_name_and_key(row: dict[str, object], message: str) -> None:
    with pytest.raises(LocalProtocolError, match="profile maker") as raised:
        load({"maker": row})
    assert message in str(raised.value)


def test_a_row_that_stands_on_nothing_lacks_keys() -> None:
    with pytest.raises(LocalProtocolError, match=r"protocol_id is missing|base"):
        load({DEFAULT_PROFILE: {"base": "empty"}, "empty": {"base": None}})
