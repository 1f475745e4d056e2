-- Assets: what the company owns and where it sits, and what terminals say of themselves.
-- Every asset carries where it came from (source_system, external_id) and a version that counts its changes.
-- Instants are UTC; validity is half open, NULL = since ever / until further notice.

CREATE TABLE organisation (
    organisation_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    parent_id int REFERENCES organisation,
    own_payee boolean NOT NULL DEFAULT false,
    source_system text NOT NULL DEFAULT 'lingdian',
    external_id text,
    version int NOT NULL DEFAULT 1,
    CHECK (parent_id <> organisation_id)
);

CREATE TABLE substation (
    substation_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    organisation_id int REFERENCES organisation,
    source_system text NOT NULL DEFAULT 'lingdian',
    external_id text,
    version int NOT NULL DEFAULT 1
);

CREATE TABLE bus (
    bus_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    substation_id int NOT NULL REFERENCES substation,
    name text NOT NULL,
    source_system text NOT NULL DEFAULT 'lingdian',
    external_id text,
    version int NOT NULL DEFAULT 1,
    UNIQUE (substation_id, name)
);

CREATE TABLE line (
    line_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    bus_id int REFERENCES bus,
    name text NOT NULL UNIQUE,
    source_system text NOT NULL DEFAULT 'lingdian',
    external_id text,
    version int NOT NULL DEFAULT 1
);

-- 台区: what one distribution transformer feeds
CREATE TABLE area (
    area_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    organisation_id int REFERENCES organisation,
    line_id int REFERENCES line,
    source_system text NOT NULL DEFAULT 'lingdian',
    external_id text,
    version int NOT NULL DEFAULT 1
);

CREATE TABLE terminal (
    terminal_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    address text COLLATE "C" NOT NULL UNIQUE CHECK (address ~ '^[0-9]{4}[0-9a-f]{4}$'),
    profile text NOT NULL DEFAULT '',
    organisation_id int REFERENCES organisation,
    area_id int REFERENCES area,
    clock_offset_seconds double precision,
    clock_read_at timestamptz,
    archive_read_at timestamptz,
    source_system text NOT NULL DEFAULT 'lingdian',
    external_id text,
    version int NOT NULL DEFAULT 1
);

CREATE TABLE customer (
    customer_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cons_no text NOT NULL UNIQUE,
    class text NOT NULL DEFAULT '',
    restore_mode text NOT NULL DEFAULT 'close' CHECK (restore_mode IN ('close', 'permit', 'confirm_first')),
    protected_class text NOT NULL DEFAULT '',
    source_system text NOT NULL DEFAULT 'lingdian',
    external_id text,
    version int NOT NULL DEFAULT 1
);

-- The place where energy is measured: it stays when its meter is replaced.
CREATE TABLE metering_point (
    point_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    role text NOT NULL CHECK (role IN ('customer', 'area_gateway', 'feeder_head', 'bus', 'feed_in')),
    sign smallint NOT NULL DEFAULT 1 CHECK (sign IN (1, -1)),
    area_id int REFERENCES area,
    customer_id int REFERENCES customer,
    source_system text NOT NULL DEFAULT 'lingdian',
    external_id text,
    version int NOT NULL DEFAULT 1
);
CREATE INDEX ON metering_point (customer_id) WHERE customer_id IS NOT NULL;
CREATE INDEX ON metering_point (area_id) WHERE area_id IS NOT NULL;

CREATE TABLE meter (
    meter_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    number text COLLATE "C" NOT NULL UNIQUE,
    address text COLLATE "C" NOT NULL CHECK (address ~ '^[0-9]{12}$'),
    protocol text NOT NULL,
    profile text NOT NULL DEFAULT '',
    class text NOT NULL CHECK (class IN ('single_phase', 'three_phase')),
    relay_kind text NOT NULL
        CHECK (relay_kind IN ('built_in', 'external_self_closing', 'external_hand_closing', 'none')),
    tariffs smallint NOT NULL CHECK (tariffs BETWEEN 1 AND 63),
    clock_offset_seconds double precision,
    clock_read_at timestamptz,
    source_system text NOT NULL DEFAULT 'lingdian',
    external_id text,
    version int NOT NULL DEFAULT 1
);
CREATE INDEX ON meter (address);

