"""Which meter a terminal's point stands for, and whether its values may be filed at all."""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

from gateway.model import Point, Reason, TerminalAssets

MIDNIGHTS_REMEMBERED: Final = 8
"""Midnights for which the meters of a terminal are looked up beforehand: a week and a month's end."""


class Target(NamedTuple):
    """The meter at a point. reason: None, or why its values must not be filed."""

    meter_id: int
    reason: Reason | None
    detail: str


class Targets:
    """Which meter each point of one terminal means, by midnight; made anew when assets or archive change."""

    __slots__ = ("_archive", "_by_instant", "_doubt", "_points")

    def __init__(self, assets: TerminalAssets, doubt: str = "") -> None:
        """doubt: why the archive says nothing about the device that is connected now; "" if it does."""
        self._archive = assets.archive
        self._doubt = doubt
        self._points = [(point, self._judge(point)) for point in assets.points]
        self._by_instant: dict[datetime, dict[int, Target]] = {}

    def at(self, instant: datetime) -> dict[int, Target]:
        """pn -> meter installed there at `instant`, for all points that had one."""
        found = self._by_instant.get(instant)
        if found is None:
            found = {point.pn: target for point, target in self._points if point.holds_at(instant)}
            if len(self._by_instant) >= MIDNIGHTS_REMEMBERED:
                del self._by_instant[next(iter(self._by_instant))]
            self._by_instant[instant] = found
        return found

    def _judge(self, point: Point) -> Target:
        if self._doubt:
            return Target(point.meter_id, Reason.ARCHIVE_DIFFERS, self._doubt)
        if self._archive is None:
            return Target(point.meter_id, None, "")
        held = self._archive.get(point.pn)
        if held is None:
            return Target(point.meter_id, Reason.NOT_IN_ARCHIVE, f"p{point.pn}")
        if held != point.address:
            detail = f"p{point.pn}: terminal has {held}, assets have {point.address}"
            return Target(point.meter_id, Reason.ARCHIVE_DIFFERS, detail)
        return Target(point.meter_id, None, "")
