-- What stands and what failed: the statements of gaps.py.

-- name: stored
-- The keys of these meters that stand at one instant.
SELECT meter_id, quantity, kind FROM register_reading
WHERE frozen_at = %(frozen_at)s AND meter_id = ANY(%(meter_ids)s::int[])

-- name: failures
-- The last failures of these meters at one instant; one whose reading stands by now is over.
SELECT meter_id, quantity, kind, reason, detail, failed_at, times FROM collection_failure AS f
WHERE frozen_at = %(frozen_at)s AND meter_id = ANY(%(meter_ids)s) AND NOT EXISTS (
    SELECT FROM register_reading AS r
    WHERE r.frozen_at = f.frozen_at AND r.meter_id = f.meter_id AND r.quantity = f.quantity AND r.kind = f.kind
)

-- name: note_failures
-- Keep the last reason of each key (given once) whose reading does not stand.
INSERT INTO collection_failure AS known (frozen_at, meter_id, quantity, kind, reason, detail, failed_at)
SELECT given.*, %(at)s
FROM unnest(%(frozen_at)s::timestamptz[], %(meter_id)s::int[], %(quantity)s::smallint[], %(kind)s::smallint[],
    %(reason)s::text[], %(detail)s::text[]) AS given (frozen_at, meter_id, quantity, kind, reason, detail)
WHERE NOT EXISTS (
    SELECT FROM register_reading AS r
    WHERE r.frozen_at = given.frozen_at AND r.meter_id = given.meter_id AND r.quantity = given.quantity
        AND r.kind = given.kind
)
ON CONFLICT (frozen_at, meter_id, quantity, kind) DO UPDATE SET
    reason = excluded.reason, detail = excluded.detail, failed_at = excluded.failed_at, times = known.times + 1