-- Reads are integers of 0.0001 kWh.
CREATE TABLE meter_install (
    install_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    point_id int NOT NULL REFERENCES metering_point,
    meter_id int NOT NULL REFERENCES meter,
    terminal_id int NOT NULL REFERENCES terminal,
    pn smallint NOT NULL CHECK (pn BETWEEN 1 AND 2040),
    port smallint NOT NULL CHECK (port BETWEEN 1 AND 31),
    valid_from timestamptz,
    valid_to timestamptz,
    start_read bigint,
    stop_read bigint,
    ct int NOT NULL DEFAULT 1 CHECK (ct > 0),
    pt int NOT NULL DEFAULT 1 CHECK (pt > 0),
    digits smallint NOT NULL DEFAULT 6 CHECK (digits BETWEEN 4 AND 8),
    reason text NOT NULL DEFAULT '',
    source_system text NOT NULL DEFAULT 'lingdian',
    external_id text,
    version int NOT NULL DEFAULT 1,
    CHECK (valid_from < valid_to)
);
CREATE INDEX ON meter_install (terminal_id, pn);
CREATE INDEX ON meter_install (meter_id);
CREATE INDEX ON meter_install (point_id);

-- At any instant a meter is at one place, and a place (terminal and pn, or metering point) holds one meter. A trigger
-- per statement and not EXCLUDE USING gist: three such constraints cost 300 microseconds a row, half a minute for
-- an import of 100,000, these look-ups two seconds; and two meters may change places in one statement. The lock
-- lets the second of two transactions see what the first has committed.
CREATE FUNCTION meter_install_guard() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    clash record;
BEGIN
    PERFORM pg_advisory_xact_lock(1279524867);
    SELECT * INTO clash FROM (
        SELECT 'meter' AS shared, a.*, b.install_id AS other, b.valid_from AS other_from, b.valid_to AS other_to
        FROM changed AS a JOIN meter_install AS b ON b.meter_id = a.meter_id
        UNION ALL
        SELECT 'pn', a.*, b.install_id, b.valid_from, b.valid_to
        FROM changed AS a JOIN meter_install AS b ON b.terminal_id = a.terminal_id AND b.pn = a.pn
        UNION ALL
        SELECT 'point', a.*, b.install_id, b.valid_from, b.valid_to
        FROM changed AS a JOIN meter_install AS b ON b.point_id = a.point_id
    ) AS pair
    WHERE other <> install_id
        AND coalesce(valid_from, '-infinity') < coalesce(other_to, 'infinity')
        AND coalesce(other_from, '-infinity') < coalesce(valid_to, 'infinity')
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'exclusion_violation',
            MESSAGE = 'two installs at one time',
            DETAIL = format('installs %s and %s share the %s (meter_id %s, terminal_id %s, pn %s)',
                clash.install_id, clash.other, clash.shared, clash.meter_id, clash.terminal_id, clash.pn);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER guard_insert AFTER INSERT ON meter_install REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION meter_install_guard();
CREATE TRIGGER guard_update AFTER UPDATE ON meter_install REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION meter_install_guard();

-- What the terminal itself says it holds (AFN 0A F10); terminal.archive_read_at tells "empty" from "never read".
CREATE TABLE terminal_archive (
    terminal_id int NOT NULL REFERENCES terminal,
    pn smallint NOT NULL,
    address text COLLATE "C" NOT NULL,
    seen_at timestamptz NOT NULL,
    PRIMARY KEY (terminal_id, pn)
);

-- Who holds the terminal's connection: a new generation per login.
CREATE TABLE terminal_session (
    terminal_id int PRIMARY KEY REFERENCES terminal,
    worker text NOT NULL,
    generation bigint NOT NULL,
    peer text NOT NULL,
    since timestamptz NOT NULL,
    last_frame timestamptz NOT NULL
) WITH (fillfactor = 70);

CREATE TABLE unregistered_terminal (
    address text COLLATE "C" PRIMARY KEY,
    peer text NOT NULL,
    first_seen timestamptz NOT NULL,
    last_seen timestamptz NOT NULL,
    logins bigint NOT NULL
);
CREATE INDEX ON unregistered_terminal (last_seen);

CREATE TABLE audit (
    audit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL,
    who text NOT NULL,
    what text NOT NULL,
    detail jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX ON audit (at);
