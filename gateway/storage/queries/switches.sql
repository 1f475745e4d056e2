-- Brake, weather halts, limits, shadow mode, hold: the statements of switches.py.

-- name: put
-- The newest row of a (name, scope) holds.
INSERT INTO control_setting (name, scope, value, reason, set_by, set_at)
VALUES (%(name)s, %(scope)s, %(value)s::jsonb, %(reason)s, %(by)s, %(at)s)
RETURNING setting_id, name, scope, value, reason, set_by, set_at, approved_by, approved_at

-- name: approve
-- By another person than the first, and only as long as nothing newer has been set.
UPDATE control_setting AS s SET approved_by = %(by)s, approved_at = %(at)s
WHERE s.setting_id = %(setting_id)s AND s.approved_by IS NULL AND s.set_by <> %(by)s AND NOT EXISTS (
    SELECT FROM control_setting AS newer
    WHERE newer.name = s.name AND newer.scope = s.scope AND newer.setting_id > s.setting_id
)
RETURNING setting_id, name, scope, value, reason, set_by, set_at, approved_by, approved_at

-- name: setting
-- By its number.
SELECT setting_id, name, scope, value, reason, set_by, set_at, approved_by, approved_at
FROM control_setting WHERE setting_id = %s

-- name: newest
-- Of each (name, scope) the row that holds, and what was proposed after it.
SELECT s.setting_id, s.name, s.scope, s.value, s.reason, s.set_by, s.set_at, s.approved_by, s.approved_at
FROM control_setting AS s
WHERE s.setting_id >= coalesce((
    SELECT max(holds.setting_id) FROM control_setting AS holds
    WHERE holds.name = s.name AND holds.scope = s.scope
        AND (holds.approved_by IS NOT NULL OR holds.name NOT IN ('limits', 'shadow')
            OR (holds.name = 'shadow' AND holds.value = 'true'))
), 0)
ORDER BY s.name, s.scope, s.setting_id DESC

-- name: tell
-- An outgoing event, written with what it tells.
INSERT INTO outbox (at, type, subject, organisation_id, data) VALUES (%s, %s, %s, %s, %s::jsonb)
