-- Events of terminals: the statements of events.py.

-- name: pointers
-- Up to where this terminal's memories have been fetched.
SELECT class, pointer FROM event_pointer WHERE terminal_id = %s

-- name: file_events
-- Each record once; a code that has no name needs nobody.
INSERT INTO event (received_at, occurred_at, terminal_id, class, pointer, erc, pn, starts, pushed, contested,
    needs_person, detail, reason, raw)
SELECT %(received_at)s, g.occurred_at, %(terminal_id)s, %(class)s, g.pointer, g.erc, g.pn, g.starts, %(pushed)s,
    %(contested)s, coalesce(c.needs_person, false), g.detail::jsonb, g.reason, g.raw
FROM unnest(%(pointers)s::smallint[], %(ercs)s::smallint[], %(occurred)s::timestamptz[], %(pns)s::smallint[],
    %(starts)s::boolean[], %(details)s::text[], %(reasons)s::text[], %(raws)s::bytea[])
    WITH ORDINALITY AS g (pointer, erc, occurred_at, pn, starts, detail, reason, raw, place)
LEFT JOIN event_code AS c USING (erc)
ORDER BY g.place
ON CONFLICT ON CONSTRAINT event_once DO NOTHING

-- name: move_pointer
-- To the end of a run that holds everything from the pointer on; a run that leaves a hole before it moves nothing.
INSERT INTO event_pointer AS p (terminal_id, class, pointer, moved_at)
VALUES (%(terminal_id)s, %(class)s,
    CASE WHEN (256 - %(begin)s) %% 256 <= %(count)s THEN %(end)s ELSE 0 END, %(at)s)
ON CONFLICT (terminal_id, class) DO UPDATE SET
    pointer = CASE WHEN (p.pointer - %(begin)s + 256) %% 256 <= %(count)s THEN %(end)s ELSE p.pointer END,
    moved_at = excluded.moved_at
RETURNING pointer

-- name: pointer
-- Of one memory.
SELECT pointer FROM event_pointer WHERE terminal_id = %(terminal_id)s AND class = %(class)s

-- name: bound_events
-- A terminal's oldest go, beyond so many.
DELETE FROM event WHERE terminal_id = %(terminal_id)s AND event_id <= (
    SELECT event_id FROM event WHERE terminal_id = %(terminal_id)s ORDER BY event_id DESC OFFSET %(most)s LIMIT 1
)

-- name: page
-- In the order they came, after one, at most so many, with the meter that hung at the point when it happened.
SELECT e.event_id, t.address, k.label, e.pointer, e.erc, coalesce(c.name_en, ''), coalesce(c.name_zh, ''),
    e.occurred_at, e.received_at, e.pn, m.number, e.starts, e.pushed, e.contested, e.needs_person, e.detail,
    e.reason, e.raw, e.acknowledged_at, e.acknowledged_by, e.note
FROM event AS e
JOIN terminal AS t USING (terminal_id)
JOIN event_class AS k ON k.code = e.class
LEFT JOIN event_code AS c USING (erc)
LEFT JOIN LATERAL (
    SELECT meter.number FROM meter_install AS i JOIN meter USING (meter_id)
    WHERE i.terminal_id = e.terminal_id AND i.pn = e.pn
        AND coalesce(i.valid_from, '-infinity') <= coalesce(e.occurred_at, e.received_at)
        AND coalesce(e.occurred_at, e.received_at) < coalesce(i.valid_to, 'infinity')
    LIMIT 1
) AS m ON true
WHERE e.event_id > %(after)s
    AND (%(terminals)s::text[] IS NULL OR t.address = ANY(%(terminals)s))
    AND (%(since)s::timestamptz IS NULL OR e.received_at >= %(since)s)
    AND (NOT %(worklist)s OR (e.needs_person AND e.acknowledged_at IS NULL))
ORDER BY e.event_id LIMIT %(rows)s

-- name: unknown_events
-- Which of these there are not.
SELECT id FROM unnest(%s::bigint[]) AS given (id) WHERE NOT EXISTS (SELECT FROM event WHERE event_id = id) ORDER BY id

-- name: acknowledge
-- Take these off the worklist; whoever was first stays.
UPDATE event SET acknowledged_at = %(at)s, acknowledged_by = %(who)s, note = %(note)s
WHERE event_id = ANY(%(ids)s) AND acknowledged_at IS NULL
RETURNING event_id
