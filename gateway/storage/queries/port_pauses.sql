-- Paused reading ports: the statements of port_pauses.py.

-- name: add_pause
-- The first instant stands.
INSERT INTO port_pause (terminal_id, port, since) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING

-- name: remove_pause
-- It reads again.
DELETE FROM port_pause WHERE terminal_id = %s AND port = %s

-- name: all_pauses
-- A handful: those of commands under way, and what a dead process left.
SELECT terminal_id, port FROM port_pause ORDER BY since, terminal_id, port
