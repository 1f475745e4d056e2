-- Relay commands: requests, what became of them, and the proof. Instants are UTC.

-- Who may call the interface. token_sha256: of a random token of 256 bits, which is shown once and kept nowhere.
CREATE TABLE api_client (
    client_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    token_sha256 bytea NOT NULL UNIQUE,
    scopes text[] NOT NULL CHECK (scopes <@ ARRAY['read', 'control', 'approve', 'admin']),
    organisation_id int REFERENCES organisation,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL,
    revoked_at timestamptz,
    last_used_at timestamptz
);

-- One row a meter: its lock while something is decided about it, and its newest intent.
CREATE TABLE meter_intent (
    meter_id int PRIMARY KEY REFERENCES meter,
    intent int NOT NULL DEFAULT 0
) WITH (fillfactor = 70);

CREATE TABLE relay_batch (
    batch_id uuid PRIMARY KEY,
    requester text NOT NULL,
    idempotency_key text NOT NULL,
    body_sha256 bytea NOT NULL,
    created_at timestamptz NOT NULL,
    commands int NOT NULL,
    answer jsonb NOT NULL,
    UNIQUE (requester, idempotency_key)
);

CREATE TABLE relay_command (
    command_id uuid PRIMARY KEY,
    meter_id int NOT NULL REFERENCES meter,
    terminal_id int NOT NULL REFERENCES terminal,
    area_id int REFERENCES area,
    organisation_id int REFERENCES organisation,
    action text NOT NULL CHECK (action IN
        ('trip', 'close', 'permit-close', 'keep-power', 'release-keep-power', 'alarm', 'clear-alarm')),
    state text NOT NULL CHECK (state IN ('requested', 'held', 'queued', 'sending', 'uncertain', 'acknowledged',
        'field', 'verified', 'refused', 'failed', 'cancelled', 'expired', 'superseded')),
    version int NOT NULL DEFAULT 1,
    intent int NOT NULL,
    requester text NOT NULL,
    approver text NOT NULL DEFAULT '',
    cause text NOT NULL,
    notice text NOT NULL DEFAULT '',
    customer text NOT NULL DEFAULT '',
    caused_by text NOT NULL DEFAULT '',
    work_order text NOT NULL DEFAULT '',
    label text NOT NULL DEFAULT '',
    trace text NOT NULL DEFAULT '',
    idempotency_key text NOT NULL,
    body_sha256 bytea NOT NULL,
    batch_id uuid REFERENCES relay_batch,
    shadow boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL,
    not_before timestamptz,
    expires_at timestamptz,
    look_at timestamptz,
    attempts int NOT NULL DEFAULT 0,
    frame_sha256 bytea,
    sent_at timestamptz,
    valid_until timestamptz,
    energised_at timestamptz,
    changed_at timestamptz NOT NULL,
    why text,
    detail text NOT NULL DEFAULT '',
    events int NOT NULL DEFAULT 0,
    chain bytea NOT NULL DEFAULT '\x',
    UNIQUE (requester, idempotency_key),
    UNIQUE (meter_id, intent),
    CHECK (action <> 'trip' OR expires_at IS NOT NULL)
) WITH (fillfactor = 60);
CREATE INDEX relay_command_open ON relay_command (meter_id)
    WHERE state IN ('requested', 'held', 'queued', 'sending', 'uncertain', 'acknowledged', 'field');
CREATE INDEX relay_command_work ON relay_command (terminal_id, (action IN ('close', 'permit-close')) DESC, created_at)
    WHERE state IN ('queued', 'sending', 'uncertain', 'acknowledged', 'field');
CREATE INDEX relay_command_permitted ON relay_command (terminal_id, look_at)
    WHERE state = 'verified' AND look_at IS NOT NULL;
CREATE INDEX ON relay_command (meter_id, created_at);
CREATE INDEX ON relay_command (created_at);
CREATE INDEX ON relay_command (batch_id) WHERE batch_id IS NOT NULL;

-- What happened to a command, in order; only added to. hash: of the event and the hash before it.
CREATE TABLE relay_command_event (
    event_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    command_id uuid NOT NULL REFERENCES relay_command,
    n int NOT NULL,
    at timestamptz NOT NULL,
    kind text NOT NULL,
    state text NOT NULL,
    body jsonb NOT NULL,
    hash bytea NOT NULL,
    seal_id bigint,
    UNIQUE (command_id, n)
);
CREATE INDEX relay_command_event_unsealed ON relay_command_event (event_id) WHERE seal_id IS NULL;

-- Trips that were about to leave, for the limits: counted in the transaction that adds one.
CREATE TABLE relay_trip_sent (
    at timestamptz NOT NULL,
    area_id int,
    requester text NOT NULL,
    command_id uuid NOT NULL REFERENCES relay_command
);
CREATE INDEX ON relay_trip_sent (at);

