-- One command with the proof of it: the statements of relay_evidence.py.

-- name: command
-- The row, whose words must be those of its events.
SELECT %ROW%, c.events, c.chain
FROM relay_command AS c JOIN meter AS m USING (meter_id) WHERE c.command_id = %s

-- name: events
-- What happened to it, in order, after a number.
SELECT event_id, body, hash, seal_id FROM relay_command_event WHERE command_id = %s AND n > %s ORDER BY n

-- name: seals
-- Seals by their numbers, each with the digest before it and the hashes of its events in its order.
SELECT s.seal_id, s.at, coalesce(before.digest, ''), s.digest, s.events,
    ARRAY(
        SELECT coalesce(e.hash, '') FROM unnest(s.events) WITH ORDINALITY AS sealed (event_id, place)
        LEFT JOIN relay_command_event AS e ON e.event_id = sealed.event_id
        ORDER BY sealed.place
    )
FROM chain_seal AS s LEFT JOIN chain_seal AS before ON before.seal_id = s.seal_id - 1
WHERE s.seal_id = ANY(%s) ORDER BY s.seal_id

-- name: oldest
-- Since when the oldest has been uncertain, and since when the oldest close has been open; by what is open only.
SELECT min(coalesce(sent_at, created_at)) FILTER (WHERE state = 'uncertain'),
    min(created_at) FILTER (WHERE action IN ('close', 'permit-close'))
FROM relay_command
WHERE state IN ('requested', 'held', 'queued', 'sending', 'uncertain', 'acknowledged', 'field')
    AND (state = 'uncertain' OR action IN ('close', 'permit-close'))
