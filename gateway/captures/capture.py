"""Bytes that were seen together, and what is in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from protocols import lens


@dataclass(frozen=True, slots=True)
class Capture:
    """One hex text, log line, packet or piece of a stream.

    text: as it was written, the hex of `data` for packets. data: its bytes. error: why it has none. at: when
    it was seen, as written or in Asia/Shanghai, "" where nobody says. seconds: the same to reckon with.
    source: file and line, or the ends of the connection; "" for an argument.
    """

    text: str
    data: bytes
    error: str | None = None
    at: str = ""
    seconds: float | None = None
    source: str = ""

    def look(self) -> dict[str, Any]:
        """`{"input", "frames", "discarded", "error"}`; what has no bytes is an error with no frames."""
        if self.error is not None:
            return {"input": self.text, "frames": [], "discarded": 0, "error": self.error}
        seen = lens.look(self.data)
        return {"input": self.text, "frames": seen.frames, "discarded": seen.discarded, "error": seen.error}
