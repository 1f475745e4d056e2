-- Readings that people took: the statements of manual_readings.py.

-- name: meter_ids
-- The meters of these numbers: number, meter, address.
SELECT number, meter_id, address FROM meter WHERE number = ANY(%s)

-- name: meters_at
-- Who had these addresses at these instants, several where terminals share an address: place in the list, meter.
SELECT DISTINCT w.place, m.meter_id, m.number
FROM unnest(%s::text[], %s::timestamptz[]) WITH ORDINALITY AS w(address, at, place)
JOIN meter AS m ON m.address = w.address
JOIN meter_install AS n ON n.meter_id = m.meter_id
    AND coalesce(n.valid_from, '-infinity') <= w.at AND w.at < coalesce(n.valid_to, 'infinity')

-- name: keep_readers
-- Who read it and when; the same again is the same.
INSERT INTO manual_reading (frozen_at, meter_id, quantity, total, reader, read_at)
SELECT * FROM unnest(%s::timestamptz[], %s::int[], %s::smallint[], %s::bigint[], %s::text[], %s::timestamptz[])
ON CONFLICT DO NOTHING
