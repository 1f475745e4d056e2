"""What is switched for all or for a part: brake, weather halts, limits, shadow mode, hold; each with who and
why.

A table that is only added to, but for the second person's name: the newest row of a (name, scope) holds. Each
change has its line in the audit and its outgoing event, in the same transaction. The statements are in
queries/switches.sql.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from gateway.storage.database import Connection, Database, queries
from gateway.storage.evidence import note_audit


class Switch(StrEnum):
    """What can be switched."""

    BRAKE = "brake"
    WEATHER_HALT = "weather-halt"
    LIMITS = "limits"
    SHADOW = "shadow"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class Setting:
    """One row. scope: "" for all, or area:7, organisation:3. value: JSON; a boolean but for the limits."""

    id: int
    name: Switch
    scope: str
    value: Any
    reason: str
    set_by: str
    set_at: datetime
    approved_by: str | None = None
    approved_at: datetime | None = None

    @property
    def wants_second(self) -> bool:
        """Does it hold only once a second person has approved it? Other limits, and the end of shadow
        mode."""
        return self.name is Switch.LIMITS or (self.name is Switch.SHADOW and self.value is False)


class ControlSettings:
    """Satisfies `control.stores.SwitchStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(
        self, name: Switch, scope: str, value: object, reason: str, by: str, at: datetime
    ) -> Setting:
        """A new row. It holds at once, unless it wants a second person."""
        async with self._database.connection() as connection:
            return await _put(connection, name, scope, value, reason, by, at)

    async def approve(self, setting_id: int, by: str, at: datetime) -> Setting | None:
        """The second person's name. None where it has one, or a newer row has taken its place, or `by` set it
        himself."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                queries("switches")["approve"], {"setting_id": setting_id, "by": by, "at": at}
            )
            row = await cursor.fetchone()
            if row is None:
                return None
            setting = _setting(row)
            await _tell(connection, setting, at, by, "approve")
            return setting

    async def setting(self, setting_id: int) -> Setting | None:
        """One row by its number."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(queries("switches")["setting"], (setting_id,))
            row = await cursor.fetchone()
        return None if row is None else _setting(row)

    async def newest(self) -> Sequence[Setting]:
        """Of every (name, scope): the row that holds, and before it those that wait for a second person."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(queries("switches")["newest"])
            return [_setting(row) for row in await cursor.fetchall()]

    async def hold(self, reason: str, since: datetime | None, by: str, at: datetime) -> Setting:
        """Hold on, and billing is asked for the closes since then (None: all that are open with it)."""
        async with self._database.connection() as connection:
            setting = await _put(connection, Switch.HOLD, "", True, reason, by, at)
            asked = {
                "reason": reason,
                "since": None if since is None else since.astimezone(UTC).isoformat(),
                "hold": setting.id,
            }
            await connection.execute(
                queries("switches")["tell"],
                (at, "relay-control.closes-wanted", "hold", None, json.dumps(asked, ensure_ascii=False)),
            )
            return setting


async def _put(
    connection: Connection, name: Switch, scope: str, value: object, reason: str, by: str, at: datetime
) -> Setting:
    cursor = await connection.execute(
        queries("switches")["put"],
        {
            "name": name.value,
            "scope": scope,
            "value": json.dumps(value),
            "reason": reason,
            "by": by,
            "at": at,
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    setting = _setting(row)
    await _tell(connection, setting, at, by, "propose" if setting.wants_second else "set")
    return setting


async def _tell(connection: Connection, setting: Setting, at: datetime, by: str, deed: str) -> None:
    told: Mapping[str, Any] = {
        "setting": setting.id,
        "name": setting.name.value,
        "scope": setting.scope,
        "value": setting.value,
        "reason": setting.reason,
        "set_by": setting.set_by,
        "approved_by": setting.approved_by,
        "in_force": setting.approved_by is not None or not setting.wants_second,
    }
    await note_audit(connection, at, by, f"{deed} {setting.name}", told)
    organisation = setting.scope.partition("organisation:")[2]
    await connection.execute(
        queries("switches")["tell"],
        (
            at,
            f"relay-control.{setting.name}",
            setting.scope or "all",
            int(organisation) if organisation else None,
            json.dumps(told, ensure_ascii=False),
        ),
    )


def _setting(row: Sequence[Any]) -> Setting:
    return Setting(row[0], Switch(row[1]), *row[2:])
