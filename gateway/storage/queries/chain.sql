-- Seals over the events of relay commands: the statements of chain.py.

-- name: unsealed
-- What is to be sealed next; events that commit late come into a later seal.
SELECT event_id, hash FROM relay_command_event WHERE seal_id IS NULL ORDER BY event_id LIMIT %s

-- name: newest
-- Where the chain of seals ends.
SELECT seal_id, at, digest FROM chain_seal ORDER BY seal_id DESC LIMIT 1

-- name: one
-- By its number.
SELECT seal_id, at, digest FROM chain_seal WHERE seal_id = %s

-- name: seal
-- Two writers would meet at the number.
INSERT INTO chain_seal (seal_id, at, events, digest) VALUES (%s, %s, %s, %s)

-- name: mark
-- The events know their seal.
UPDATE relay_command_event SET seal_id = %s WHERE event_id = ANY(%s) AND seal_id IS NULL

-- name: any_command
-- Was ever one accepted?
SELECT FROM relay_command LIMIT 1

-- name: as_of_now
-- One view of everything while it is verified.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY

-- name: no_hurry
-- The whole history is read.
SET LOCAL statement_timeout = 0

-- name: events
-- All of them, command by command.
SELECT command_id, n, at, kind, state, body, hash, seal_id FROM relay_command_event ORDER BY command_id, n

-- name: commands
-- Each command beside its events.
SELECT %ROW%, c.events, c.chain, e.last_hash, e.bodies
FROM relay_command AS c JOIN meter AS m USING (meter_id)
CROSS JOIN LATERAL (
    SELECT (array_agg(one.hash ORDER BY one.n DESC))[1] AS last_hash, array_agg(one.body ORDER BY one.n) AS bodies
    FROM relay_command_event AS one WHERE one.command_id = c.command_id
) AS e

-- name: intents
-- Each meter beside its commands.
SELECT i.meter_id, i.intent, count(c.command_id), coalesce(max(c.intent), 0)
FROM meter_intent AS i LEFT JOIN relay_command AS c USING (meter_id)
GROUP BY i.meter_id, i.intent

-- name: seals
-- Each seal with the hashes of its events in its order, and how many events claim it.
SELECT s.seal_id, s.at, s.events, s.digest,
    ARRAY(
        SELECT e.hash FROM unnest(s.events) WITH ORDINALITY AS sealed (event_id, place)
        LEFT JOIN relay_command_event AS e ON e.event_id = sealed.event_id AND e.seal_id = s.seal_id
        ORDER BY sealed.place
    ),
    coalesce(claims.marked, 0)
FROM chain_seal AS s
LEFT JOIN (
    SELECT seal_id, count(*) AS marked FROM relay_command_event WHERE seal_id IS NOT NULL GROUP BY seal_id
) AS claims USING (seal_id)
ORDER BY s.seal_id

-- name: orphans
-- Events whose seal is gone.
SELECT event_id, seal_id FROM relay_command_event AS e
WHERE seal_id IS NOT NULL AND NOT EXISTS (SELECT FROM chain_seal AS s WHERE s.seal_id = e.seal_id)
LIMIT 100
