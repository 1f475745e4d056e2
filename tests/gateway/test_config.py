"""Settings: file, environment, command line; and messages that name what is wrong."""

from __future__ import annotations

import os
from datetime import time
from pathlib import Path

import pytest

from gateway.config import load, split_address
from gateway.errors import ConfigurationError


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("LINGDIAN_"):
            monkeypatch.delenv(name)


def written(folder: Path, text: str) -> Path:
    file = folder / "lingdian.toml"
    file.write_text(text, encoding="utf-8")
    return file


def refusal(file: Path | None, **sections: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(file, **sections)
    return str(caught.value)


def test_defaults_need_no_file() -> None:
    settings = load()
    assert settings.database.url is None
    assert settings.collection.passes == (time(1, 30), time(4, 0), time(6, 30))
    assert settings.listen.address.startswith("127.0.0.1:")


def test_the_command_line_goes_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(
        tmp_path, '[session]\nrepeats = 1\nreply_timeout_seconds = 7\n[listen]\naddress = "0.0.0.0:1"\n'
    )
    monkeypatch.setenv("LINGDIAN_SESSION__REPEATS", "4")
    settings = load(file, listen={"address": "127.0.0.1:0"})
    assert settings.session.repeats == 4
    assert settings.session.reply_timeout_seconds == 7
    assert settings.listen.address == "127.0.0.1:0"


def test_a_value_out_of_range_names_key_file_and_what_is_allowed(tmp_path: Path) -> None:
    file = written(tmp_path, "[session]\nrepeats = 99\n")
    said = refusal(file)
    assert "session.repeats" in said
    assert str(file) in said
    assert "less than or equal to 10" in said
    assert "99" in said


def test_a_value_from_the_environment_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINGDIAN_COLLECTION__DAYS_BACK", "63")
    said = refusal(None)
    assert "collection.days_back [environment LINGDIAN_COLLECTION__DAYS_BACK]" in said


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    said = refusal(written(tmp_path, '[session]\nrepeats = -1\n[log]\nlevel = "loud"\n'))
    assert "session.repeats" in said
    assert "log.level" in said
    assert "'debug', 'info', 'warning' or 'error'" in said


@pytest.mark.parametrize(
    ("text", "key", "known"),
    [
        ("[session]\nheartbeet = 3\n", "session.heartbeet", "heartbeat_seconds"),
        ("[nothing]\nx = 1\n", "nothing", "collection"),
        ('[profiles.henan]\ntd = "x"\n', "profiles.henan.td", "td_d_names"),
    ],
)
def test_an_unknown_key_is_refused_with_those_that_there_are(
    tmp_path: Path, text: str, key: str, known: str
) -> None:
    said = refusal(written(tmp_path, text))
    assert f"  {key} [" in said
    assert "no such key" in said
    assert known in said


def test_an_unknown_section_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINGDIAN_SESION__REPEATS", "4")
    said = refusal(None)
    assert "LINGDIAN_SESION__REPEATS" in said
    assert "session" in said


def test_an_unknown_key_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINGDIAN_SESSION__REPEAT", "4")
    assert "session.repeat [environment LINGDIAN_SESSION__REPEAT]" in refusal(None)


def test_broken_toml_names_file_and_line(tmp_path: Path) -> None:
    file = written(tmp_path, "[session]\nrepeats = = 3\n")
    said = refusal(file)
    assert str(file) in said
    assert "line 2" in said


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "no.toml" in refusal(tmp_path / "no.toml")


def test_a_password_is_never_shown(tmp_path: Path) -> None:
    file = written(tmp_path, '[database]\nurl = "postgresql://u:sesame@h/d"\npool_size = 1\n')
    assert "sesame" not in refusal(file)
    file = written(tmp_path, '[database]\nurl = "postgresql://u:sesame@h/d"\n')
    assert "sesame" not in repr(load(file))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[collection]\npasses = ["04:00", "01:30"]\n', "rising"),
        ("[collection]\npasses = []\n", "at least one"),
        ('[collection]\ndaytime_begin = "20:00"\n', "before daytime_end"),
        ("[collection]\nbackoff_seconds = 1000\n", "backoff_limit_seconds"),
        ("[clock]\nstart = 2026-11-24T00:00:00\n", "+08:00"),
        ('[listen]\naddress = "7000"\n', "HOST:PORT"),
        ('[http]\naddress = "127.0.0.1:65536"\n', "65535"),
    ],
)
def test_settings_that_do_not_fit_together_say_why(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(written(tmp_path, text))


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().session.repeats = 3


@pytest.mark.parametrize(
    ("text", "parts"), [("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:7000", ("::1", 7000)), ("h:1", ("h", 1))]
)
def test_addresses_are_split(text: str, parts: tuple[str, int]) -> None:
    assert split_address(text) == parts
