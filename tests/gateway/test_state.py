"""The state folder: one owner, and a demo that empties only what is its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.errors import ConfigurationError, InputError
from gateway.state import State, default_state


def test_the_default_follows_the_desktop_standard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/var/x")
    assert default_state().folder == Path("/var/x/lingdian")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert default_state().folder == Path.home() / ".local/state/lingdian"
    assert default_state().demo().folder == Path.home() / ".local/state/lingdian-demo"


def test_a_second_owner_is_refused_with_the_first_ones_process(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    program = (
        "import sys; from pathlib import Path; from gateway.state import State\n"
        "with State(Path(sys.argv[1])).owned():\n"
        "    print('owned', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(state.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"owned\n"
        with pytest.raises(InputError, match=f"process {owner.pid}"), state.owned():
            pass
        owner.kill()
        owner.wait()
    with state.owned():
        pass


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="too long"):
        State(tmp_path / ("x" * 120)).create()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="--state"):
        State(tmp_path / "file" / "state").create()


def test_the_demo_empties_what_an_earlier_demo_left(tmp_path: Path) -> None:
    demo = State(tmp_path / "state").demo()
    demo.claim_demo()
    (demo.folder / "database").mkdir()
    (demo.folder / "database" / "x").write_text("")
    (demo.folder / "gateway.log").write_text("")
    with demo.owned():
        demo.claim_demo()
        demo.empty_demo()
    assert {entry.name for entry in demo.folder.iterdir()} == {".lingdian-demo", "gateway.lock"}


def test_the_demo_leaves_other_folders_alone(tmp_path: Path) -> None:
    demo = State(tmp_path / "state").demo()
    demo.folder.mkdir()
    (demo.folder / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="not the demo's"):
        demo.claim_demo()
    assert (demo.folder / "thesis.txt").exists()
