"""One table of dialects: what is built in, what the settings change, and what a session makes of it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.config import load
from gateway.errors import ConfigurationError
from gateway.service import session_settings
from gateway.session.settings import SessionSettings, TerminalProfile
from protocols.q_gdw376.password import Crc16, Fixed, Place, Unchecked
from tests.gateway.session.stage import assets, stage
from tests.gateway.session.terminal_stage import with_clock


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("LINGDIAN_"):
            monkeypatch.delenv(name)


def from_file(folder: Path, text: str) -> SessionSettings:
    file = folder / "lingdian.toml"
    file.write_text(text, encoding="utf-8")
    return session_settings(load(file))


def test_the_built_in_profiles_need_no_settings() -> None:
    settings = session_settings(load())
    assert settings.profile("") == settings.profile("nobody") == settings.profile("standard-2013")
    standard = settings.profile("standard-2013")
    assert replace(standard, variants={}) == replace(
        TerminalProfile(), reply_timeout_s=30.0, password=Unchecked(16)
    )
    old = settings.profile("gw-2005")
    assert (old.confirm_form, old.points_a_request, old.password) == ("F1", 8, Unchecked(2))
    assert (old.variants["version"], standard.variants["version"]) == ("2005", "2013")
    assert settings.profile("freeze-day").td_d_names == "freeze_day"


def test_general_settings_hold_where_a_profile_says_nothing(tmp_path: Path) -> None:
    settings = from_file(
        tmp_path,
        """
        [session]
        clock_tolerance_seconds = 77.0
        reply_timeout_seconds = 12
        [collection]
        points_per_request = 20
        [profiles.mine]
        reply_timeout_seconds = 60
        [profiles.theirs]
        base = "gw-2005"
        clock_tolerance_seconds = 99.0
        """,
    )
    told = {}
    for name in ("", "mine", "theirs", "standard-2009"):
        profile = settings.profile(name)
        told[name] = (profile.clock_tolerance_s, profile.reply_timeout_s, profile.points_a_request)
    assert told == {
        "": (77.0, 12.0, 20),
        "mine": (77.0, 60.0, 20),
        "theirs": (99.0, 12.0, 8),
        "standard-2009": (77.0, 12.0, 20),
    }


def test_a_built_in_profile_may_be_changed(tmp_path: Path) -> None:
    settings = from_file(tmp_path, '[profiles.standard-2013]\nconfirm_form = "F1"\nstore_days = 62\n')
    for name in ("", "standard-2009", "freeze-day"):
        assert (settings.profile(name).confirm_form, settings.profile(name).store_days) == ("F1", 62)


def test_how_writes_are_authenticated(tmp_path: Path) -> None:
    settings = from_file(
        tmp_path,
        f"""
        [profiles.fixed]
        password_scheme = "fixed"
        password = "{"6789" + "00" * 14}"
        [profiles.crc]
        password_scheme = "crc16"
        crc_seed = 0x4c4b
        crc_place = "last-high"
        fcv = true
        variants = {{ f5_read_time = "yes" }}
        """,
    )
    assert settings.profile("fixed").password == Fixed(bytes.fromhex("6789" + "00" * 14))
    crc = settings.profile("crc")
    assert crc.password == Crc16(0x4C4B, place=Place.LAST_HIGH)
    assert crc.fcv
    assert (crc.variants["f5_read_time"], settings.profile("fixed").variants["f5_read_time"]) == ("yes", "no")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('base = "nobody"', "profile mine: base 'nobody'"),
        ('password = "1234567"', "profile mine: password"),
        ('variants = { f5_reed_time = "yes" }', "profile mine: variants.f5_reed_time"),
    ],
)
def test_a_wrong_profile_stops_the_start_and_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as raised:
        from_file(tmp_path, f"[profiles.mine]\n{text}\n")
    assert "1234567" not in str(raised.value)


def test_a_module_cannot_be_set_by_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="password_scheme"):
        from_file(tmp_path, '[profiles.mine]\npassword_scheme = "external"\n')


async def test_a_session_speaks_as_its_profile_says() -> None:
    profile = TerminalProfile(password=Fixed(b"\x4c\x4b"), fcv=True)
    async with stage(assets(), settings=SessionSettings(profiles={"default": profile})) as made:
        device = await made.logged_in()
        session = made.session()
        await session.ready()
        with_clock(device, made.clock, {"s": 0.0})
        await session.set_clock()
        (frame,) = device.requests(0x05)
        assert frame.body.endswith(b"\x4c\x4b")
        assert len(frame.body) == 4 + 6 + 2
        asked = [one for one in device.heard if one.prm]
        assert {one.fcv for one in asked} == {True}
        assert [one.acd for one in asked] == [number % 2 == 0 for number in range(len(asked))]
