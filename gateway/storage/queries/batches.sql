-- Batches of relay commands: the statements of batches.py.

-- name: begin
-- The key decides: a second batch of the same key is not kept.
INSERT INTO relay_batch (batch_id, requester, idempotency_key, body_sha256, created_at, commands, answer)
VALUES (%(batch_id)s, %(requester)s, %(idempotency_key)s, %(body_sha256)s, %(created_at)s, %(commands)s,
    %(answer)s::jsonb)
ON CONFLICT (requester, idempotency_key) DO NOTHING

-- name: finish
-- The answer, once every line has its result.
UPDATE relay_batch SET answer = %s::jsonb WHERE batch_id = %s

-- name: known
-- What a key made.
SELECT batch_id, requester, idempotency_key, body_sha256, created_at, commands, answer FROM relay_batch
WHERE requester = %s AND idempotency_key = %s

-- name: batch
-- By its id.
SELECT batch_id, requester, idempotency_key, body_sha256, created_at, commands, answer FROM relay_batch
WHERE batch_id = %s

-- name: commands
-- As they stand now.
SELECT command_id, meter_id, terminal_id, action, state FROM relay_command WHERE batch_id = %s
ORDER BY meter_id, intent