-- Batches of events sealed by one writer, each over the one before.
CREATE TABLE chain_seal (
    seal_id bigint PRIMARY KEY,
    at timestamptz NOT NULL,
    events bigint[] NOT NULL,
    digest bytea NOT NULL
);

CREATE FUNCTION only_added_to() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND TG_TABLE_NAME = 'relay_command_event' AND OLD.seal_id IS NULL
        AND (NEW.event_id, NEW.command_id, NEW.n, NEW.at, NEW.kind, NEW.state, NEW.body, NEW.hash)
            IS NOT DISTINCT FROM (OLD.event_id, OLD.command_id, OLD.n, OLD.at, OLD.kind, OLD.state, OLD.body, OLD.hash)
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '% is only added to', TG_TABLE_NAME;
END $$;
CREATE TRIGGER only_added_to BEFORE UPDATE OR DELETE ON relay_command_event
    FOR EACH ROW EXECUTE FUNCTION only_added_to();
CREATE TRIGGER only_added_to BEFORE UPDATE OR DELETE ON chain_seal
    FOR EACH ROW EXECUTE FUNCTION only_added_to();

-- Why a customer or a point must not be cut off. until: half open, NULL = until it is lifted.
CREATE TABLE control_block (
    block_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id int REFERENCES customer,
    point_id int REFERENCES metering_point,
    kind text NOT NULL CHECK (kind IN
        ('keep-power', 'complaint', 'bank-lock', 'medical', 'weather', 'protected-class', 'other')),
    since timestamptz NOT NULL,
    until timestamptz,
    source text NOT NULL,
    reason text NOT NULL DEFAULT '',
    set_by text NOT NULL,
    set_at timestamptz NOT NULL,
    lifted_by text,
    lifted_at timestamptz,
    CHECK ((customer_id IS NULL) <> (point_id IS NULL)),
    CHECK (since < until)
);
CREATE INDEX ON control_block (customer_id) WHERE lifted_at IS NULL AND customer_id IS NOT NULL;
CREATE INDEX ON control_block (point_id) WHERE lifted_at IS NULL AND point_id IS NOT NULL;

-- Brake, weather halts, limits, shadow mode, hold: the newest row of a (name, scope) holds. scope: '' for all, or
-- area:7, organisation:3. A change that wants two persons holds once approved_by is filled.
CREATE TABLE control_setting (
    setting_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL CHECK (name IN ('brake', 'weather-halt', 'limits', 'shadow', 'hold')),
    scope text NOT NULL DEFAULT '',
    value jsonb NOT NULL,
    reason text NOT NULL DEFAULT '',
    set_by text NOT NULL,
    set_at timestamptz NOT NULL,
    approved_by text,
    approved_at timestamptz,
    CHECK (approved_by <> set_by)
);
CREATE INDEX ON control_setting (name, scope, setting_id);

-- A person has to go there: electronics could not give power back yet.
CREATE TABLE field_order (
    order_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    meter_id int NOT NULL REFERENCES meter,
    command_id uuid NOT NULL REFERENCES relay_command,
    opened_at timestamptz NOT NULL,
    why text NOT NULL,
    detail text NOT NULL DEFAULT '',
    closed_at timestamptz,
    closed_by text,
    report text
);
CREATE UNIQUE INDEX field_order_open ON field_order (meter_id) WHERE closed_at IS NULL;

-- A reading port that was paused for relay work (05 F49) and must be resumed (05 F50), whatever happens to us.
CREATE TABLE port_pause (
    terminal_id int NOT NULL REFERENCES terminal,
    port smallint NOT NULL,
    since timestamptz NOT NULL,
    PRIMARY KEY (terminal_id, port)
);

-- What others are told: written with what it tells, delivered afterwards.
CREATE TABLE outbox (
    outbox_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL,
    type text NOT NULL,
    subject text NOT NULL,
    organisation_id int REFERENCES organisation,
    data jsonb NOT NULL
);
CREATE INDEX ON outbox (at);

CREATE TABLE webhook (
    webhook_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    client_id int NOT NULL REFERENCES api_client,
    url text NOT NULL,
    secret text NOT NULL,
    types text[] NOT NULL DEFAULT '{}',
    cursor bigint NOT NULL DEFAULT 0,
    failures int NOT NULL DEFAULT 0,
    next_try timestamptz,
    created_at timestamptz NOT NULL,
    ended_at timestamptz
);

CREATE TABLE dead_letter (
    webhook_id int NOT NULL REFERENCES webhook,
    outbox_id bigint NOT NULL REFERENCES outbox,
    at timestamptz NOT NULL,
    error text NOT NULL,
    PRIMARY KEY (webhook_id, outbox_id)
);
