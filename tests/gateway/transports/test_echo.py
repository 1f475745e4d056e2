"""Echoes are taken out, and nothing else is: whatever the line, the chunks and the mode."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.transports.channel import Echo
from gateway.transports.echo import LATE_S, MISSES, NOISE, EchoFilter

QUESTION = bytes.fromhex("fefefefe 68 111111111111 68 11 04 33333433 16 16")
ANSWER = bytes.fromhex("fefefefe 68 111111111111 68 91 08 33333433 44 33 33 33 ae 16")
LINE_S = 0.1


def chunks(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` in parts of those lengths, over and over."""
    parts, at, number = [], 0, 0
    while at < len(data):
        length = cuts[number % len(cuts)] if cuts else len(data)
        parts.append(data[at : at + length])
        at, number = at + length, number + 1
    return parts


def heard(echo: EchoFilter, data: bytes, cuts: list[int], now: float = 0.0) -> bytes:
    """What is given of `data`, that which was held back to a deadline included: what is not the first echo
    may be the beginning of the next one."""
    given = b"".join(echo.received(part, now) for part in chunks(data, cuts))
    while echo.deadline is not None:
        given += echo.expired(echo.deadline)
    return given


CUTS = st.lists(st.integers(1, 40), max_size=5)


@pytest.mark.parametrize("mode", ["on", "auto"])
@given(cuts=CUTS)
def test_an_echo_is_taken_out(mode: Echo, cuts: list[int]) -> None:
    echo = EchoFilter(mode)
    for _ in range(5):
        echo.written(QUESTION, 0.0, LINE_S)
        assert heard(echo, QUESTION + ANSWER, cuts) == ANSWER


@pytest.mark.parametrize("mode", ["off", "on", "auto"])
@given(cuts=CUTS)
def test_without_an_echo_the_answer_is_whole(mode: Echo, cuts: list[int]) -> None:
    echo = EchoFilter(mode)
    for exchange in range(5):
        echo.written(QUESTION, exchange * 10.0, LINE_S)
        assert heard(echo, ANSWER, cuts, exchange * 10.0) == ANSWER


@given(data=st.binary(max_size=300), writes=st.lists(st.binary(max_size=40), max_size=4), cuts=CUTS)
@example(data=b"d", writes=[b"d\x00", b"d\x00"], cuts=[])
def test_only_whole_writes_are_ever_missing(data: bytes, writes: list[bytes], cuts: list[int]) -> None:
    """What is given, with echoes put back somewhere, is what came."""
    echo = EchoFilter("on")
    for write in writes:
        echo.written(write, 0.0, LINE_S)
    given_ = heard(echo, data, cuts)
    lengths = {0}
    for write in writes:
        lengths |= {length + len(write) for length in lengths}
    assert len(data) - len(given_) in lengths
    rest = iter(data)
    assert all(byte in rest for byte in given_)


@pytest.mark.parametrize("noise", [b"\x00", b"\xff\xfe", bytes(NOISE)])
def test_noise_may_stand_before_an_echo(noise: bytes) -> None:
    echo = EchoFilter("on")
    echo.written(QUESTION, 0.0, LINE_S)
    assert heard(echo, noise + QUESTION + ANSWER, []) == noise + ANSWER


def test_more_noise_than_that_is_no_echo() -> None:
    echo = EchoFilter("on")
    echo.written(QUESTION, 0.0, LINE_S)
    came = bytes(NOISE + 1) + QUESTION
    assert heard(echo, came, []) == came


def test_a_damaged_echo_is_given_and_the_next_is_taken_again() -> None:
    echo = EchoFilter("on")
    damaged = QUESTION[:10] + b"\x00" + QUESTION[11:]
    echo.written(QUESTION, 0.0, LINE_S)
    assert heard(echo, damaged + ANSWER, []) == damaged + ANSWER
    echo.written(QUESTION, 5.0, LINE_S)
    assert heard(echo, QUESTION + ANSWER, [], 5.0) == ANSWER


def test_two_writes_have_two_echoes_with_something_between() -> None:
    echo = EchoFilter("on")
    echo.written(b"\xfe" * 4, 0.0, LINE_S)
    echo.written(QUESTION, 0.0, LINE_S)
    assert heard(echo, b"\xfe" * 4 + b"\x00" + QUESTION + ANSWER, [3]) == b"\x00" + ANSWER


def test_what_comes_late_is_no_echo() -> None:
    echo = EchoFilter("on")
    echo.written(QUESTION, 0.0, LINE_S)
    assert echo.received(QUESTION, LINE_S + LATE_S) == QUESTION


def test_a_beginning_is_held_to_its_deadline_only() -> None:
    echo = EchoFilter("on")
    echo.written(QUESTION, 0.0, LINE_S)
    assert echo.received(QUESTION[:7], 0.01) == b""
    assert echo.deadline == LINE_S + LATE_S
    assert echo.expired(LINE_S + LATE_S - 0.01) == b""
    assert echo.expired(LINE_S + LATE_S) == QUESTION[:7]
    assert echo.deadline is None


def test_writes_one_after_the_other_have_the_time_of_both() -> None:
    echo = EchoFilter("on")
    echo.written(QUESTION, 0.0, 2.0)
    echo.written(QUESTION, 0.0, 2.0)
    assert echo.received(QUESTION, 2.1) == b""
    assert echo.received(QUESTION + ANSWER, 4.1) == ANSWER


def test_auto_finds_out_that_there_is_no_echo() -> None:
    for comes in (b"", ANSWER):
        echo = EchoFilter("auto")
        for exchange in range(MISSES):
            assert echo.active
            echo.written(QUESTION, exchange * 10.0, LINE_S)
            assert echo.received(comes, exchange * 10.0 + 0.2) == comes
        echo.written(QUESTION, 90.0, LINE_S)
        assert not echo.active
        assert echo.received(QUESTION, 100.0) == QUESTION
    firm = EchoFilter("on")
    for exchange in range(10):
        firm.written(QUESTION, exchange * 10.0, LINE_S)
    assert firm.active


def test_auto_that_has_heard_one_echo_goes_on() -> None:
    echo = EchoFilter("auto")
    echo.written(QUESTION, 0.0, LINE_S)
    assert heard(echo, QUESTION, []) == b""
    for exchange in range(1, 10):
        echo.written(QUESTION, exchange * 10.0, LINE_S)
    assert echo.active
