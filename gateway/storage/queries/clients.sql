-- Who may call the interface: the statements of clients.py. Tokens themselves are kept nowhere.

-- name: create
-- A new client. No row: the name is taken.
INSERT INTO api_client (name, token_sha256, scopes, organisation_id, created_by, created_at)
VALUES (%(name)s, %(token_sha256)s, %(scopes)s, %(organisation_id)s, %(by)s, %(at)s)
ON CONFLICT (name) DO NOTHING
RETURNING client_id

-- name: organisation
-- By its name.
SELECT organisation_id FROM organisation WHERE name = %s

-- name: listed
-- All that there ever were, by name.
SELECT c.client_id, c.name, c.scopes, o.name, c.created_by, c.created_at, c.revoked_at, c.last_used_at
FROM api_client AS c LEFT JOIN organisation AS o USING (organisation_id)
ORDER BY c.name

-- name: revoke
-- From now on its token is nobody's, and its webhooks are told nothing.
WITH gone AS (
    UPDATE api_client SET revoked_at = %(at)s WHERE name = %(name)s AND revoked_at IS NULL RETURNING client_id
), ended AS (
    UPDATE webhook SET ended_at = %(at)s
    WHERE client_id IN (SELECT client_id FROM gone) AND ended_at IS NULL
)
SELECT client_id FROM gone

-- name: known
-- Whose token this is, and the organisations that it may see: its own and those below. NULL: all.
SELECT c.client_id, c.name, c.scopes, c.last_used_at,
    CASE WHEN c.organisation_id IS NOT NULL THEN ARRAY(
        WITH RECURSIVE below AS (
            SELECT c.organisation_id
            UNION
            SELECT o.organisation_id FROM organisation AS o JOIN below ON o.parent_id = below.organisation_id
        )
        SELECT organisation_id FROM below
    ) END
FROM api_client AS c
WHERE c.token_sha256 = %s AND c.revoked_at IS NULL

-- name: used
-- When it was last seen, to the minute.
UPDATE api_client SET last_used_at = %(at)s WHERE client_id = %(client_id)s
