-- Places in the outbox, for whoever reads it by cursor. An identity column is taken before its transaction commits: a
-- lower number may appear after a higher one was read. Places are given afterwards, by one at a time.
ALTER TABLE outbox ADD COLUMN place bigint UNIQUE;
CREATE SEQUENCE outbox_place OWNED BY outbox.place;
CREATE INDEX outbox_unplaced ON outbox (outbox_id) WHERE place IS NULL;
CREATE INDEX outbox_subject ON outbox (subject);

-- A webhook tells what its client may see, and ends with it. cursor: the place that was delivered last.
ALTER TABLE webhook ADD COLUMN last_error text NOT NULL DEFAULT '';
CREATE INDEX webhook_live ON webhook (next_try) WHERE ended_at IS NULL;
