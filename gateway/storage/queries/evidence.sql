-- What is kept for people to look at: the statements of evidence.py.

-- name: keep_raw_frames
-- Bytes as they came.
INSERT INTO raw_frame (received_at, terminal, direction, reason, raw)
SELECT * FROM unnest(%s::timestamptz[], %s::text[], %s::text[], %s::text[], %s::bytea[])

-- name: bound_raw_frames
-- The oldest go.
DELETE FROM raw_frame WHERE raw_frame_id <= (SELECT max(raw_frame_id) FROM raw_frame) - %s

-- name: audit
-- Who did what.
INSERT INTO audit (at, who, what, detail) VALUES (%s, %s, %s, %s)
