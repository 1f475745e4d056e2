"""Leave to build one dangerous frame.

Frames that switch, write, clear or reset are built only by functions that want a `Permit` for exactly that
action and that target. It is no secret and no proof: it makes whoever builds such a frame say so, in one
line that can be searched for.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocols.errors import LocalProtocolError


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave for one action on one target.

    action: what is built, "645 1c trip" or "376 04 f10" (function or AFN in lower-case hex, then verb or Fn).
    target: the meter's or terminal's address. reason: why, for whoever reads the log.
    """

    action: str
    target: str
    reason: str

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise LocalProtocolError(f"a permit for {self.action} on {self.target} needs a reason")


def demand(permit: Permit | None, action: str, target: str) -> None:
    """LocalProtocolError unless `permit` is for `action` on `target`."""
    if permit is None:
        raise LocalProtocolError(f"{action} on {target} is dangerous: it is built only with a permit")
    if (permit.action, permit.target) != (action, target):
        raise LocalProtocolError(
            f"{action} on {target}: the permit is for {permit.action} on {permit.target}, not for this"
        )
