-- Relay commands as they are looked at, and whose things are whose: the statements of relay_list.py. In all of them
-- organisations are those that the asker may see, NULL for all.

-- name: commands
-- The newest first, those before a cursor.
SELECT c.command_id, c.created_at, m.number, m.address, t.address, c.action, c.state, c.why, c.detail, c.requester,
    c.approver, c.cause, c.notice, c.customer, c.caused_by, c.work_order, c.label, c.batch_id, c.shadow, c.not_before,
    c.expires_at, c.attempts, c.sent_at, c.valid_until, c.energised_at, c.changed_at, c.intent, c.trace,
    o.name, a.name
FROM relay_command AS c
JOIN meter AS m USING (meter_id)
JOIN terminal AS t USING (terminal_id)
LEFT JOIN organisation AS o ON o.organisation_id = c.organisation_id
LEFT JOIN area AS a ON a.area_id = c.area_id
WHERE (%(organisations)s::int[] IS NULL OR c.organisation_id = ANY(%(organisations)s))
    AND (%(command_id)s::uuid IS NULL OR c.command_id = %(command_id)s)
    AND (%(before_at)s::timestamptz IS NULL OR (c.created_at, c.command_id) < (%(before_at)s, %(before_id)s::uuid))
    AND (%(meter)s::text IS NULL OR m.number = %(meter)s)
    AND (%(state)s::text IS NULL OR c.state = %(state)s)
    AND (%(batch)s::uuid IS NULL OR c.batch_id = %(batch)s)
    AND (%(customer)s::text IS NULL OR c.customer = %(customer)s)
    AND (%(since)s::timestamptz IS NULL OR c.created_at >= %(since)s)
ORDER BY c.created_at DESC, c.command_id DESC LIMIT %(rows)s

-- name: meters
-- The meters of these numbers or addresses that are installed now and may be seen.
SELECT asked.name, m.meter_id, m.number, i.point_id, p.customer_id
FROM unnest(%(names)s::text[]) AS asked (name)
JOIN meter AS m ON m.number = asked.name OR m.address = asked.name
JOIN meter_install AS i ON i.meter_id = m.meter_id
    AND (i.valid_from IS NULL OR i.valid_from <= %(now)s) AND (i.valid_to IS NULL OR i.valid_to > %(now)s)
JOIN terminal AS t USING (terminal_id)
JOIN metering_point AS p USING (point_id)
LEFT JOIN area AS a ON a.area_id = coalesce(p.area_id, t.area_id)
WHERE %(organisations)s::int[] IS NULL
    OR coalesce(a.organisation_id, t.organisation_id) = ANY(%(organisations)s)
ORDER BY asked.name, m.number = asked.name DESC, m.meter_id

-- name: customers
-- Customers of these numbers all of whose points may be seen, and that have one.
SELECT c.cons_no, c.customer_id
FROM customer AS c
JOIN metering_point AS p USING (customer_id)
LEFT JOIN meter_install AS i ON i.point_id = p.point_id
    AND (i.valid_from IS NULL OR i.valid_from <= %(now)s) AND (i.valid_to IS NULL OR i.valid_to > %(now)s)
LEFT JOIN terminal AS t USING (terminal_id)
LEFT JOIN area AS a ON a.area_id = coalesce(p.area_id, t.area_id)
WHERE c.cons_no = ANY(%(names)s::text[])
GROUP BY c.cons_no, c.customer_id
HAVING %(organisations)s::int[] IS NULL
    OR bool_and(coalesce(coalesce(a.organisation_id, t.organisation_id) = ANY(%(organisations)s), false))

-- name: terminals
-- Which of these terminals may be seen; without names: all that may.
SELECT t.address FROM terminal AS t LEFT JOIN area AS a USING (area_id)
WHERE (%(names)s::text[] IS NULL OR t.address = ANY(%(names)s))
    AND (%(organisations)s::int[] IS NULL
        OR coalesce(t.organisation_id, a.organisation_id) = ANY(%(organisations)s))

-- name: terminal_events
-- Which of these events of terminals may be seen.
SELECT e.event_id FROM event AS e JOIN terminal AS t USING (terminal_id) LEFT JOIN area AS a USING (area_id)
WHERE e.event_id = ANY(%(ids)s)
    AND (%(organisations)s::int[] IS NULL
        OR coalesce(t.organisation_id, a.organisation_id) = ANY(%(organisations)s))

