-- Readings, the ones that differed from them, and what is missing and why.

-- Names of the codes, for people and dashboards; the program's enums are held equal to them by a test.
CREATE TABLE quantity (
    code smallint PRIMARY KEY,
    label text COLLATE "C" NOT NULL UNIQUE,
    name_zh text NOT NULL,
    unit text NOT NULL
);
INSERT INTO quantity VALUES
    (1, 'forward_active', '正向有功', 'kWh'), (2, 'reverse_active', '反向有功', 'kWh'),
    (3, 'forward_reactive', '正向无功', 'kvarh'), (4, 'reverse_reactive', '反向无功', 'kvarh'),
    (5, 'reactive_q1', '一象限无功', 'kvarh'), (6, 'reactive_q2', '二象限无功', 'kvarh'),
    (7, 'reactive_q3', '三象限无功', 'kvarh'), (8, 'reactive_q4', '四象限无功', 'kvarh');

CREATE TABLE reading_kind (code smallint PRIMARY KEY, label text NOT NULL UNIQUE, name_zh text NOT NULL);
INSERT INTO reading_kind VALUES (1, 'day', '日冻结'), (2, 'month', '月冻结'), (3, 'live', '实时');

-- The smaller the rank, the more it is believed.
CREATE TABLE reading_source (
    code smallint PRIMARY KEY,
    label text NOT NULL UNIQUE,
    name_zh text NOT NULL,
    rank smallint NOT NULL UNIQUE,
    decimals smallint NOT NULL CHECK (decimals IN (2, 4))
);
INSERT INTO reading_source VALUES
    (1, 'meter', '电能表冻结', 1, 2), (2, 'terminal', '终端冻结', 2, 4),
    (3, 'pushed', '终端主动上报', 3, 4), (4, 'manual', '人工录入', 4, 2);

CREATE TABLE reading_quality (code smallint PRIMARY KEY, label text NOT NULL UNIQUE, name_zh text NOT NULL);
INSERT INTO reading_quality VALUES
    (1, 'good', '正常'), (2, 'contested', '终端地址冲突'), (3, 'late_read', '补抄'), (4, 'clock_off', '时钟超差'),
    (5, 'live_as_freeze', '实时代冻结');

-- Registers are integers of 0.0001 kWh (kvarh), NULL where the device gave none; `further` holds tariffs 5 on.
-- coarse: bit i set = register i is known to two decimals only, or absent (0 total, 1-4 tariffs, 5 further).
-- The key begins with the instant: one midnight's rows lie side by side, so filing a day costs the same after
-- ten years as on the first night. Columns are laid wide to narrow, which leaves no padding in the row.
CREATE TABLE register_reading (
    frozen_at timestamptz NOT NULL,
    total bigint,
    t1 bigint,
    t2 bigint,
    t3 bigint,
    t4 bigint,
    read_at timestamptz,
    collected_at timestamptz NOT NULL,
    meter_id int NOT NULL,
    quantity smallint NOT NULL,
    kind smallint NOT NULL,
    source smallint NOT NULL,
    quality smallint NOT NULL,
    coarse smallint NOT NULL,
    further bigint[],
    PRIMARY KEY (frozen_at, meter_id, quantity, kind)
);
CREATE INDEX register_reading_live ON register_reading (meter_id, frozen_at) WHERE kind = 3;

-- The reading that did not stand, whole. The same one sent again is kept once.
CREATE TABLE reading_conflict (
    conflict_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    noted_at timestamptz NOT NULL DEFAULT now(),
    frozen_at timestamptz NOT NULL,
    meter_id int NOT NULL,
    quantity smallint NOT NULL,
    kind smallint NOT NULL,
    total bigint,
    t1 bigint,
    t2 bigint,
    t3 bigint,
    t4 bigint,
    further bigint[],
    read_at timestamptz,
    collected_at timestamptz NOT NULL,
    source smallint NOT NULL,
    quality smallint NOT NULL,
    coarse smallint NOT NULL,
    CONSTRAINT kept_once UNIQUE NULLS NOT DISTINCT
        (frozen_at, meter_id, quantity, kind, source, total, t1, t2, t3, t4, further)
);

-- The rule for one register and for `further`; coarse and finer are true where not 0. The planner writes the first
-- two straight into the statement that calls them.
CREATE FUNCTION registers_agree(a bigint, b bigint, coarse int) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN a IS NULL OR b IS NULL THEN true WHEN coarse <> 0 THEN a / 100 = b / 100 ELSE a = b END
$$;
CREATE FUNCTION register_merged(old bigint, new bigint, finer int) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN old IS NULL OR (finer <> 0 AND new IS NOT NULL) THEN new ELSE old END
$$;
CREATE FUNCTION further_agree(a bigint[], b bigint[], coarse int) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(bool_and(registers_agree(pair.a, pair.b, coarse)), true) FROM unnest(a, b) AS pair(a, b)
$$;
CREATE FUNCTION further_merged(old bigint[], new bigint[], finer int) RETURNS bigint[] LANGUAGE sql IMMUTABLE AS $$
    SELECT array_agg(register_merged(pair.old, pair.new, finer) ORDER BY place)
    FROM unnest(old, new) WITH ORDINALITY AS pair(old, new, place)
$$;

CREATE TABLE collection_failure (
    frozen_at timestamptz NOT NULL,
    meter_id int NOT NULL,
    quantity smallint NOT NULL,
    kind smallint NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    failed_at timestamptz NOT NULL,
    times int NOT NULL DEFAULT 1,
    PRIMARY KEY (frozen_at, meter_id, quantity, kind)
);

-- Who read what a person brought in; the value itself goes through the writer like any other.
CREATE TABLE manual_reading (
    frozen_at timestamptz NOT NULL,
    meter_id int NOT NULL REFERENCES meter,
    quantity smallint NOT NULL,
    total bigint NOT NULL,
    reader text NOT NULL,
    read_at timestamptz NOT NULL,
    filed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (frozen_at, meter_id, quantity, reader, read_at, total)
);

CREATE TABLE raw_frame (
    raw_frame_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_at timestamptz NOT NULL,
    terminal text NOT NULL,
    direction text NOT NULL CHECK (direction IN ('up', 'down')),
    reason text NOT NULL,
    raw bytea NOT NULL
);
CREATE INDEX ON raw_frame (terminal, received_at);
