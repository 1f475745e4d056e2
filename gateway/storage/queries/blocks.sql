-- Protections of customers and points: the statements of blocks.py.

-- name: first_intents
-- Desks for meters that never had a command.
INSERT INTO meter_intent (meter_id)
SELECT DISTINCT i.meter_id FROM meter_install AS i JOIN metering_point AS p USING (point_id)
WHERE (p.customer_id = %(customer_id)s::int OR p.point_id = %(point_id)s::int)
    AND (i.valid_from IS NULL OR i.valid_from <= %(now)s) AND (i.valid_to IS NULL OR i.valid_to > %(now)s)
ORDER BY i.meter_id
ON CONFLICT DO NOTHING

-- name: lock_meters
-- Whoever decides about one of these meters now is waited for; always in this order.
SELECT FROM meter_intent WHERE meter_id IN (
    SELECT i.meter_id FROM meter_install AS i JOIN metering_point AS p USING (point_id)
    WHERE (p.customer_id = %(customer_id)s::int OR p.point_id = %(point_id)s::int)
        AND (i.valid_from IS NULL OR i.valid_from <= %(now)s) AND (i.valid_to IS NULL OR i.valid_to > %(now)s)
)
ORDER BY meter_id FOR UPDATE

-- name: same
-- A protection that is asked for twice is one.
SELECT block_id, kind, customer_id, point_id, since, until, source, reason, set_by, set_at, lifted_by, lifted_at
FROM control_block
WHERE lifted_at IS NULL AND kind = %(kind)s AND source = %(source)s AND since = %(since)s
    AND until IS NOT DISTINCT FROM %(until)s::timestamptz
    AND customer_id IS NOT DISTINCT FROM %(customer_id)s::int AND point_id IS NOT DISTINCT FROM %(point_id)s::int

-- name: add
-- No row: there is no such customer or point.
INSERT INTO control_block (customer_id, point_id, kind, since, until, source, reason, set_by, set_at)
SELECT %(customer_id)s::int, %(point_id)s::int, %(kind)s, %(since)s, %(until)s, %(source)s, %(reason)s, %(by)s, %(at)s
WHERE EXISTS (SELECT FROM customer WHERE customer_id = %(customer_id)s::int)
    OR EXISTS (SELECT FROM metering_point WHERE point_id = %(point_id)s::int)
RETURNING block_id, kind, customer_id, point_id, since, until, source, reason, set_by, set_at, lifted_by, lifted_at

-- name: lift
-- No row: it was lifted meanwhile.
UPDATE control_block SET lifted_by = %(by)s, lifted_at = %(at)s WHERE block_id = %(block_id)s AND lifted_at IS NULL
RETURNING block_id, kind, customer_id, point_id, since, until, source, reason, set_by, set_at, lifted_by, lifted_at

-- name: block
-- By its number.
SELECT block_id, kind, customer_id, point_id, since, until, source, reason, set_by, set_at, lifted_by, lifted_at
FROM control_block WHERE block_id = %s

-- name: organisation
-- Whose the protected customer or point is; of a customer with several points the first one's.
SELECT coalesce(a.organisation_id, t.organisation_id)
FROM metering_point AS p
LEFT JOIN meter_install AS i ON i.point_id = p.point_id AND i.valid_to IS NULL
LEFT JOIN terminal AS t USING (terminal_id)
LEFT JOIN area AS a ON a.area_id = coalesce(p.area_id, t.area_id)
WHERE p.customer_id = %(customer_id)s::int OR p.point_id = %(point_id)s::int
ORDER BY p.point_id LIMIT 1

-- name: unmirrored
-- Meters with a relay behind a keep-power block in force for which no keep-power command was made.
SELECT b.block_id, m.meter_id, m.number, NULL::uuid
FROM control_block AS b
JOIN metering_point AS p ON p.customer_id = b.customer_id OR p.point_id = b.point_id
JOIN meter_install AS i ON i.point_id = p.point_id
    AND (i.valid_from IS NULL OR i.valid_from <= %(now)s) AND (i.valid_to IS NULL OR i.valid_to > %(now)s)
JOIN meter AS m USING (meter_id)
WHERE b.lifted_at IS NULL AND b.kind = 'keep-power' AND b.since <= %(now)s AND (b.until IS NULL OR b.until > %(now)s)
    AND m.relay_kind <> 'none' AND p.role IN ('customer', 'feed_in')
    AND NOT EXISTS (
        SELECT FROM relay_command AS c
        WHERE c.meter_id = m.meter_id AND c.action = 'keep-power' AND c.caused_by = 'block ' || b.block_id
    )
ORDER BY b.block_id, m.meter_id LIMIT %(limit)s

-- name: mirrors
-- What a block has made of itself at the meters.
SELECT b.block_id, m.meter_id, m.number, c.command_id
FROM control_block AS b
JOIN metering_point AS p ON p.customer_id = b.customer_id OR p.point_id = b.point_id
JOIN meter_install AS i ON i.point_id = p.point_id
    AND (i.valid_from IS NULL OR i.valid_from <= %(now)s) AND (i.valid_to IS NULL OR i.valid_to > %(now)s)
JOIN meter AS m USING (meter_id)
JOIN relay_command AS c ON c.meter_id = m.meter_id AND c.action = 'keep-power'
    AND c.caused_by = 'block ' || b.block_id
WHERE b.block_id = %(block_id)s
ORDER BY m.meter_id
