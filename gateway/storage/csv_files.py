"""CSV files from people: UTF-8 or GBK, as spreadsheets make them; every fault is named by file and line."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from gateway.errors import InputError

LINE_BYTES = 10_000
"""A row of ours has some 200 bytes; a longer line is no CSV row, and is not held."""
PROBLEMS_SHOWN = 200
"""Nobody mends more at a time; the rest is counted."""
VALUE_SHOWN = 40
"""Of a bad value, in a message."""

_BLOCK = 1 << 20
_OTHER_UNICODE = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16", codecs.BOM_UTF32_BE: "UTF-32"}


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did, counted in rows, and what is wrong with the bad ones."""

    new: int = 0
    changed: int = 0
    same: int = 0
    bad: int = 0
    conflicts: int = 0
    """of readings: differed from the one that stands and were kept aside; both can be looked at"""
    problems: tuple[str, ...] = ()
    """`file:line: column "value": what to do`, at most PROBLEMS_SHOWN, in the order of files and lines"""


@dataclass(slots=True)
class Problems:
    """Collects what is wrong with one file's rows; a row is bad once, however much is wrong with it."""

    file: str
    bad_lines: set[int] = field(default_factory=set)
    _told: list[tuple[int, str]] = field(default_factory=list)

    def add(self, line: int, column: str, value: str, reason: str) -> None:
        """`column` "" where the whole line is meant."""
        self.bad_lines.add(line)
        if len(self._told) < 10 * PROBLEMS_SHOWN:
            shown = value if len(value) <= VALUE_SHOWN else value[:VALUE_SHOWN] + "…"
            where = f' {column} "{shown}":' if column else ""
            self._told.append((line, f"{self.file}:{line}:{where} {reason}"))

    @property
    def told(self) -> tuple[str, ...]:
        """The first PROBLEMS_SHOWN in the order of lines."""
        return tuple(message for _, message in sorted(self._told)[:PROBLEMS_SHOWN])


def read_rows(
    path: Path, columns: Mapping[str, bool], problems: Problems
) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and the cells by column, stripped, empty cells and columns left out; row by row.

    `columns`: the known ones, True = must be in the header. Lines that are no row go to `problems`.
    InputError where the file cannot be read, is in no known encoding, or its header is wrong.
    """
    encoding = _encoding(path)
    try:
        with path.open("rb") as file:
            lines = _lines(file, encoding, problems)
            header = _header(path, lines, columns)
            for number, cells in lines:
                if len(cells) != len(header):
                    problems.add(
                        number,
                        "",
                        "",
                        f"has {len(cells)} cells, the header {len(header)} 列数不符; quote cells with commas",
                    )
                    continue
                yield number, {name: cell for name, cell in zip(header, cells, strict=True) if cell}
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _header(path: Path, lines: Iterator[tuple[int, list[str]]], columns: Mapping[str, bool]) -> list[str]:
    first = next(lines, None)
    if first is None:
        raise InputError(f"{path}: is empty 空文件; its first line must name columns: {', '.join(columns)}")
    line, header = first
    known = ", ".join(columns)
    for name in header:
        if name not in columns:
            raise InputError(
                f'{path}:{line}: unknown column "{name[:VALUE_SHOWN]}" 未知列; known are: {known}'
            )
        if header.count(name) > 1:
            raise InputError(f'{path}:{line}: column "{name}" stands twice 列重复; leave one of them')
    for name, needed in columns.items():
        if needed and name not in header:
            raise InputError(f'{path}:{line}: column "{name}" is missing 缺少列; known are: {known}')
    return header


def _lines(file: BinaryIO, encoding: str, problems: Problems) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each line that can be one; empty lines are passed over."""
    number = 0
    while raw := file.readline(LINE_BYTES + 1):
        number += 1
        if len(raw) > LINE_BYTES:
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(_BLOCK)
            problems.add(number, "", "", f"is longer than {LINE_BYTES} bytes 行过长; is this a CSV file?")
            continue
        text = raw.decode(encoding).removeprefix("\ufeff").strip("\r\n")
        if "\0" in text:
            problems.add(number, "", "", "holds NUL bytes 含空字符; save the file as CSV again")
            continue
        if not text.strip(" ,\t;"):
            continue
        try:
            cells = next(csv.reader([text], strict=True))
        except csv.Error as error:
            problems.add(
                number, "", "", f"is no CSV row ({error}); a cell with quotes or commas is put in quotes"
            )
            continue
        yield number, [cell.strip() for cell in cells]


def _encoding(path: Path) -> str:
    """UTF-8 if the whole file is, else GBK. InputError with the line where it is neither."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
        for mark, name in _OTHER_UNICODE.items():
            if start.startswith(mark):
                raise InputError(f"{path}: is saved as {name}; save it as UTF-8 or GBK 请另存为 UTF-8 或 GBK")
        if _decodes(path, "utf-8") is None:
            return "utf-8"
        fault = _decodes(path, "gb18030")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if fault is not None:
        raise InputError(
            f"{path}:{fault}: is neither UTF-8 nor GBK 编码无法识别; save the file as UTF-8 or GBK"
        )
    return "gb18030"


def _decodes(path: Path, encoding: str) -> int | None:
    """None if every line decodes; else the number of the first that does not."""
    number = 0
    with path.open("rb") as file:
        while raw := file.readline(LINE_BYTES):
            if raw.isascii():
                number += raw.endswith(b"\n")
                continue
            while not raw.endswith(b"\n") and len(raw) < _BLOCK and (more := file.readline(LINE_BYTES)):
                raw += more
            number += 1
            try:
                raw.decode(encoding)
            except UnicodeDecodeError:
                return number
    return None


Check = Callable[[str], object]
"""A cell to its value; ValueError with what is wanted where it cannot be one."""


def check_cells(
    cells: Mapping[str, str], checks: Mapping[str, Check], line: int, problems: Problems
) -> list[object] | None:
    """The values in the order of `checks`, None for an empty cell; None as a whole if one is bad."""
    values: list[object] = []
    good = True
    for column, check in checks.items():
        cell = cells.get(column)
        if cell is None:
            values.append(None)
            continue
        try:
            values.append(check(cell))
        except ValueError as error:
            good = False
            problems.add(line, column, cell, str(error))
    return values if good else None
