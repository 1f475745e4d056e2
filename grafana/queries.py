"""What the dashboard asks the database, by name.

Grafana puts its range in where `$__timeFrom()`, `$__timeTo()` and `$__timeFilter()` stand. What is due stands
here a second time, in SQL: a test holds it equal to the plan.
"""

from __future__ import annotations

from typing import Final

EVERY_MIDNIGHT: Final = """
midnight AS (
    SELECT wall AT TIME ZONE 'Asia/Shanghai' AS frozen_at
    FROM generate_series(date_trunc('day', $__timeFrom()::timestamptz AT TIME ZONE 'Asia/Shanghai'),
                         $__timeTo()::timestamptz AT TIME ZONE 'Asia/Shanghai', INTERVAL '1 day') AS wall
    WHERE wall AT TIME ZONE 'Asia/Shanghai' >= $__timeFrom()::timestamptz
)"""
"""All midnights of Shanghai within the dashboard's range."""

LAST_MIDNIGHT: Final = """
midnight AS (
    SELECT date_trunc('day', $__timeTo()::timestamptz AT TIME ZONE 'Asia/Shanghai')
               AT TIME ZONE 'Asia/Shanghai' AS frozen_at
)"""
"""The newest one before the range ends."""

DUE: Final = """
due AS (
    SELECT midnight.frozen_at, meter_id, terminal_id, quantity, kind
    FROM midnight
    JOIN meter_install ON (valid_from IS NULL OR valid_from <= midnight.frozen_at)
                      AND (valid_to IS NULL OR midnight.frozen_at < valid_to)
    JOIN metering_point USING (point_id)
    CROSS JOIN LATERAL (
        SELECT 1, 1
        UNION ALL SELECT 2, 1 WHERE role <> 'customer'
        UNION ALL SELECT 1, 2 WHERE extract(day FROM midnight.frozen_at AT TIME ZONE 'Asia/Shanghai') = 1
    ) AS register (quantity, kind)
)"""
"""What each midnight owes: forward active of every meter, reverse active too unless it is a customer's, and
the month's register at the midnight that closes a month."""

BUSINESS_DAY: Final = "(({} AT TIME ZONE 'Asia/Shanghai')::date - 1)::text"

NAMED_READING: Final = 'number AS "Meter 电能表", terminal.address AS "Terminal 终端"'

INSTALLED: Final = """JOIN meter USING (meter_id)
LEFT JOIN meter_install ON meter_install.meter_id = meter.meter_id
    AND (valid_from IS NULL OR valid_from <= {0}) AND (valid_to IS NULL OR {0} < valid_to)
LEFT JOIN terminal USING (terminal_id)"""

COUNTS: Final = """count(*) AS "Due 应采", count(reading.meter_id) AS "Stored 已采",
       count(*) - count(reading.meter_id) AS "Missing 缺数",
       100.0 * count(reading.meter_id) / nullif(count(*), 0) AS "Complete 完整率"
FROM due
LEFT JOIN register_reading AS reading USING (frozen_at, meter_id, quantity, kind)"""

