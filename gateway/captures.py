"""Frames as people write them down: hex with or without spaces, one capture a line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from gateway.errors import InputError
from protocols import lens

LINE_LIMIT: Final = 1 << 20
"""Bytes of one line: far above any frame (16,391 bytes), far below what hurts."""

_GROUP: Final = re.compile(r"[^\s,;:\-]+")
_PREFIX: Final = re.compile(r"0[xX]|\\x")
_NOT_HEX: Final = re.compile(r"[^0-9A-Fa-f]")


def look(line: str) -> dict[str, Any]:
    """One capture as `{"input", "frames", "discarded", "error"}`; bad hex is an error with no frames."""
    try:
        seen = lens.look(hex_bytes(line))
    except InputError as error:
        return {"input": line, "frames": [], "discarded": 0, "error": str(error)}
    return {"input": line, "frames": seen.frames, "discarded": seen.discarded, "error": seen.error}


def hex_bytes(text: str) -> bytes:
    """The bytes that `text` writes: pairs of hex digits; blanks, `,` `;` `:` `-` and `0x` may stand between.

    Raises InputError that names the character and its place (counted from 1).
    """
    if len(text) > LINE_LIMIT:
        raise InputError(f"longer than {LINE_LIMIT} characters: split it 内容过长")
    out = bytearray()
    # a prefix gives way to two blanks, so that places stay true
    for group in _GROUP.finditer(_PREFIX.sub("  ", text)):
        if wrong := _NOT_HEX.search(group[0]):
            place = group.start() + wrong.start() + 1
            raise InputError(f"character {place} is {wrong[0]!r}, not a hex digit 不是十六进制字符")
        if len(group[0]) % 2:
            shown = group[0] if len(group[0]) <= 16 else f"{group[0][:16]}…"
            raise InputError(
                f"odd number of hex digits ({len(group[0])}) in {shown!r} at character {group.start() + 1}:"
                " one is missing 十六进制位数为奇数"
            )
        out += bytes.fromhex(group[0])
    if not out:
        raise InputError("no hex digits here 没有十六进制内容")
    return bytes(out)


def capture_lines(stream: BinaryIO) -> Iterator[str]:
    """The lines of `stream` that hold something, without their ends; an overlong one is cut."""
    while raw := stream.readline(LINE_LIMIT + 1):
        rest = raw
        while len(rest) > LINE_LIMIT and not rest.endswith(b"\n"):
            rest = stream.readline(LINE_LIMIT + 1)
        if line := raw.decode("utf-8", "replace").strip("\ufeff \t\r\n"):
            yield line


def captures_in(words: list[str]) -> list[str]:
    """Command line words as captures: each its own, but single bytes (`68 32 00 …`) are one together."""
    if len(words) > 1 and all(len(word) <= 2 for word in words):
        return [" ".join(words)]
    return words
