"""The bits of words by name (flags.csv): status words, feature words, error and execution words.

Sources: 2007 edition with the State Grid filings (status words 1 to 7, feature words, ERR, SERR, the words of
1CH); 1997 edition (C020, C021, ERR).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources

ERROR, ERROR_1997, SECURITY_ERROR = "error", "error 1997", "security error"
"""ERR of both editions, and SERR of C3H."""
EXECUTION, CONTROL_ERROR = "execution", "control error"
"""The words of 9CH and DCH where the command asked for them (P2 = 01H)."""

# Words that share their bits with others.
_SHARED = {
    "04000504": "phase fault",
    "04000505": "phase fault",
    "04000506": "phase fault",
    "04000602": "reactive combination",
    "04000603": "reactive combination",
    **{f"0400070{port}": "rate" for port in range(1, 6)},
    **{f"0400090{kind}": "freeze content" for kind in (2, 3, 4, 6)},
}
# The seven status words and, on newer meters, the key word.
_STATUS_BLOCK = "040005ff"
_STATUS_WORDS = (*(f"0400050{word}" for word in range(1, 8)), "04000508")
_LENGTHS = {"04000508": 4}


@dataclass(frozen=True, slots=True)
class Flag:
    """One bit of a word, or several that belong together.

    bit: the lowest, D0 is 0; width: how many. value: what they are. state_en, state_zh: what that value
    means; "" where the name says all. confidence: as in the item table.
    """

    bit: int
    width: int
    name_en: str
    name_zh: str
    value: int
    state_en: str
    state_zh: str
    confidence: str


@dataclass(frozen=True, slots=True)
class _Row:
    bit: int
    width: int
    name_en: str
    name_zh: str
    states: tuple[tuple[str, str], ...]
    confidence: str


def flags(word: str, value: int) -> tuple[Flag, ...]:
    """The named bits of a word, low bit first, and those set bits that have no name.

    word: a DI in lower-case hex, "rate" (17H), or one of ERROR, ERROR_1997, SECURITY_ERROR, EXECUTION,
    CONTROL_ERROR. () for a word that has no named bits.
    """
    rows = _rows().get(_SHARED.get(word, word))
    if rows is None:
        return ()
    found = []
    left = value
    for row in rows:
        mask = (1 << row.width) - 1
        bits = value >> row.bit & mask
        left &= ~(mask << row.bit)
        state = ("", "")
        if row.states:
            state = row.states[bits] if bits < len(row.states) else ("reserved", "保留")
        found.append(Flag(row.bit, row.width, row.name_en, row.name_zh, bits, *state, row.confidence))
    for bit in range(left.bit_length()):
        if left >> bit & 1:
            found.append(Flag(bit, 1, f"reserved bit {bit}", f"保留位{bit}", 1, "", "", "confirmed"))
    return tuple(sorted(found, key=lambda flag: flag.bit))


def names(word: str, value: int) -> tuple[str, ...]:
    """The English names of what is set in a word, low bit first; `word` as above."""
    return tuple(flag.name_en for flag in flags(word, value) if flag.value)


def error_words() -> dict[str, str]:
    """English to Chinese: all that error and execution words can say."""
    words = (ERROR, ERROR_1997, SECURITY_ERROR, EXECUTION, CONTROL_ERROR)
    return {row.name_en: row.name_zh for word in words for row in _rows()[word]}


def of_item(di: str, data: bytes) -> tuple[tuple[Flag, ...], ...]:
    """The flags of each word in an item's data (either edition); () for an item that is no such word.

    040005FF has seven or eight words, all others one.
    """
    di = di.lower()
    if di != _STATUS_BLOCK:
        found = flags(di, int.from_bytes(data, "little"))
        return (found,) if found and len(data) == _length(di) else ()
    words = []
    at = 0
    for word in _STATUS_WORDS:
        end = at + _length(word)
        if end > len(data):
            break
        words.append(flags(word, int.from_bytes(data[at:end], "little")))
        at = end
    return tuple(words)


def _length(di: str) -> int:
    return _LENGTHS.get(di, 2 if di.startswith("040005") else 1)


@cache
def _rows() -> dict[str, tuple[_Row, ...]]:
    text = resources.files("protocols.dlt645").joinpath("flags.csv").read_text(encoding="utf-8")
    rows: dict[str, tuple[_Row, ...]] = {}
    for line in csv.DictReader(text.splitlines()):
        rows[line["word"]] = rows.get(line["word"], ()) + tuple(_of(line))
    return rows


def _of(line: dict[str, str]) -> list[_Row]:
    english, chinese, confidence = line["name_en"], line["name_zh"], line["confidence"]
    pairs = (state.partition("/") for state in line["states"].split("|") if state)
    states = tuple((state, state_zh) for state, _, state_zh in pairs)
    first, _, last = line["bits"].partition("..")
    if last:
        return [
            _Row(bit, 1, english.replace("@", str(bit)), chinese.replace("@", str(bit)), states, confidence)
            for bit in range(int(first), int(last) + 1)
        ]
    low, _, high = line["bits"].partition("-")
    return [_Row(int(low), int(high or low) - int(low) + 1, english, chinese, states, confidence)]
