-- What others are told, in the order of its places, and who is told: the statements of outbox.py.

-- name: lock_places
-- One gives places at a time; whoever comes meanwhile leaves it to that one.
SELECT pg_try_advisory_xact_lock(%s)

-- name: give_places
-- To what was committed since, a bounded number at once.
UPDATE outbox SET place = given.place
FROM (
    SELECT outbox_id, nextval('outbox_place') AS place
    FROM (SELECT outbox_id FROM outbox WHERE place IS NULL ORDER BY outbox_id LIMIT %s) AS waiting
) AS given
WHERE outbox.outbox_id = given.outbox_id

-- name: newest
-- The last place that was given; 0: none ever.
SELECT coalesce(max(place), 0) FROM outbox

-- name: after
-- What has come after a place and may be seen, oldest first.
SELECT place, outbox_id, at, type, subject, organisation_id, data FROM outbox
WHERE place > %(after)s AND place <= %(until)s
    AND (%(organisations)s::int[] IS NULL OR organisation_id = ANY(%(organisations)s))
    AND (%(types)s::text[] = '{}' OR type = ANY(%(types)s))
ORDER BY place LIMIT %(rows)s

-- name: forget
-- What is old and nobody has a dead letter of.
DELETE FROM outbox AS o WHERE o.outbox_id IN (
    SELECT outbox_id FROM outbox WHERE at < %(before)s AND place IS NOT NULL
        AND NOT EXISTS (SELECT FROM dead_letter AS d WHERE d.outbox_id = outbox.outbox_id)
    ORDER BY at LIMIT %(rows)s
)

-- name: webhooks_of
-- How many live webhooks a client has.
SELECT count(*) FROM webhook WHERE client_id = %s AND ended_at IS NULL

-- name: register
-- A webhook of a client; it is told what comes after its cursor.
INSERT INTO webhook (client_id, url, secret, types, cursor, created_at)
VALUES (%(client_id)s, %(url)s, %(secret)s, %(types)s, %(cursor)s, %(at)s)
RETURNING webhook_id

-- name: client
-- By name, while its token is in force.
SELECT client_id FROM api_client WHERE name = %s AND revoked_at IS NULL

-- name: webhooks
-- One client's webhooks, or all; live ones only.
SELECT w.webhook_id, c.name, w.url, w.types, w.cursor, w.failures, w.next_try, w.last_error, w.created_at,
    (SELECT count(*) FROM dead_letter AS d WHERE d.webhook_id = w.webhook_id)
FROM webhook AS w JOIN api_client AS c USING (client_id)
WHERE w.ended_at IS NULL AND (%(client_id)s::int IS NULL OR w.client_id = %(client_id)s)
    AND (%(webhook_id)s::int IS NULL OR w.webhook_id = %(webhook_id)s)
ORDER BY w.webhook_id

-- name: end_webhook
-- It is told nothing more.
UPDATE webhook SET ended_at = %(at)s WHERE webhook_id = %(webhook_id)s AND ended_at IS NULL

-- name: replay
-- From a place on again.
UPDATE webhook SET cursor = %(cursor)s, failures = 0, next_try = NULL, last_error = ''
WHERE webhook_id = %(webhook_id)s AND ended_at IS NULL

-- name: dead_letters
-- What a webhook could not be told, oldest first.
SELECT o.place, o.outbox_id, o.at, o.type, o.subject, o.organisation_id, o.data, d.at, d.error
FROM dead_letter AS d JOIN outbox AS o USING (outbox_id)
WHERE d.webhook_id = %(webhook_id)s AND o.place > %(after)s ORDER BY o.place LIMIT %(rows)s

-- name: claim
-- Webhooks that have something to be told now; nobody else takes them until the lease ends.
UPDATE webhook AS w SET next_try = %(lease)s
FROM (
    SELECT h.webhook_id, h.client_id FROM webhook AS h JOIN api_client AS owner USING (client_id)
    WHERE h.ended_at IS NULL AND owner.revoked_at IS NULL AND (h.next_try IS NULL OR h.next_try <= %(now)s)
        AND h.cursor < (SELECT coalesce(max(place), 0) FROM outbox)
    ORDER BY h.next_try NULLS FIRST LIMIT %(rows)s FOR UPDATE OF h SKIP LOCKED
) AS mine
JOIN api_client AS c USING (client_id)
WHERE w.webhook_id = mine.webhook_id
RETURNING w.webhook_id, w.url, w.secret, w.types, w.cursor, w.failures,
    CASE WHEN c.organisation_id IS NOT NULL THEN ARRAY(
        WITH RECURSIVE below AS (
            SELECT c.organisation_id
            UNION
            SELECT o.organisation_id FROM organisation AS o JOIN below ON o.parent_id = below.organisation_id
        )
        SELECT organisation_id FROM below
    ) END

-- name: delivered
-- Up to here, unless somebody has set the cursor meanwhile.
UPDATE webhook SET cursor = %(cursor)s, failures = 0, last_error = ''
WHERE webhook_id = %(webhook_id)s AND cursor = %(before)s

-- name: came_after_all
-- A dead letter that was delivered after all is none.
DELETE FROM dead_letter WHERE webhook_id = %s AND outbox_id = %s

-- name: release
-- Free to be taken again, at once or later.
UPDATE webhook SET next_try = %(next_try)s WHERE webhook_id = %(webhook_id)s

-- name: failed
-- It did not work; try again later.
UPDATE webhook SET failures = failures + 1, next_try = %(next_try)s, last_error = %(error)s
WHERE webhook_id = %(webhook_id)s

-- name: bury
-- Given up: a person may look at them and have them sent again.
INSERT INTO dead_letter (webhook_id, outbox_id, at, error)
SELECT %(webhook_id)s, outbox_id, %(at)s, %(error)s FROM outbox
WHERE place > %(after)s AND place <= %(until)s
    AND (%(organisations)s::int[] IS NULL OR organisation_id = ANY(%(organisations)s))
    AND (%(types)s::text[] = '{}' OR type = ANY(%(types)s))
ON CONFLICT (webhook_id, outbox_id) DO UPDATE SET at = excluded.at, error = excluded.error

-- name: newest_before
-- The last place of what was told before an instant, at or above a place.
SELECT max(place) FROM outbox WHERE place > %(after)s AND at < %(before)s
