"""How meters are switched, from the settings: passwords from files and the environment, and never shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.config import Settings, load
from gateway.errors import ConfigurationError
from gateway.session.settings import MeterProfile, SessionSettings, meter_profiles


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("LINGDIAN_"):
            monkeypatch.delenv(name)


def session_settings(settings: Settings) -> SessionSettings:
    """The part of the service's settings for sessions that is about meters."""
    return SessionSettings(
        meters=meter_profiles({name: meter.row() for name, meter in settings.meters.items()})
    )


def loaded(folder: Path, text: str) -> SessionSettings:
    file = folder / "lingdian.toml"
    file.write_text(text, encoding="utf-8")
    return session_settings(load(file))


def test_without_settings_nothing_can_be_switched_in_plain() -> None:
    settings = session_settings(load())
    assert settings.meter("anything") == MeterProfile()
    assert settings.meter("anything").password == ""


def test_a_profile_takes_what_it_does_not_say_from_default_and_its_dialect(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path,
        '[meters.default]\npassword = "123456"\noperator = "00000001"\n'
        '[meters.esam]\nlevel = "98"\nsealed_order = "as_given"\nstatus_word = false\n'
        '[meters.old]\nbase = "standard-1997"\nlevel = "02"\n',
    )
    assert settings.meter("unknown") == MeterProfile(password="123456", operator="00000001")
    assert settings.meter("") == settings.meter("unknown")
    esam = settings.meter("esam")
    assert (esam.sealed, esam.operator, esam.sealed_order, esam.status_word) == (
        True,
        "00000001",
        "as_given",
        False,
    )
    assert (settings.meter("old").edition, settings.meter("old").level) == ("1997", "")
    assert settings.meter("standard-1997").level == ""


def test_a_password_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "meter-password"
    secret.write_text("654321\n", encoding="ascii")
    assert loaded(tmp_path, f'[meters.default]\npassword_file = "{secret}"\n').meter("").password == "654321"
    monkeypatch.setenv("LINGDIAN_METERS__DEFAULT__PASSWORD", "111111")
    settings = loaded(tmp_path, '[meters.default]\noperator = "00000001"\n')
    assert settings.meter("").password == "111111"
    assert "111111" not in repr(settings) + repr(load())


@pytest.mark.parametrize(
    "text",
    [
        'password = "99887"',
        "password = 998877",
        'password = "998877"\npassword_file = "/nowhere"',
        'password = "998877"\nlevel = "05"',
        'password = "998877"\noperator = "1"',
        'password = "998877"\nbase = "no such"',
    ],
)
def test_a_wrong_section_is_named_and_no_password_is_shown(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        loaded(tmp_path, f"[meters.mine]\n{text}\n")
    assert "mine" in str(caught.value)
    assert "99887" not in str(caught.value)


@pytest.mark.parametrize("content", ["12345", "abcdef", ""])
def test_a_password_file_without_a_password_is_named_and_not_quoted(tmp_path: Path, content: str) -> None:
    secret = tmp_path / "meter-password"
    secret.write_text(content, encoding="ascii")
    with pytest.raises(ConfigurationError) as caught:
        loaded(tmp_path, f'[meters.default]\npassword_file = "{secret}"\n')
    assert str(secret) in str(caught.value)
    assert not content or content not in str(caught.value)


def test_a_margin_of_nothing_is_refused() -> None:
    """We would give up before the terminal does, and not know what became of a frame."""
    session = load().session
    assert (session.relay_carrier_timeout_seconds, session.relay_wire_timeout_seconds) == (60, 5)
    assert session.relay_margin_seconds == SessionSettings().relay_margin_s
    with pytest.raises(ConfigurationError):
        load(session={"relay_margin_seconds": 0})
