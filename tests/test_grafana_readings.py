"""The dashboard's SQL on a migrated database: each query gives the numbers that planted rows imply."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg.sql
import pytest
from psycopg.rows import dict_row

from gateway.clock import frozen_at
from gateway.collection.plan import due
from gateway.model import (
    Due,
    Kind,
    MeterClass,
    Point,
    PointRole,
    Quality,
    Quantity,
    Reason,
    Source,
    TerminalAssets,
)
from gateway.storage.database import Connection, Database
from grafana.queries import SQL

pytestmark = pytest.mark.database

DAYS = [date(2026, 11, 27) + timedelta(days=one) for one in range(4)]
"""Business days; the last one, 30 November, closes a month."""
LAST = frozen_at(DAYS[-1])
BEGIN, END = frozen_at(DAYS[0]) - timedelta(hours=15), LAST + timedelta(hours=9)
"""The dashboard's range: from nine in the morning, whose midnight lies outside, to nine in the morning."""
SWAP = frozen_at(DAYS[1])
"""At this very midnight a meter is replaced: the freeze belongs to the new one."""


def point(
    pn: int, meter_id: int, role: PointRole, since: datetime | None = None, until: datetime | None = None
) -> Point:
    three_phase = role is PointRole.AREA_GATEWAY
    return Point(
        pn=pn,
        meter_id=meter_id,
        meter=f"M{meter_id}",
        address=f"{meter_id:012d}",
        protocol="dlt645-2007",
        meter_class=MeterClass.THREE_PHASE if three_phase else MeterClass.SINGLE_PHASE,
        role=role,
        tariffs=4,
        port=2,
        ct=1,
        pt=1,
        profile="",
        valid_from=since,
        valid_to=until,
    )


TERMINALS = (
    TerminalAssets(
        terminal_id=1,
        address="02000001",
        profile="",
        points=(
            point(1, 1, PointRole.CUSTOMER),
            point(2, 2, PointRole.FEED_IN),
            point(3, 3, PointRole.AREA_GATEWAY),
        ),
    ),
    TerminalAssets(
        terminal_id=2,
        address="02000002",
        profile="",
        points=(
            point(1, 4, PointRole.CUSTOMER, until=SWAP),
            point(1, 5, PointRole.CUSTOMER, since=SWAP),
            point(2, 6, PointRole.CUSTOMER, until=BEGIN - timedelta(days=1)),
        ),
    ),
)
AREA_OF = {1: "东风台区", 2: None}
TERMINAL_OF = {point.meter_id: one.address for one in TERMINALS for point in one.points}

DUES: list[tuple[TerminalAssets, Due]] = [
    (one, owed) for day in DAYS for one in TERMINALS for owed in due(one, day)
]

MISSING: dict[tuple[datetime, int, Quantity, Kind], Reason | None] = {
    (LAST, 2, Quantity.REVERSE_ACTIVE, Kind.DAY): Reason.NO_VALUE_YET,
    (LAST, 1, Quantity.FORWARD_ACTIVE, Kind.MONTH): Reason.TERMINAL_DENIED,
    (LAST, 5, Quantity.FORWARD_ACTIVE, Kind.DAY): None,
    (LAST, 5, Quantity.FORWARD_ACTIVE, Kind.MONTH): None,
    (frozen_at(DAYS[1]), 5, Quantity.FORWARD_ACTIVE, Kind.DAY): Reason.TERMINAL_ABSENT,
}
"""Everything else that is due is there. None: never asked."""

LATE = {
    (frozen_at(DAYS[0]), 3, Quantity.FORWARD_ACTIVE): timedelta(hours=30),
    (frozen_at(DAYS[2]), 1, Quantity.FORWARD_ACTIVE): timedelta(hours=25),
}


def key(owed: Due) -> tuple[datetime, int, Quantity, Kind]:
    return owed.frozen_at, owed.meter_id, owed.quantity, owed.kind


def business_day(instant: datetime) -> str:
    return str((instant + timedelta(hours=8)).date() - timedelta(days=1))


@dataclasses.dataclass(frozen=True)
class Planted:
    """One row of register_reading."""

    frozen_at: datetime
    meter_id: int
    quantity: Quantity
    kind: Kind
    total: int
    read_at: datetime
    source: Source
    quality: Quality


