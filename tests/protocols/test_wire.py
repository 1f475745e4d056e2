"""What is read and written by a layout leaves nothing behind for the garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Callable
from datetime import datetime

import construct
import pytest

from protocols import wire
from protocols.q_gdw376 import messages
from protocols.q_gdw376.frame import Frame, build
from protocols.q_gdw376.values import Clock, PortCapability, TerminalPorts, UnitConfirm

TIMES = 50

_CLOCK = Clock(datetime(2026, 11, 30, 3, 4, 5), 1)
_PORTS = TerminalPorts(0, 0, 0, 0, 1, 1024, 1024, ports=(PortCapability(2, 9600, 2040, 1024, 1024),) * 2)
_NESTED = construct.Struct("n" / construct.Byte, "in" / construct.Struct("a" / construct.Byte))


def _read(afn: int, fn: int, value: object) -> object:
    body = messages.encode_unit(afn, fn, 0, value)
    return messages.decode(Frame(terminal="02001234", up=True, prm=True, function=9, afn=afn, body=body))


def garbage(action: Callable[[], object]) -> int:
    """Objects that only the collector can free after doing it TIMES over."""
    action()  # what is made once and kept
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for _ in range(TIMES):
            action()
        return gc.collect()
    finally:
        if enabled:
            gc.enable()


@pytest.mark.parametrize(
    "action",
    [
        pytest.param(lambda: _read(0x02, 3, _CLOCK), id="heartbeat"),
        pytest.param(lambda: _read(0x09, 2, _PORTS), id="ports"),
        pytest.param(lambda: _read(0x00, 3, UnitConfirm(2, ((0, 3, 0), (1, 2, 0)))), id="confirm"),
        pytest.param(lambda: wire.build(_NESTED, {"n": 1, "in": {"a": 2}}, "x"), id="built"),
        pytest.param(lambda: wire.parse(_NESTED, b"\x01\x02", "x"), id="parsed"),
    ],
)
def test_nothing_is_left_for_the_collector(action: Callable[[], object]) -> None:
    assert garbage(action) < TIMES


def test_what_construct_does_itself_leaves_a_heap() -> None:
    """Else the test above could not fail."""
    assert garbage(lambda: _NESTED.parse(b"\x01\x02")) >= TIMES
    assert garbage(lambda: build(Frame(terminal="02001234", up=True, prm=True, function=9, afn=2))) < TIMES
