-- What expires unsent is found without a look at all that is open.
CREATE INDEX relay_command_expiry ON relay_command (expires_at) WHERE state IN ('held', 'queued');
-- The protection that already stands is found by what it says.
CREATE INDEX control_block_kind ON control_block (kind) WHERE lifted_at IS NULL;
