-- Readings that people took: the statements of manual_readings.py.

-- name: meter_ids
-- The meters of these numbers.
SELECT number, meter_id FROM meter WHERE number = ANY(%s)

-- name: keep_readers
-- Who read it and when; the same again is the same.
INSERT INTO manual_reading (frozen_at, meter_id, quantity, total, reader, read_at)
SELECT * FROM unnest(%s::timestamptz[], %s::int[], %s::smallint[], %s::bigint[], %s::text[], %s::timestamptz[])
ON CONFLICT DO NOTHING
