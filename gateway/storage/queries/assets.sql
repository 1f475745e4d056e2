-- Terminals and their points: the statements of assets.py.

-- name: terminal_page
-- Terminals in the order of their addresses, after one, at most so many; of those named where names are given.
SELECT terminal_id, address, profile, archive_read_at IS NOT NULL
FROM terminal
WHERE address > %(after)s AND (%(only)s::text[] IS NULL OR address = ANY(%(only)s))
ORDER BY address LIMIT %(rows)s

-- name: points
-- Every install of these terminals, the past ones too: a day that lies behind is owed by the meter of that day.
SELECT i.terminal_id, i.pn, m.meter_id, m.number, m.address, m.protocol, m.class, p.role, m.tariffs, i.port, i.ct,
    i.pt, m.profile, i.valid_from, i.valid_to
FROM meter_install AS i
JOIN meter AS m USING (meter_id)
JOIN metering_point AS p USING (point_id)
WHERE i.terminal_id = ANY(%s)
ORDER BY i.terminal_id, i.pn, i.valid_from NULLS FIRST

-- name: archives
-- What these terminals say of themselves.
SELECT terminal_id, pn, address FROM terminal_archive WHERE terminal_id = ANY(%s)

-- name: changes
-- So often were assets of terminals changed, whichever; see the migration.
SELECT coalesce(sum(changes), 0)::bigint FROM assets_changes

-- name: forget_archive
-- Before the new one is kept.
DELETE FROM terminal_archive WHERE terminal_id = %s

-- name: keep_archive
-- One row per point.
INSERT INTO terminal_archive (terminal_id, pn, address, seen_at)
SELECT %(terminal_id)s, pn, address, %(seen_at)s
FROM unnest(%(pns)s::smallint[], %(addresses)s::text[]) AS given (pn, address)

-- name: archive_read
-- Empty is not the same as never read.
UPDATE terminal SET archive_read_at = %(seen_at)s WHERE terminal_id = %(terminal_id)s

-- name: note_unregistered
-- Count a login; returns whether the terminal is new on the list.
INSERT INTO unregistered_terminal AS known (address, peer, first_seen, last_seen, logins)
VALUES (%(address)s, %(peer)s, %(at)s, %(at)s, 1)
ON CONFLICT (address) DO UPDATE SET
    peer = excluded.peer, last_seen = greatest(known.last_seen, excluded.last_seen), logins = known.logins + 1
RETURNING logins = 1

-- name: bound_unregistered
-- The list is for people and filled by strangers: those unseen for longest go.
DELETE FROM unregistered_terminal WHERE address IN (
    SELECT address FROM unregistered_terminal ORDER BY last_seen DESC OFFSET %s
)

-- name: unregistered
-- Latest first.
SELECT address, peer, first_seen, last_seen, logins FROM unregistered_terminal ORDER BY last_seen DESC, address

-- name: login
-- Take the terminal over; every login is a new generation.
INSERT INTO terminal_session AS s (terminal_id, worker, generation, peer, since, last_frame)
VALUES (%(terminal_id)s, %(worker)s, 1, %(peer)s, %(at)s, %(at)s)
ON CONFLICT (terminal_id) DO UPDATE SET
    worker = excluded.worker, generation = s.generation + 1, peer = excluded.peer, since = excluded.since,
    last_frame = excluded.last_frame
RETURNING generation

-- name: touch
-- Signs of life of logins that still hold their terminals, locked in one order; which those are.
WITH held AS (
    SELECT s.terminal_id, sign.at FROM terminal_session AS s
    JOIN unnest(%(terminals)s::int[], %(generations)s::bigint[], %(ats)s::timestamptz[])
        AS sign (terminal_id, generation, at) USING (terminal_id, generation)
    ORDER BY s.terminal_id FOR UPDATE OF s
)
UPDATE terminal_session AS s SET last_frame = greatest(s.last_frame, held.at)
FROM held WHERE s.terminal_id = held.terminal_id
RETURNING s.terminal_id

-- name: note_clock
-- The terminal's clock minus ours.
UPDATE terminal SET clock_offset_seconds = %(offset)s, clock_read_at = %(read_at)s
WHERE terminal_id = %(terminal_id)s

-- name: open_install
-- The install of a meter that has no end yet, locked, with its terminal's address.
SELECT i.install_id, i.terminal_id, t.address, i.pn, i.valid_from
FROM meter_install AS i JOIN meter AS m USING (meter_id) JOIN terminal AS t USING (terminal_id)
WHERE m.number = %s AND i.valid_to IS NULL
FOR UPDATE OF i

-- name: address_holder
-- Which other meter of the terminal has this address now.
SELECT m.number, i.pn FROM meter_install AS i JOIN meter AS m USING (meter_id)
WHERE i.terminal_id = %(terminal_id)s AND i.valid_to IS NULL AND m.address = %(address)s
    AND i.install_id <> %(install_id)s
LIMIT 1

-- name: last_removal
-- Until when a meter was installed somewhere, NULL where it never was.
SELECT max(valid_to) FROM meter_install JOIN meter USING (meter_id) WHERE number = %s

-- name: add_like
-- The new meter is of the kind of the old one; one that is known already takes the address given.
INSERT INTO meter AS known (number, address, protocol, profile, class, relay_kind, tariffs)
SELECT %(new)s, %(address)s, protocol, profile, class, relay_kind, tariffs FROM meter WHERE number = %(old)s
ON CONFLICT (number) DO UPDATE SET address = excluded.address, version = known.version + 1
RETURNING meter_id

-- name: close_install
-- The old meter's last day.
UPDATE meter_install SET valid_to = %(at)s, stop_read = %(stop_read)s, reason = %(reason)s, version = version + 1
WHERE install_id = %(install_id)s

-- name: open_successor
-- The new meter sits where the old one sat.
INSERT INTO meter_install (point_id, meter_id, terminal_id, pn, port, valid_from, start_read, ct, pt, digits, reason)
SELECT point_id, %(meter_id)s, terminal_id, pn, port, %(at)s, %(start_read)s, ct, pt, digits, %(reason)s
FROM meter_install WHERE install_id = %(install_id)s