def readings() -> list[Planted]:
    """All that is due and not missing, and what is never due and must not count."""
    planted = []
    for _, owed in DUES:
        if key(owed) in MISSING:
            continue
        delay = LATE.get((owed.frozen_at, owed.meter_id, owed.quantity)) if owed.kind is Kind.DAY else None
        planted.append(
            Planted(
                *key(owed),
                total=owed.meter_id * 1_000_000 + owed.quantity,
                read_at=owed.frozen_at + (delay or timedelta(hours=2)),
                source=Source.METER if owed.meter_id == 3 else Source.TERMINAL,
                quality=Quality.LATE_READ if delay else Quality.GOOD,
            )
        )
    for extra in ((3, Quantity.FORWARD_REACTIVE, Kind.DAY), (1, Quantity.FORWARD_ACTIVE, Kind.LIVE)):
        planted.append(
            Planted(LAST, *extra, total=7, read_at=LAST, source=Source.TERMINAL, quality=Quality.GOOD)
        )
    outside = frozen_at(DAYS[0]) - timedelta(days=1)
    planted.append(
        Planted(
            outside,
            1,
            Quantity.FORWARD_ACTIVE,
            Kind.DAY,
            total=5,
            read_at=outside + timedelta(days=2),
            source=Source.TERMINAL,
            quality=Quality.LATE_READ,
        )
    )
    return planted


async def insert(connection: Connection, table: str, **values: object) -> None:
    columns = psycopg.sql.SQL(", ").join(map(psycopg.sql.Identifier, values))
    places = psycopg.sql.SQL(", ").join(psycopg.sql.Placeholder() * len(values))
    statement = psycopg.sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE VALUES ({})")
    await connection.execute(
        statement.format(psycopg.sql.Identifier(table), columns, places), list(values.values())
    )


async def plant(connection: Connection) -> None:
    """Assets, readings, failures, conflicts and strangers, as told above."""
    await insert(connection, "area", area_id=1, name=AREA_OF[1])
    for one in TERMINALS:
        at = one.terminal_id
        area = 1 if AREA_OF[at] else None
        await insert(connection, "terminal", terminal_id=at, address=one.address, area_id=area)
        for place in one.points:
            await plant_point(connection, at, place)
    for row in readings():
        await insert(
            connection, "register_reading", **dataclasses.asdict(row), collected_at=row.read_at, coarse=0
        )
    for (instant, meter_id, quantity, kind), reason in MISSING.items():
        if reason:
            await insert(
                connection,
                "collection_failure",
                frozen_at=instant,
                meter_id=meter_id,
                quantity=quantity,
                kind=kind,
                reason=reason,
                detail="",
                failed_at=LAST + timedelta(hours=2),
            )
    for noted in (LAST + timedelta(hours=3), BEGIN - timedelta(hours=1)):
        await insert(
            connection,
            "reading_conflict",
            noted_at=noted,
            frozen_at=LAST,
            meter_id=1,
            quantity=Quantity.FORWARD_ACTIVE,
            kind=Kind.DAY,
            total=round(noted.timestamp()),
            collected_at=noted,
            source=Source.PUSHED,
            quality=Quality.GOOD,
            coarse=0,
        )
    for address, seen in (("02000009", LAST + timedelta(hours=1)), ("02000008", BEGIN - timedelta(hours=1))):
        await insert(
            connection,
            "unregistered_terminal",
            address=address,
            peer="10.0.0.9:40001",
            first_seen=seen,
            last_seen=seen,
            logins=12,
        )


async def plant_point(connection: Connection, terminal_id: int, place: Point) -> None:
    """The meter, its metering point (of the same number) and where it hangs."""
    meter_id = place.meter_id
    await insert(
        connection,
        "meter",
        meter_id=meter_id,
        number=place.meter,
        address=place.address,
        protocol=place.protocol,
        **{"class": place.meter_class},
        relay_kind="built_in",
        tariffs=place.tariffs,
    )
    await insert(connection, "metering_point", point_id=meter_id, role=place.role)
    await insert(
        connection,
        "meter_install",
        point_id=meter_id,
        meter_id=meter_id,
        terminal_id=terminal_id,
        pn=place.pn,
        port=place.port,
        valid_from=place.valid_from,
        valid_to=place.valid_to,
    )


def with_range(sql: str) -> str:
    """The statement as Grafana sends it for the range BEGIN to END."""
    begin, end = (f"'{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}'" for instant in (BEGIN, END))
    sql = re.sub(r"\$__timeFilter\(([\w.]+)\)", rf"\1 BETWEEN {begin} AND {end}", sql)
    sql = sql.replace("$__timeFrom()", begin).replace("$__timeTo()", end)
    assert "$" not in sql, "a macro that this test does not know"
    return sql


async def answers(database: Database, zone: str = "UTC") -> dict[str, list[dict[str, Any]]]:
    """Every query of the dashboard on the planted rows; nothing of it stays."""
    found = {}
    async with database.pool.connection() as connection, connection.transaction(force_rollback=True):
        await plant(connection)
        await connection.execute(f"SET LOCAL timezone = '{zone}'".encode())
        for name, sql in SQL.items():
            async with connection.cursor(row_factory=dict_row) as cursor:
                await cursor.execute(with_range(sql).encode())
                found[name] = await cursor.fetchall()
    return found


@pytest.fixture
async def answered(database: Database) -> dict[str, list[dict[str, Any]]]:
    return await answers(database)


