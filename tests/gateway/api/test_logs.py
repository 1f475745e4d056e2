"""What goes wrong is logged with its trace, and without what the variables held."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog

from gateway import logs

CANARY = "lgd_canary-0123456789"


@pytest.fixture
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_trace_shows_no_variables(
    form: str, as_before: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("info", "json" if form == "json" else "text")

    def fails(token: str) -> None:
        raise RuntimeError(f"inside, with {len(token)} characters")

    for say in (structlog.get_logger("gateway").exception, logging.getLogger("uvicorn.error").exception):
        try:
            fails("-".join(["lgd_canary", "0123456789"]))
        except RuntimeError:
            say("it broke")
    structlog.get_logger("gateway").info("a request", token=CANARY, secret=CANARY, authorization=CANARY)
    told = capsys.readouterr().err
    assert told.count("RuntimeError") >= 2
    assert "fails(" in told
    assert CANARY not in told
