"""Hex as people write it."""

from __future__ import annotations

from io import BytesIO

import pytest

from gateway.captures import LINE_LIMIT, capture_lines, captures_in, hex_bytes
from gateway.errors import InputError


@pytest.mark.parametrize(
    "text",
    [
        "683200ff",
        "68 32 00 FF",
        "68-32-00-ff",
        "68:32:00:ff",
        "0x68, 0x32, 0x00, 0xFF",
        "0x683200ff",
        "\\x68\\x32\\x00\\xff",
        " 68\t3200ff ",
    ],
)
def test_the_same_bytes_in_any_writing(text: str) -> None:
    assert hex_bytes(text) == bytes.fromhex("683200ff")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("6832g0", "character 5 is 'g'"),
        ("68 32 0x1", "'1' at character 9"),
        ("683", "character 1"),
        ("68 32 0", "'0' at character 7"),
        ("６８", "character 1"),
        ("", "no hex digits"),
        (" - ", "no hex digits"),
        ("hello", "character 1 is 'h'"),
    ],
)
def test_bad_hex_says_where(text: str, where: str) -> None:
    with pytest.raises(InputError) as caught:
        hex_bytes(text)
    assert where in str(caught.value)


def test_lines_come_without_ends_marks_and_empty_ones() -> None:
    assert list(capture_lines(BytesIO(b"\xef\xbb\xbf68 32\r\n\n   \n0016"))) == ["68 32", "0016"]


def test_an_endless_line_is_cut_and_refused_and_the_next_is_read() -> None:
    lines = list(capture_lines(BytesIO(b"00" * LINE_LIMIT + b"\n68\n")))
    assert len(lines) == 2
    assert len(lines[0]) == LINE_LIMIT + 1
    assert lines[1] == "68"
    with pytest.raises(InputError, match="longer than"):
        hex_bytes(lines[0])


def test_single_bytes_on_the_command_line_are_one_capture() -> None:
    assert captures_in(["68", "32", "0"]) == ["68 32 0"]
    assert captures_in(["6832", "68"]) == ["6832", "68"]
    assert captures_in(["68"]) == ["68"]