def counted(dues: Iterable[Due]) -> dict[str, Any]:
    """The four columns of completeness, from the plan and what was planted."""
    owed = list(dues)
    stored = sum(key(one) not in MISSING for one in owed)
    return {
        "Due 应采": len(owed),
        "Stored 已采": stored,
        "Missing 缺数": len(owed) - stored,
        "Complete 完整率": pytest.approx(Decimal(100 * stored) / len(owed)),
    }


async def test_days_count_what_the_plan_says_is_due(answered: dict[str, list[dict[str, Any]]]) -> None:
    assert answered["days"] == [
        {
            "Business day 业务日": str(day),
            **counted(owed for _, owed in DUES if owed.frozen_at == frozen_at(day)),
        }
        for day in DAYS
    ]


async def test_the_last_midnight_stands_alone(answered: dict[str, list[dict[str, Any]]]) -> None:
    assert answered["complete"] == [counted(owed for _, owed in DUES if owed.frozen_at == LAST)]


async def test_areas_and_terminals_come_worst_first(answered: dict[str, list[dict[str, Any]]]) -> None:
    of = {
        one.terminal_id: counted(owed for holder, owed in DUES if holder is one and owed.frozen_at == LAST)
        for one in TERMINALS
    }
    assert answered["areas"] == [
        {"Area 台区": "–", **of[2]},
        {"Area 台区": AREA_OF[1], **of[1]},
    ]
    assert answered["terminals"] == [
        {"Terminal 终端": "02000002", "Area 台区": "–", **of[2]},
        {"Terminal 终端": "02000001", "Area 台区": AREA_OF[1], **of[1]},
    ]


async def test_each_missing_reading_has_its_last_reason(answered: dict[str, list[dict[str, Any]]]) -> None:
    tried = LAST + timedelta(hours=2)
    columns = ("Reason 原因", "Missing 缺数", "Terminals 终端数", "Last tried 最近一次")
    assert [tuple(row[column] for column in columns) for row in answered["reasons"]] == [
        ("not_asked", 2, 1, None),
        ("no_value_yet", 1, 1, tried),
        ("terminal_denied", 1, 1, tried),
    ]


async def test_readings_are_counted_by_day_source_and_quality(
    answered: dict[str, list[dict[str, Any]]],
) -> None:
    planted = Counter(
        (business_day(row.frozen_at), row.source.name.lower(), row.quality.name.lower())
        for row in readings()
        if row.kind is not Kind.LIVE and BEGIN <= row.frozen_at <= END
    )
    shown = Counter(
        {
            (
                row["Business day 业务日"],
                row["Source 来源"].split()[0],
                row["Quality 质量"].split()[0],
            ): row["Readings 示值数"]
            for row in answered["qualities"]
        }
    )
    assert shown == planted


async def test_late_reads_are_listed_from_the_latest(answered: dict[str, list[dict[str, Any]]]) -> None:
    assert [
        (row["Meter 电能表"], row["Terminal 终端"], row["Business day 业务日"], row["Late by 迟"])
        for row in answered["late"]
    ] == [
        (f"M{meter_id}", TERMINAL_OF[meter_id], business_day(instant), delay.total_seconds())
        for (instant, meter_id, _), delay in sorted(LATE.items(), key=lambda one: -one[1])
    ]
    assert answered["late"][0]["Total 总示值"] == Decimal("300.0001")
    assert {row["Business day 业务日"]: row["Late reads 补抄"] for row in answered["late_days"]} == {
        business_day(instant): 1 for instant, _, _ in LATE
    }


async def test_a_conflict_shows_both_values(answered: dict[str, list[dict[str, Any]]]) -> None:
    noted = LAST + timedelta(hours=3)
    assert answered["conflict_count"] == [{"Conflicts 冲突": 1}]
    assert answered["conflicts"] == [
        {
            "Noted 记录时间": noted,
            "Meter 电能表": "M1",
            "Terminal 终端": "02000001",
            "Business day 业务日": str(DAYS[-1]),
            "Quantity 量": "forward_active 正向有功",
            "Stands 现值": Decimal("100.0001"),
            "From 来自": "终端冻结",
            "Kept aside 另存值": Decimal(round(noted.timestamp())) / 10_000,
            "It came from 另存来自": "终端主动上报",
        }
    ]


async def test_strangers_of_the_range_are_listed(answered: dict[str, list[dict[str, Any]]]) -> None:
    assert [(row["Terminal 终端"], row["Logins 登录次数"]) for row in answered["unregistered"]] == [
        ("02000009", 12)
    ]


async def test_the_reader_s_time_zone_moves_no_reading_to_another_day(database: Database) -> None:
    here, there = await answers(database), await answers(database, "America/New_York")
    for name, rows in here.items():
        assert there[name] == rows, name


async def test_an_empty_database_is_no_error(database: Database) -> None:
    async with database.pool.connection() as connection:
        for sql in SQL.values():
            await connection.execute(with_range(sql).encode())