SQL: Final[dict[str, str]] = {
    "complete": f"WITH {LAST_MIDNIGHT},{DUE}\nSELECT {COUNTS}",
    "days": f"""WITH {EVERY_MIDNIGHT},{DUE}
SELECT {BUSINESS_DAY.format("frozen_at")} AS "Business day 业务日", {COUNTS}
GROUP BY frozen_at ORDER BY frozen_at""",
    "areas": f"""WITH {LAST_MIDNIGHT},{DUE}
SELECT coalesce(area.name, '–') AS "Area 台区", {COUNTS}
JOIN terminal USING (terminal_id)
LEFT JOIN area USING (area_id)
GROUP BY area.name ORDER BY 5, 2 DESC, 1 LIMIT 100""",
    "terminals": f"""WITH {LAST_MIDNIGHT},{DUE}
SELECT terminal.address AS "Terminal 终端", coalesce(min(area.name), '–') AS "Area 台区", {COUNTS}
JOIN terminal USING (terminal_id)
LEFT JOIN area USING (area_id)
GROUP BY terminal.address ORDER BY 6, 3 DESC, 1 LIMIT 100""",
    "reasons": f"""WITH {LAST_MIDNIGHT},{DUE}
SELECT coalesce(reason, 'not_asked') AS "Reason 原因", count(*) AS "Missing 缺数",
       count(DISTINCT terminal_id) AS "Terminals 终端数", max(failed_at) AS "Last tried 最近一次"
FROM due
LEFT JOIN register_reading AS reading USING (frozen_at, meter_id, quantity, kind)
LEFT JOIN collection_failure USING (frozen_at, meter_id, quantity, kind)
WHERE reading.meter_id IS NULL
GROUP BY 1 ORDER BY 2 DESC, 1""",
    "qualities": f"""SELECT {BUSINESS_DAY.format("frozen_at")} AS "Business day 业务日",
       reading_source.label || ' ' || reading_source.name_zh AS "Source 来源",
       reading_quality.label || ' ' || reading_quality.name_zh AS "Quality 质量",
       count(*) AS "Readings 示值数"
FROM register_reading
JOIN reading_source ON reading_source.code = source
JOIN reading_quality ON reading_quality.code = quality
WHERE $__timeFilter(frozen_at) AND kind <> 3
GROUP BY frozen_at, source, quality, 2, 3 ORDER BY frozen_at DESC, source, quality""",
    "late": f"""SELECT {NAMED_READING}, {BUSINESS_DAY.format("frozen_at")} AS "Business day 业务日",
       quantity.label || ' ' || quantity.name_zh AS "Quantity 量",
       register_reading.total / 10000.0 AS "Total 总示值",
       read_at AS "Read by the terminal 终端抄表时间",
       extract(epoch FROM read_at - frozen_at) AS "Late by 迟"
FROM register_reading
JOIN reading_quality ON reading_quality.code = quality
JOIN quantity ON quantity.code = register_reading.quantity
{INSTALLED.format("frozen_at")}
WHERE $__timeFilter(frozen_at) AND kind <> 3 AND reading_quality.label = 'late_read'
ORDER BY read_at - frozen_at DESC, number LIMIT 100""",
    "late_days": f"""SELECT {BUSINESS_DAY.format("frozen_at")} AS "Business day 业务日",
       count(*) AS "Late reads 补抄"
FROM register_reading
JOIN reading_quality ON reading_quality.code = quality
WHERE $__timeFilter(frozen_at) AND kind <> 3 AND reading_quality.label = 'late_read'
GROUP BY frozen_at ORDER BY frozen_at""",
    "conflict_count": """SELECT count(*) AS "Conflicts 冲突"
FROM reading_conflict WHERE $__timeFilter(noted_at)""",
    "conflicts": f"""SELECT noted_at AS "Noted 记录时间", {NAMED_READING},
       {BUSINESS_DAY.format("aside.frozen_at")} AS "Business day 业务日",
       quantity.label || ' ' || quantity.name_zh AS "Quantity 量",
       standing.total / 10000.0 AS "Stands 现值", standing_source.name_zh AS "From 来自",
       aside.total / 10000.0 AS "Kept aside 另存值", aside_source.name_zh AS "It came from 另存来自"
FROM reading_conflict AS aside
LEFT JOIN register_reading AS standing USING (frozen_at, meter_id, quantity, kind)
LEFT JOIN reading_source AS standing_source ON standing_source.code = standing.source
JOIN reading_source AS aside_source ON aside_source.code = aside.source
JOIN quantity ON quantity.code = aside.quantity
{INSTALLED.format("aside.frozen_at")}
WHERE $__timeFilter(noted_at)
ORDER BY noted_at DESC, number LIMIT 100""",
    "unregistered": """SELECT address AS "Terminal 终端", peer AS "Came from 来自",
       logins AS "Logins 登录次数",
       last_seen AS "Last seen 最近一次"
FROM unregistered_terminal WHERE $__timeFilter(last_seen) ORDER BY last_seen DESC, address LIMIT 100""",
}
"""Every query by name."""