-- name: areas
-- Areas of that name that may be seen.
SELECT area_id FROM area
WHERE name = %(name)s AND (%(organisations)s::int[] IS NULL OR organisation_id = ANY(%(organisations)s))

-- name: organisations
-- Organisations of that name that may be seen.
SELECT organisation_id FROM organisation
WHERE name = %(name)s AND (%(organisations)s::int[] IS NULL OR organisation_id = ANY(%(organisations)s))

-- name: batch
-- Who asked for it, and whether all of it may be seen: by whoever asked, and where all of its commands may.
SELECT b.requester, b.created_at, b.commands,
    %(organisations)s::int[] IS NULL OR b.requester = %(asker)s OR NOT EXISTS (
        SELECT FROM relay_command AS c
        WHERE c.batch_id = b.batch_id
            AND NOT coalesce(c.organisation_id = ANY(%(organisations)s), false)
    ) AND EXISTS (SELECT FROM relay_command AS c WHERE c.batch_id = b.batch_id)
FROM relay_batch AS b WHERE b.batch_id = %(batch)s

-- name: batch_states
-- How many commands of a batch are where.
SELECT state, count(*) FROM relay_command WHERE batch_id = %s GROUP BY state ORDER BY state

-- name: blocks
-- Protections, by rising number after one; those of customers all of whose points may be seen, and of such points.
SELECT b.block_id, b.kind, b.since, b.until, b.source, b.reason, b.set_by, b.set_at, b.lifted_by, b.lifted_at,
    c.cons_no, here.number
FROM control_block AS b
LEFT JOIN customer AS c ON c.customer_id = b.customer_id
LEFT JOIN LATERAL (
    SELECT m.number FROM meter_install AS i JOIN meter AS m USING (meter_id)
    WHERE i.point_id = b.point_id ORDER BY i.valid_to DESC NULLS FIRST LIMIT 1
) AS here ON true
WHERE b.block_id > %(after)s
    AND (%(block_id)s::bigint IS NULL OR b.block_id = %(block_id)s)
    AND (%(all)s OR b.lifted_at IS NULL)
    AND (%(customer)s::text IS NULL OR c.cons_no = %(customer)s)
    AND (%(organisations)s::int[] IS NULL OR (
        SELECT bool_and(coalesce(coalesce(a.organisation_id, t.organisation_id) = ANY(%(organisations)s), false))
        FROM metering_point AS p
        LEFT JOIN meter_install AS i ON i.point_id = p.point_id
            AND (i.valid_from IS NULL OR i.valid_from <= %(now)s) AND (i.valid_to IS NULL OR i.valid_to > %(now)s)
        LEFT JOIN terminal AS t USING (terminal_id)
        LEFT JOIN area AS a ON a.area_id = coalesce(p.area_id, t.area_id)
        WHERE p.point_id = b.point_id OR p.customer_id = b.customer_id
    ))
ORDER BY b.block_id LIMIT %(rows)s

-- name: field_orders
-- Where a person has to go, by rising number after one.
SELECT f.order_id, f.command_id, m.number, f.opened_at, f.why, f.detail, f.closed_at, f.closed_by, f.report
FROM field_order AS f
JOIN meter AS m USING (meter_id)
JOIN relay_command AS c USING (command_id)
WHERE f.order_id > %(after)s
    AND (%(all)s OR f.closed_at IS NULL)
    AND (%(organisations)s::int[] IS NULL OR c.organisation_id = ANY(%(organisations)s))
ORDER BY f.order_id LIMIT %(rows)s

-- name: scopes
-- Whose the scopes of switches are, and what they are called; those that may be seen.
SELECT given.scope, found.name
FROM unnest(%(scopes)s::text[]) AS given (scope)
CROSS JOIN LATERAL (
    SELECT a.name, a.organisation_id FROM area AS a WHERE given.scope = 'area:' || a.area_id
    UNION ALL
    SELECT o.name, o.organisation_id FROM organisation AS o WHERE given.scope = 'organisation:' || o.organisation_id
) AS found
WHERE %(organisations)s::int[] IS NULL OR found.organisation_id = ANY(%(organisations)s)
