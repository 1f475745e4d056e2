"""What is dangerous leaves the master only with a permit for exactly that, on exactly that terminal."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pytest

from protocols.errors import LocalProtocolError
from protocols.permit import Permit
from protocols.q_gdw376 import items, messages
from protocols.q_gdw376.connection import Master, Silent
from protocols.q_gdw376.frame import parse
from protocols.q_gdw376.messages import Request, RequestUnit

TERMINAL = "02001234"
WRITE_ARCHIVE = "376 04 f10"


def a_master() -> Master:
    master = Master()
    master.terminal = TERMINAL
    return master


def asks(afn: int, fn: int, action: str = "", target: str = TERMINAL) -> Request:
    return Request(afn, (RequestUnit(0, fn),), permit=Permit(action, target, "test") if action else None)


@pytest.mark.parametrize(
    ("afn", "fn"),
    [(1, 1), (1, 2), (1, 3), (1, 4), (4, 1), (4, 3), (4, 10), (5, 1), (5, 2), (5, 25), (5, 33), (5, 52), (5,
    53),
     (6, 1), (0x0F, 1), (0x10, 10), (0x10, 11), (0x10, 12), (1, 200), (4, 248), (5, 200), (6, 99), (0x0F, 9)],
)  # fmt: skip
def test_a_dangerous_class_needs_a_permit(afn: int, fn: int) -> None:
    """Also one that no table knows."""
    action = f"376 {afn:02x} f{fn}"
    assert asks(afn, fn).actions == (action,)
    for wrong in (
        asks(afn, fn),
        asks(afn, fn, f"376 {afn:02x} f{fn % 248 + 1}", TERMINAL),
        asks(afn, fn, action, "02001235"),
        asks(afn, fn, action.upper(), TERMINAL),
    ):
        with pytest.raises(LocalProtocolError, match=action):
            a_master().send(wrong, 0.0)
    assert parse(a_master().send(asks(afn, fn, action, TERMINAL), 0.0)).afn == afn


def test_a_refused_request_leaves_the_link_as_it_was() -> None:
    master = a_master()
    with pytest.raises(LocalProtocolError):
        master.send(messages.write_archive([]), 0.0)
    assert not master.busy
    assert master.next_timeout() is None
    assert parse(master.send(messages.read_clock(), 0.0)).pseq == 1


def test_one_permit_is_for_one_class() -> None:
    two = Request(4, (RequestUnit(0, 10), RequestUnit(0, 3)), permit=Permit(WRITE_ARCHIVE, TERMINAL, "test"))
    assert two.actions == (WRITE_ARCHIVE, "376 04 f3")
    with pytest.raises(LocalProtocolError, match="f3"):
        a_master().send(two, 0.0)
    same = Request(4, (RequestUnit(0, 10),) * 2, permit=Permit(WRITE_ARCHIVE, TERMINAL, "test"))
    assert a_master().send(same, 0.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: messages.set_clock(datetime(2026, 11, 24, 9, 0)),
        lambda: messages.forward(31, b"\x68", 60, 100),
        lambda: messages.read_archive([1]),
        messages.read_version,
    ],
)
def test_what_is_not_dangerous_needs_none(make: Callable[[], Request]) -> None:
    assert a_master().send(make(), 0.0)


def test_the_archive_is_written_with_a_permit() -> None:
    permit = Permit(WRITE_ARCHIVE, TERMINAL, "test")
    assert a_master().send(messages.write_archive([], permit=permit), 0.0)


def test_what_had_a_permit_is_never_repeated() -> None:
    """Also where its maker forgot to say that it does more than read."""
    request = asks(5, 1, "376 05 f1")
    assert request.repeatable
    master = a_master()
    master.send(request, 0.0)
    master.handle_timeout(1000.0)
    assert master.data_to_send() == b""
    assert master.next_event() == Silent(request, ())


def test_no_class_that_only_asks_is_dangerous() -> None:
    """These AFNs are not looked at further: the sweep runs on them."""
    for afn in items.ASKING_AFNS:
        assert not [fn for fn in range(1, 249) if items.dangerous(afn, fn)]


def test_a_group_has_a_permit_of_its_own() -> None:
    everyone = "0200ffff"
    for target, good in ((TERMINAL, False), (everyone, True)):
        request = asks(5, 1, "376 05 f1", target)
        if good:
            assert parse(a_master().send_to_group(request, everyone)).terminal == everyone
        else:
            with pytest.raises(LocalProtocolError):
                a_master().send_to_group(request, everyone)
