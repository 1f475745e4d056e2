"""What a person switches for all or for a part: brake, weather halts, limits, shadow mode, hold.

What stops trips takes one person and holds at once. What lets more of them pass (other limits, the end of an
organisation's shadow mode) holds when a second person has approved it. Nothing here ever stops a close.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from gateway.clock import Clock
from gateway.command import Limits
from gateway.control.ask import NoSuch, NotNow, NotYou, Unfit, check_text, same_person
from gateway.control.stores import SwitchStore
from gateway.storage.switches import Setting, Switch

ALL: Final = ""
"""The scope of what holds everywhere."""

SHORTEST_WINDOW: Final = timedelta(minutes=1)
LONGEST_WINDOW: Final = timedelta(days=1)
MOST: Final = 1_000_000


def of_area(area_id: int) -> str:
    """The scope of one area (台区)."""
    return f"area:{area_id}"


def of_organisation(organisation_id: int) -> str:
    """The scope of one organisation; a weather halt of it also holds for those below it."""
    return f"organisation:{organisation_id}"


class Switches:
    """Every deed leaves its line in the audit and an outgoing event. Unfit where its words make no sense."""

    def __init__(self, store: SwitchStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def brake(self, on: bool, by: str, reason: str) -> Setting:
        """Stop all trips at once, or let them go on. A trip whose last check has just passed still leaves;
        when this has returned, no check passes any more."""
        return await self._put(Switch.BRAKE, ALL, on, reason, by)

    async def halt_for_weather(self, on: bool, scope: str, by: str, reason: str) -> Setting:
        """Stop the trips of an area, an organisation with those below it, or all; scopes do not lift each
        other."""
        return await self._put(Switch.WEATHER_HALT, scope, on, reason, by)

    async def propose_limits(self, limits: Limits, by: str, reason: str) -> Setting:
        """Other limits, in force once a second person approves them."""
        for name in ("area", "requester", "all"):
            if not 0 <= getattr(limits, name) <= MOST:
                raise Unfit(None, f"the limit of {name} must lie between 0 and {MOST} 限额无效")
        if not SHORTEST_WINDOW <= limits.window <= LONGEST_WINDOW:
            raise Unfit(None, "the window must last between a minute and a day 统计时段无效")
        value = {
            "area": limits.area,
            "requester": limits.requester,
            "all": limits.all,
            "window_s": round(limits.window.total_seconds()),
        }
        return await self._put(Switch.LIMITS, ALL, value, reason, by)

    async def shadow(self, on: bool, organisation_id: int | None, by: str, reason: str) -> Setting:
        """Shadow mode of an organisation (None: of meters that belong to none). Its end is only proposed
        here, and holds for what is accepted after a second person has approved it."""
        scope = ALL if organisation_id is None else of_organisation(organisation_id)
        return await self._put(Switch.SHADOW, scope, on, reason, by)

    async def release_hold(self, by: str, reason: str) -> Setting:
        """A person has looked at what was accepted before the hold: it is carried out again, where it has not
        expired. NotNow where there is no hold."""
        if not any(one.name is Switch.HOLD and one.value is True for one in await self._store.newest()):
            raise NotNow("there is no hold 未处于保持状态")
        return await self._put(Switch.HOLD, ALL, False, reason, by)

    async def approve(self, setting_id: int, by: str) -> Setting:
        """Be the second person. The same call again returns what stands. NoSuch, NotYou, NotNow."""
        setting = await self._store.setting(setting_id)
        if setting is None:
            raise NoSuch(f"there is no setting {setting_id} 无此设定")
        if setting.approved_by == by:
            return setting
        if not setting.wants_second:
            raise NotNow("this holds without a second person 无须审批")
        if same_person(setting.set_by, by):
            raise NotYou("whoever proposed it cannot approve it 提出人不能审批")
        approved = await self._store.approve(setting_id, by, self._clock.now())
        if approved is None:
            raise NotNow("somebody else has approved it, or a newer one has taken its place 已审批或已被取代")
        return approved

    async def newest(self) -> Sequence[Setting]:
        """Of each switch and scope what holds, and what waits for a second person."""
        return await self._store.newest()

    async def _put(self, name: Switch, scope: str, value: object, reason: str, by: str) -> Setting:
        check_text("reason", reason)
        if not reason.strip():
            raise Unfit(None, "a reason is required 须填写原因")
        _check_scope(scope)
        return await self._store.put(name, scope, value, reason, by, self._clock.now())


def _check_scope(scope: str) -> None:
    kind, _, number = scope.partition(":")
    if scope != ALL and not (kind in ("area", "organisation") and number.isascii() and number.isdigit()):
        raise Unfit(None, f"a scope is empty, area:N or organisation:N, not {scope!r} 范围无效")
