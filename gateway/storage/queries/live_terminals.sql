-- Which terminals switch for real: the statement of live_terminals.py.

-- name: live
-- Of these terminals those that have meters, none of them under an organisation that is in shadow mode. As in the
-- facts of commands.sql: shadow mode is on until two persons have ended it.
WITH newest AS (
    SELECT DISTINCT ON (s.scope) s.scope, s.value = 'false' AS live FROM control_setting AS s
    WHERE s.name = 'shadow' AND (s.approved_by IS NOT NULL OR s.value = 'true')
    ORDER BY s.scope, s.setting_id DESC
)
SELECT i.terminal_id
FROM meter_install AS i
JOIN terminal AS t USING (terminal_id)
JOIN metering_point AS p USING (point_id)
LEFT JOIN area AS a ON a.area_id = coalesce(p.area_id, t.area_id)
LEFT JOIN newest AS n
    ON n.scope = coalesce('organisation:' || coalesce(a.organisation_id, t.organisation_id), '')
WHERE i.terminal_id = ANY(%(terminals)s::int[])
    AND (i.valid_from IS NULL OR i.valid_from <= %(now)s) AND (i.valid_to IS NULL OR i.valid_to > %(now)s)
GROUP BY i.terminal_id
HAVING bool_and(coalesce(n.live, false))
