"""A second reader of DL/T 645 items, written from the standard's formats and from nothing in protocols/.

It knows a row of the item table by its format and length columns, and the records by the lists below. A
format with "-" before it has a sign; hex:n is n bytes shown high byte first, wire:n as they come.
"""

from __future__ import annotations

import random

TIME = "YYMMDDhhmmss"
ENERGY, SIGNED_ENERGY = "XXXXXX.XX", "-XXXXXX.XX"
FOUR = [ENERGY, ENERGY, SIGNED_ENERGY, SIGNED_ENERGY]
INSTANT = ["XXX.X", "-XXX.XXX", "-XX.XXXX", "-XX.XXXX", "-X.XXX"]
PHASES = 3 * (FOUR + INSTANT)
OPERATOR = "hex:4"
SIX = 6 * [ENERGY]
STATISTICS = ["XXXXXX", "XXXX.XX", "XXXX.XX", "XXXXXX", "XXXXXX", "XXX.X", "MMDDhhmm", "XXX.X", "MMDDhhmm"]


def _each(dis: tuple[str, ...], fields: list[str]) -> dict[str, list[str]]:
    return dict.fromkeys(dis, fields)


# The beginning of a DI (longest first) to the fields of its record, as the standard's tables list them.
RECORDS: dict[str, list[str]] = {
    **_each(("0301", "0302", "0303", "0304"), [TIME, TIME, *FOUR, *PHASES, *4 * [ENERGY]]),
    **_each(("030b", "030c", "030d"), [TIME, TIME, *FOUR, *PHASES]),
    **_each(("030e", "030f", "0307", "0308"), [TIME, TIME, *4 * FOUR]),
    **_each(("0309", "030a"), [TIME, TIME, "XX.XX", *4 * FOUR]),
    "0305": [TIME, "XXX.XXX", TIME],
    "0306": [TIME, TIME],
    "0310": STATISTICS,
    "0311": [TIME, TIME],
    "0312": [TIME, TIME, "XX.XXXX", "YYMMDDhhmm"],
    "033000": [TIME, OPERATOR, *10 * ["hex:4"]],
    "033001": [TIME, OPERATOR, *24 * [ENERGY]],
    "033002": [TIME, OPERATOR, *24 * ["XX.XXXX", "YYMMDDhhmm"]],
    "033003": [TIME, OPERATOR, "hex:4"],
    "033004": [OPERATOR, TIME, TIME],
    "033005": [TIME, OPERATOR, *16 * 14 * ["hhmmNN"]],
    "033006": [TIME, OPERATOR, *28 * ["MMDDNN"]],
    "033007": [TIME, OPERATOR, "NN"],
    "033008": [TIME, OPERATOR, *254 * ["YYMMDDNN"]],
    **_each(("033009", "03300a", "03300b"), [TIME, OPERATOR, "hex:1"]),
    "03300c": [TIME, OPERATOR, "DDhh", "DDhh", "DDhh"],
    **_each(("03300d", "03300e"), [TIME, TIME, *SIX, *SIX]),
    **_each(("1d00ff", "1e00ff"), [TIME, OPERATOR, *SIX]),
    **_each(("10", "11", "12", "13"), [TIME, *FOUR, *PHASES, *4 * [ENERGY], TIME, *4 * FOUR]),
    **_each(("14", "15", "1b", "1c"), [TIME, *4 * FOUR, TIME, *4 * FOUR]),
    **_each(("16", "17"), [TIME, *4 * FOUR, "XX.XX", TIME, *4 * FOUR]),
    **_each(("18", "19", "1a"), [TIME, *FOUR, *PHASES, TIME, *4 * FOUR]),
    "1f": [TIME, *FOUR, TIME, *FOUR],
    **_each(("0336", "0337", "20"), ["wire:9"]),
    "0504ff": ["YYMMDDhhmm", ENERGY, ENERGY],
    "061001ff": ["YYMMDDhhmm", *7 * 3 * ["XXX.X"]],
    "061002ff": ["YYMMDDhhmm", *7 * 3 * ["-XXX.XXX"]],
    **_each(("061003ff", "061004ff"), ["YYMMDDhhmm", *7 * 4 * ["-XX.XXXX"]]),
    "061005ff": ["YYMMDDhhmm", *7 * 4 * ["-X.XXX"]],
    "061006ff": ["YYMMDDhhmm", *7 * FOUR],
    "061007ff": ["YYMMDDhhmm", *7 * 4 * [ENERGY]],
    "061008ff": ["YYMMDDhhmm", *7 * 2 * ["-XX.XXXX"]],
    "061001": ["YYMMDDhhmm", *7 * ["XXX.X"]],
    "061002": ["YYMMDDhhmm", *7 * ["-XXX.XXX"]],
    **_each(("061003", "061004", "061008"), ["YYMMDDhhmm", *7 * ["-XX.XXXX"]]),
    "061005": ["YYMMDDhhmm", *7 * ["-X.XXX"]],
    **_each(("06100603", "06100604"), ["YYMMDDhhmm", *7 * [SIGNED_ENERGY]]),
    **_each(("061006", "061007"), ["YYMMDDhhmm", *7 * [ENERGY]]),
    "070000": ["hex:4", "hex:8"],
    "070001": ["XXXX", "hex:4"],
    "070002": ["digits:6", "hex:4", "hex:4", "hex:4"],
    "070003": ["hex:8"],
    **_each(("070101", "070102"), ["hex:4", "hex:4", "hex:4", "digits:6", "hex:4"]),
    "070103": 4 * ["hex:4"],
    "070301": [*3 * ["hex:4", "hex:32"], "hex:4"],
    "078001": [*4 * ["hex:2"], "wire:20", "hex:4"],
    "078003": ["digits:6", "hex:8", "hex:8", "hex:8"],
    "078102": [*4 * ["hex:4"], "digits:6", "hex:4"],
}
# Words, passwords and identifiers whose digits are bits, by the beginning of the DI (2007).
BITS = ("040005", "040006", "040007", "04000801", "040009", "040011", "040013", "04000c", "0404")
# DI1 of a freeze block's items, with 5 registers to an energy or demand.
FREEZE = [
    "YYMMDDhhmm",
    *2 * 5 * [ENERGY],
    *2 * 5 * [SIGNED_ENERGY],
    *4 * 5 * [ENERGY],
    *2 * 5 * ["XX.XXXX", "YYMMDDhhmm"],
    *8 * ["-XX.XXXX"],
]


