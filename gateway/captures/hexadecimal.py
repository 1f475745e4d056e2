"""Hex as people write it, with or without blanks, and hex inside the lines of a log."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import BinaryIO, Final

from gateway.captures.capture import Capture
from gateway.errors import InputError
from protocols.lens.places import find, settled

LINE_LIMIT: Final = 1 << 20
"""Bytes of one line: far above any frame (16,391 bytes), far below what hurts."""
_LONGEST_FRAME: Final = 16_391

_GROUP: Final = re.compile(r"[^\s,;:\-]+")
_PREFIX: Final = re.compile(r"0[xX]|\\x")
_NOT_HEX: Final = re.compile(r"[^0-9A-Fa-f]")

_WORD: Final = re.compile(r"[0-9A-Za-z]+")
_BETWEEN: Final = re.compile(r"[\s,;:\-]*")
# Twelve hex bytes may look like a clock; a clock has no colon and no hex digit on either side.
_STAMP: Final = re.compile(
    r"(?<![0-9A-Fa-f:])(?:(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})[T ])?"
    r"(\d{1,2}):(\d{2}):(\d{2})(?:[.,:](\d{3,6}))?(?![0-9A-Fa-f:])"
)
# Both 68H stand within a frame's first eight bytes: less than that is no beginning worth waiting for.
_LEAST_BEGINNING: Final = 8
# One byte of hex in a line of words is more often a number than a frame's next byte.
_LEAST_MORE: Final = 2


def capture(text: str, source: str = "") -> Capture:
    """One text: hex, or a line of a log with frames in it. What is neither has the error of bad hex."""
    try:
        return Capture(text, hex_bytes(text), source=source)
    except InputError as error:
        if len(text) <= LINE_LIMIT:
            data = b"".join(run for run in _runs(text) if find(run).frames)
            if data:
                return Capture(text, data, None, *_stamp(text), source)
        return Capture(text, b"", str(error), source=source)


def log(lines: Iterable[str], name: str) -> Iterator[Capture]:
    """The captures in a log file's lines; a frame may go on in the following lines.

    Lines without hex, or with no more of it than a number or a date, are passed over.
    """
    waiting: Capture | None = None
    for number, line in enumerate(lines, 1):
        runs = _line_runs(line)
        source = f"{name}:{number}"
        more = max(runs, key=len, default=b"")
        if waiting is not None and (len(more) < _LEAST_MORE or not _begins_a_frame(more)):
            joined = _joined(waiting, line, more) if len(more) >= _LEAST_MORE else waiting
            if not settled(joined.data) and len(joined.data) <= _LONGEST_FRAME:
                waiting = joined
                continue
            if find(joined.data).frames:
                yield joined
                waiting = None
                continue
        if waiting is not None:
            yield waiting
            waiting = None
        seen = Capture(line, b"".join(run for run in runs if find(run).frames), None, *_stamp(line), source)
        if seen.data:
            yield seen
            continue
        beginnings = [run for run in runs if len(run) >= _LEAST_BEGINNING and 0x68 in run]
        if beginnings and len(left := beginnings[-1][settled(beginnings[-1]) :]) >= _LEAST_BEGINNING:
            waiting = replace(seen, data=left)
        elif beginnings:
            yield replace(seen, data=b"".join(beginnings))
    if waiting is not None:
        yield waiting


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


def capture_lines(stream: BinaryIO, first: bytes = b"") -> Iterator[str]:
    """The lines of `stream` that hold something, without their ends; an overlong one is cut.

    first: a line that was read already.
    """
    while raw := first or stream.readline(LINE_LIMIT + 1):
        first = b""
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


def _line_runs(line: str) -> list[bytes]:
    if len(line) > LINE_LIMIT:
        return []
    try:
        return [hex_bytes(line)]
    except InputError:
        return _runs(line)


def _begins_a_frame(run: bytes) -> bool:
    """Whether a whole frame stands at the beginning, behind its lead-in."""
    found = find(run).frames
    return bool(found) and found[0].start == len(run) - len(run.lstrip(b"\xfe"))


def _joined(waiting: Capture, line: str, more: bytes) -> Capture:
    """What waits, with the bytes of the next line."""
    return replace(waiting, data=waiting.data + more, text=f"{waiting.text} {line}"[:LINE_LIMIT])


def _runs(line: str) -> list[bytes]:
    """Unbroken rows of hex pairs in a line; clocks and dates are none."""
    text = _PREFIX.sub("  ", _STAMP.sub(lambda stamp: "|" * len(stamp[0]), line))
    runs: list[bytearray] = []
    end = None
    for word in _WORD.finditer(text):
        if len(word[0]) % 2 or _NOT_HEX.search(word[0]):
            end = None
            continue
        joins = end is not None and _BETWEEN.fullmatch(text, end, word.start())
        if not joins:
            runs.append(bytearray())
        runs[-1] += bytes.fromhex(word[0])
        end = word.end()
    return [bytes(run) for run in runs]


def _stamp(line: str) -> tuple[str, float | None]:
    """The first clock in a line, as written and in seconds; ("", None) where there is none."""
    found = _STAMP.search(line)
    if found is None:
        return "", None
    year, month, day, hour, minute, second = (
        int(part or usual) for part, usual in zip(found.groups(), (2000, 1, 1, 0, 0, 0), strict=False)
    )
    fraction = (found[7] or "0").ljust(6, "0")
    try:
        at = datetime(year, month, day, hour, minute, second, int(fraction))
    except ValueError:
        return "", None
    return found[0], (at - datetime(2000, 1, 1)).total_seconds()
