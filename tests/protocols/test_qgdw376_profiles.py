"""Dialects of Q/GDW 376.1: the rows that stand, the rows a configuration adds, and what is refused."""

from __future__ import annotations

import re
from datetime import date
from importlib import resources

import pytest

from protocols.errors import LocalProtocolError
from protocols.q_gdw376.password import Crc16, External, Fixed, Place, Scheme, Unchecked
from protocols.q_gdw376.profiles import DEFAULT_PROFILE, FREEZE_DAY, VERSION, load, settings


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
        ({"edition": "2020"}, "edition"),
        ({"password_scheme": "md5"}, "password_scheme"),
        ({"crc_place": "middle"}, "crc_place"),
        ({"variants": "f5_read_time"}, "variants"),
        ({"variants": {"f5_read_time": "perhaps"}}, "variants.f5_read_time is 'perhaps'"),
        ({"variants": {"f5_reed_time": "yes"}}, "f5_read_time = no|yes"),
    ],
)
def test_a_wrong_row_is_refused_with_its_name_and_key(row: dict[str, object], message: str) -> None:
    with pytest.raises(LocalProtocolError, match="profile maker") as raised:
        load({"maker": row})
    assert message in str(raised.value)


def test_settings_choose_layouts_and_are_inherited_one_by_one() -> None:
    profiles = load(
        {
            "maker": {"base": "standard-2009", "variants": {"f5_read_time": "yes", "f33_period": "2"}},
            "province": {"base": "maker", "variants": {"f33_period": "4"}},
        }
    )
    usual = profiles[DEFAULT_PROFILE].variants
    assert usual == {VERSION: "2013", **{name: words[0] for name, words in settings().items()}}
    assert profiles["gw-2005"].variants == {**usual, VERSION: "2005"}
    assert profiles["maker"].variants == {**usual, VERSION: "2009", "f5_read_time": "yes", "f33_period": "2"}
    assert profiles["province"].variants == {**usual, VERSION: "2009", "f5_read_time": "yes"}


def test_the_settings_are_those_of_the_tables() -> None:
    """A condition that no profile can set, or a setting that chooses nothing, is a mistake."""
    asked: dict[str, set[str]] = {}
    for table in ("items.csv", "events.csv"):
        text = resources.files("protocols.q_gdw376").joinpath(table).read_text(encoding="utf-8")
        for name, word in re.findall(r"\{([a-z]\w*)=(\w+)\}", text):
            asked.setdefault(name, set()).add(word)
    known = settings()
    assert set(asked) == set(known)
    for name, words in asked.items():
        assert words <= set(known[name])
        assert known[name][0] not in words or len(words) == len(known[name])


@pytest.mark.parametrize(
    ("row", "scheme"),
    [
        ({}, Unchecked(16)),
        ({"base": "gw-2005"}, Unchecked(2)),
        ({"password_scheme": "fixed", "password": "4c4b"}, Fixed(b"\x4c\x4b")),
        (
            {
                "password_scheme": "crc16", "crc_polynomial": 0x8005, "crc_seed": 7, "crc_reflected": True,
                "crc_xor_out": 9, "crc_place": "last-high",
            },
            Crc16(7, 0x8005, True, 9, Place.LAST_HIGH, 16),
        ),
    ],
)  # fmt: skip
def test_how_a_profile_makes_pw(row: dict[str, object], scheme: Scheme) -> None:
    assert load({"maker": row})["maker"].scheme() == scheme


def test_a_module_is_the_owners() -> None:
    module = External(lambda data: bytes(16))
    profile = load({"maker": {"password_scheme": "external"}})["maker"]
    assert profile.scheme(module) is module
    for wrong in (None, External(lambda data: bytes(2), length=2)):
        with pytest.raises(LocalProtocolError, match="profile maker"):
            profile.scheme(wrong)
    with pytest.raises(LocalProtocolError):
        load({"maker": {"password_scheme": "crc16", "crc_seed": 70000}})["maker"].scheme()


def test_a_profile_is_not_called_as_the_table_of_settings() -> None:
    with pytest.raises(LocalProtocolError, match="settings"):
        load({"settings": {}})


def test_a_row_that_stands_on_nothing_lacks_keys() -> None:
    with pytest.raises(LocalProtocolError, match="edition is missing"):
        load({DEFAULT_PROFILE: {"base": "empty"}, "empty": {"base": None}})
