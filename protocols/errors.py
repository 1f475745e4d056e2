"""What can go wrong with a frame, and whose fault it was."""

from __future__ import annotations


class ProtocolError(Exception):
    """Root of every error that this package raises."""


class LocalProtocolError(ProtocolError):
    """We misused the protocol: a value that cannot be sent, or a call out of order. Nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The peer's bytes break the rules.

    raw: the bytes that were looked at; offset: place of the fault in `raw`; reason: what is wrong there.
    """

    def __init__(self, raw: bytes, offset: int, reason: str) -> None:
        super().__init__(f"{reason} at byte {offset} of {len(raw)}: {raw[:64].hex(' ')}")
        self.raw = raw
        self.offset = offset
        self.reason = reason
