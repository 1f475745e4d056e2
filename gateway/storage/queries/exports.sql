-- Readings for others: the statements of exports.py. The instants are compared as they are: a LIVE reading belongs
-- to the business day it was taken on, which ends with that day's frozen_at.

-- name: csv
-- The contract's bytes are made by the server; energies are integers of 0.0001, which the product keeps exactly.
COPY (
    SELECT m.number AS meter, q.label AS quantity,
        to_char(r.frozen_at AT TIME ZONE INTERVAL '8 hours', 'YYYY-MM-DD"T"HH24:MI:SS"+08:00"') AS frozen_at,
        r.total * 0.0001 AS total, r.t1 * 0.0001 AS t1, r.t2 * 0.0001 AS t2, r.t3 * 0.0001 AS t3,
        r.t4 * 0.0001 AS t4, y.label AS quality, s.label AS source
    FROM register_reading AS r
    JOIN meter AS m USING (meter_id)
    JOIN quantity AS q ON q.code = r.quantity
    JOIN reading_source AS s ON s.code = r.source
    JOIN reading_quality AS y ON y.code = r.quality
    WHERE (%(kind)s::int IS NULL OR r.kind = %(kind)s)
        AND (%(first)s::timestamptz IS NULL OR r.frozen_at > %(first)s::timestamptz - INTERVAL '1 day')
        AND (%(last)s::timestamptz IS NULL OR r.frozen_at <= %(last)s)
    ORDER BY m.number, q.label, r.frozen_at, r.kind
) TO STDOUT WITH (FORMAT csv, HEADER true)

-- name: rows
-- The same rows as values.
SELECT m.number, q.label, r.frozen_at, r.total, r.t1, r.t2, r.t3, r.t4, y.label, s.label
FROM register_reading AS r
JOIN meter AS m USING (meter_id)
JOIN quantity AS q ON q.code = r.quantity
JOIN reading_source AS s ON s.code = r.source
JOIN reading_quality AS y ON y.code = r.quality
WHERE (%(kind)s::int IS NULL OR r.kind = %(kind)s)
    AND (%(first)s::timestamptz IS NULL OR r.frozen_at > %(first)s::timestamptz - INTERVAL '1 day')
    AND (%(last)s::timestamptz IS NULL OR r.frozen_at <= %(last)s)
ORDER BY m.number, q.label, r.frozen_at, r.kind
