"""`lingdian token`: made once, listed without it, revoked."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from gateway.cli import app

pytestmark = pytest.mark.database


def test_a_token_is_made_listed_and_revoked(
    tmp_path: Path, conninfo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINGDIAN_DATABASE__URL", conninfo)
    (tmp_path / "terminals.csv").write_text("terminal,organisation\n02001234,东区\n")

    def run(*words: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, ["--state", str(tmp_path / "state"), *words])
        return result.exit_code, result.stdout, result.stderr

    assert run("import", f"--terminals={tmp_path / 'terminals.csv'}")[0] == 0
    create = ("token", "create", "billing", "--scope", "read", "--scope", "control")
    assert run(*create)[0] == 2
    assert run(*create, "--organisation", "东区", "--all-organisations")[0] == 2
    assert run(*create, "--organisation", "西区")[0] == 1
    assert run("token", "create", "x", "--scope", "everything", "--all-organisations")[0] == 2
    code, out, err = run(*create, "--organisation", "东区")
    token = out.strip()
    assert (code, token.startswith("lgd_"), token in err) == (0, True, False)
    with psycopg.connect(conninfo) as connection:
        assert connection.execute("SELECT token_sha256 FROM api_client").fetchall() == [
            (hashlib.sha256(token.encode()).digest(),)
        ]
    assert run(*create, "--organisation", "东区")[0] == 1
    made = json.loads(run("token", "create", "boss", "--scope=approve", "--all-organisations", "--json")[1])
    assert (made["client"], made["scopes"], made["organisation"]) == ("boss", ["approve"], None)

    listed = json.loads(run("token", "list", "--json")[1])["tokens"]
    assert [(one["client"], one["scopes"], one["organisation"]) for one in listed] == [
        ("billing", ["control", "read"], "东区"),
        ("boss", ["approve"], None),
    ]
    shown = run("token", "list")[1]
    assert "never used" in shown
    assert token not in shown + json.dumps(listed)

    assert run("token", "revoke", "billing", "nobody")[0] == 1
    assert run("token", "revoke", "billing")[0] == 0
    assert run("token", "revoke", "billing")[0] == 1
    again = json.loads(run("token", "list", "--json")[1])["tokens"]
    assert [one["revoked_at"] is None for one in again] == [False, True]