def formats(row: dict[str, str]) -> list[str] | None:
    """The formats of a row's values, variable ones five times; None for load-profile records."""
    di, form, length = row["di"].lower(), row["format"], row["length_bytes"]
    if row["protocol"] == "2007":
        if form == "record" and di.startswith("05") and di[2:4] != "04":
            return FREEZE
        if form == "record" and di.startswith("06") and di[2:4] != "10":
            return None
        if form in ("record", "security"):
            return next(RECORDS[di[:size]] for size in (8, 6, 4, 2) if di[:size] in RECORDS)
    if form in ("bits", "HH") or (row["protocol"] == "2007" and di.startswith(BITS)):
        if form == "7xXXXX":
            return 7 * ["hex:2"]
        return [f"hex:{length}"]
    if form == "ASCII":
        return [f"ascii:{length}"]
    if form == "NNNNNNNNNNNN":
        return ["digits:6"]
    if form.startswith("3x"):
        return 6 * ["XXXXXX"]
    if form.startswith("6x"):
        return 6 * ["XXXXXX"]
    if form == "C0C1C2C3":
        return [OPERATOR]
    group = [part.strip() for part in form.replace("+", ",").split(",")]
    if row["signed"] == "yes":
        group = [part if "h" in part else f"-{part}" for part in group]
    size = sum(len_of(part) for part in group)
    return group * (int(length) // size if length.isdecimal() else 5)


def len_of(form: str) -> int:
    """Bytes of a value."""
    if ":" in form:
        return int(form.split(":")[1])
    digits = len(form.replace("-", "").replace(".", ""))
    return (digits + 1) // 2


def text_of(form: str, raw: bytes) -> str:
    """What a value of that format says. Its digits are digits, and no filler."""
    high_first = "".join(f"{byte // 16:x}{byte % 16:x}" for byte in reversed(raw))
    if form.startswith("wire:"):
        return "".join(f"{byte // 16:x}{byte % 16:x}" for byte in raw)
    if form.startswith(("hex:", "digits:")):
        return high_first
    if form.startswith("ascii:"):
        return "".join(chr(byte) for byte in reversed(raw))
    if "D" in form or "h" in form:
        pairs = [high_first[at : at + 2] for at in range(0, len(high_first), 2)]
        text = ""
        for letters, pair in zip([form[at : at + 2] for at in range(0, len(form), 2)], pairs, strict=True):
            text += {"YY": "20", "MM": "-", "DD": "-", "mm": ":", "ss": ":"}.get(letters, " ") + pair
        return text.strip(" -:")
    minus = form.startswith("-") and raw[-1] >= 128
    number = 0
    for at, byte in enumerate(reversed(raw)):
        byte -= 128 if minus and at == 0 else 0
        number = number * 100 + byte // 16 * 10 + byte % 16
    decimals = len(form.partition(".")[2])
    whole = f"{number // 10**decimals}"
    fraction = f".{number % 10**decimals:0{decimals}d}" if decimals else ""
    return ("-" if minus else "") + whole + fraction


def some_bytes(form: str, chance: random.Random) -> bytes:
    """Bytes of a value of that format: digits that can be, and no filler."""
    size = len_of(form)
    if form.startswith(("hex:", "wire:")):
        return bytes(chance.randrange(255) for _ in range(size))
    if form.startswith("ascii:"):
        return bytes(chance.randrange(0x21, 0x7F) for _ in range(size))
    if "D" in form or "h" in form:
        limits = {"YY": (1, 89), "MM": (1, 12), "DD": (1, 28), "hh": (0, 23), "mm": (0, 59), "ss": (0, 59)}
        pairs = [chance.randint(*limits.get(form[at : at + 2], (1, 6))) for at in range(0, len(form), 2)]
        return bytes(int(f"{pair:02d}", 16) for pair in reversed(pairs))
    digits = [int(f"{chance.randrange(1, 100):02d}", 16) for _ in range(size)]
    if form.startswith("-"):
        digits[-1] = int(f"{chance.randrange(80):02d}", 16) + chance.choice((0, 128))
    return bytes(digits)
