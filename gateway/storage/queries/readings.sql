-- Filing readings: the statements of readings.py.

-- name: create_staging
-- Where COPY puts a batch; of this connection only, emptied by every commit. meter_id is checked here since the
-- driver cuts a number that does not fit its type. coarse as in register_reading: a bit is set where the source
-- gives two decimals (meter 1, manual 4) or the register is absent.
CREATE TEMPORARY TABLE reading_staging (
    meter_id bigint NOT NULL CHECK (meter_id BETWEEN 1 AND 2147483647),
    quantity smallint NOT NULL CHECK (quantity BETWEEN 1 AND 8),
    kind smallint NOT NULL CHECK (kind BETWEEN 1 AND 3),
    frozen_at timestamptz NOT NULL,
    total bigint,
    t1 bigint,
    t2 bigint,
    t3 bigint,
    t4 bigint,
    further bigint[] CHECK (cardinality(further) <= 59),
    read_at timestamptz,
    collected_at timestamptz NOT NULL,
    source smallint NOT NULL CHECK (source BETWEEN 1 AND 4),
    quality smallint NOT NULL CHECK (quality BETWEEN 1 AND 5),
    ticket int NOT NULL,
    coarse smallint GENERATED ALWAYS AS (
        CASE WHEN source IN (1, 4) THEN 63 ELSE
            (total IS NULL)::int + 2 * (t1 IS NULL)::int + 4 * (t2 IS NULL)::int + 8 * (t3 IS NULL)::int
            + 16 * (t4 IS NULL)::int + 32 * (further IS NULL)::int
        END
    ) STORED
) ON COMMIT DELETE ROWS

-- name: copy_staging
-- The columns of model.ReadingRow in its order, and the caller's place in the batch.
COPY reading_staging (meter_id, quantity, kind, frozen_at, total, t1, t2, t3, t4, further, read_at, collected_at,
    source, quality, ticket) FROM STDIN (FORMAT binary)

-- name: empty_staging
-- Between two rounds of one batch.
TRUNCATE reading_staging

-- name: take_turn
-- One transaction at a time files into a database, whoever writes: the row judged against is the row that stands.
SELECT pg_advisory_xact_lock(%s)

-- name: lift_decompression_limit
-- A late row opens a whole pack of a compressed chunk; what bounds the work is the batch.
SET timescaledb.max_tuples_decompressed_per_dml_transaction = 0

-- name: file_staged
-- File what is staged (its keys are unique); returns ticket, outcome and rows of all that are not simply new.
-- Two registers agree if one is absent, or both are the same when cut to what the coarser of them is known to.
-- All agree: the row that stands takes the registers it lacks and finer digits, and the source, quality and times
-- of the staged row where that is of a better source (filled; equal where that changes nothing). One does not:
-- the better source stands (won: the staged row, lost: the old one; the old one too where the source is the same),
-- nothing is mixed, and the row that yields is kept whole in reading_conflict, once.
-- LATERAL … LIMIT 1 is one look into the index per staged row, whatever the planner believes about sizes.
WITH judged AS MATERIALIZED (
    SELECT
        s.ctid AS staged, s.*, r.total AS old_total, r.t1 AS old_t1, r.t2 AS old_t2, r.t3 AS old_t3, r.t4 AS old_t4,
        r.further AS old_further, r.read_at AS old_read_at, r.collected_at AS old_collected_at,
        r.source AS old_source, r.quality AS old_quality, r.coarse AS old_coarse,
        CASE
            WHEN r.total = s.total AND r.source <= s.source AND r.coarse & s.coarse = r.coarse
                AND (r.t1, r.t2, r.t3, r.t4, r.further) IS NOT DISTINCT FROM (s.t1, s.t2, s.t3, s.t4, s.further)
                THEN 'equal'
            WHEN registers_agree(r.total, s.total, (r.coarse | s.coarse) & 1)
                AND registers_agree(r.t1, s.t1, (r.coarse | s.coarse) & 2)
                AND registers_agree(r.t2, s.t2, (r.coarse | s.coarse) & 4)
                AND registers_agree(r.t3, s.t3, (r.coarse | s.coarse) & 8)
                AND registers_agree(r.t4, s.t4, (r.coarse | s.coarse) & 16)
                AND (r.further IS NULL OR s.further IS NULL
                    OR further_agree(r.further, s.further, (r.coarse | s.coarse) & 32))
                THEN 'agrees'
            WHEN s.source < r.source THEN 'won'
            ELSE 'lost'
        END AS verdict
    FROM reading_staging AS s
    CROSS JOIN LATERAL (
        SELECT * FROM register_reading AS r
        WHERE r.frozen_at = s.frozen_at AND r.meter_id = s.meter_id AND r.quantity = s.quantity AND r.kind = s.kind
        LIMIT 1
    ) AS r
), merged AS (
    SELECT *, CASE
        WHEN source < old_source OR coarse <> old_coarse
            OR (total, t1, t2, t3, t4, further)
                IS DISTINCT FROM (old_total, old_t1, old_t2, old_t3, old_t4, old_further)
            THEN 'filled' ELSE 'equal' END AS outcome
    FROM (
        SELECT
            ticket, frozen_at, meter_id, quantity, kind,
            register_merged(old_total, total, old_coarse & ~coarse & 1) AS total,
            register_merged(old_t1, t1, old_coarse & ~coarse & 2) AS t1,
            register_merged(old_t2, t2, old_coarse & ~coarse & 4) AS t2,
            register_merged(old_t3, t3, old_coarse & ~coarse & 8) AS t3,
            register_merged(old_t4, t4, old_coarse & ~coarse & 16) AS t4,
            CASE WHEN old_further IS NULL THEN further WHEN further IS NULL THEN old_further
                ELSE further_merged(old_further, further, old_coarse & ~coarse & 32) END AS further,
            CASE WHEN source < old_source THEN read_at ELSE old_read_at END AS read_at,
            CASE WHEN source < old_source THEN collected_at ELSE old_collected_at END AS collected_at,
            CASE WHEN source < old_source THEN quality ELSE old_quality END AS quality,
            source, (coarse & old_coarse)::smallint AS coarse,
            old_total, old_t1, old_t2, old_t3, old_t4, old_further, old_source, old_coarse
        FROM judged WHERE verdict = 'agrees'
    ) AS agreeing
), fresh AS (
    INSERT INTO register_reading (frozen_at, meter_id, quantity, kind, total, t1, t2, t3, t4, further, read_at,
        collected_at, source, quality, coarse)
    SELECT frozen_at, meter_id, quantity, kind, total, t1, t2, t3, t4, further, read_at, collected_at, source,
        quality, coarse
    FROM reading_staging
    WHERE ctid NOT IN (SELECT staged FROM judged)
), changed AS (
    INSERT INTO register_reading (frozen_at, meter_id, quantity, kind, total, t1, t2, t3, t4, further, read_at,
        collected_at, source, quality, coarse)
    SELECT frozen_at, meter_id, quantity, kind, total, t1, t2, t3, t4, further, read_at, collected_at,
        least(source, old_source), quality, coarse
    FROM merged WHERE outcome = 'filled'
    UNION ALL
    SELECT frozen_at, meter_id, quantity, kind, total, t1, t2, t3, t4, further, read_at, collected_at, source,
        quality, coarse
    FROM judged WHERE verdict = 'won'
    ON CONFLICT (frozen_at, meter_id, quantity, kind) DO UPDATE SET
        total = excluded.total, t1 = excluded.t1, t2 = excluded.t2, t3 = excluded.t3, t4 = excluded.t4,
        further = excluded.further, read_at = excluded.read_at, collected_at = excluded.collected_at,
        source = excluded.source, quality = excluded.quality, coarse = excluded.coarse
), kept AS (
    INSERT INTO reading_conflict (frozen_at, meter_id, quantity, kind, total, t1, t2, t3, t4, further, read_at,
        collected_at, source, quality, coarse)
    SELECT frozen_at, meter_id, quantity, kind, old_total, old_t1, old_t2, old_t3, old_t4, old_further,
        old_read_at, old_collected_at, old_source, old_quality, old_coarse
    FROM judged WHERE verdict = 'won'
    UNION ALL
    SELECT frozen_at, meter_id, quantity, kind, total, t1, t2, t3, t4, further, read_at, collected_at, source,
        quality, coarse
    FROM judged WHERE verdict = 'lost'
    ON CONFLICT ON CONSTRAINT kept_once DO NOTHING
), cleared AS (
    DELETE FROM collection_failure WHERE ctid = ANY (ARRAY(
        SELECT f.ctid FROM reading_staging AS s
        CROSS JOIN LATERAL (
            SELECT ctid FROM collection_failure AS f WHERE f.frozen_at = s.frozen_at
                AND f.meter_id = s.meter_id AND f.quantity = s.quantity AND f.kind = s.kind
            LIMIT 1
        ) AS f
        WHERE EXISTS (SELECT FROM collection_failure)
    ))
)
SELECT ticket, outcome, count(*) FROM (
    SELECT ticket, verdict AS outcome FROM judged WHERE verdict <> 'agrees'
    UNION ALL
    SELECT ticket, outcome FROM merged
) AS told GROUP BY ticket, outcome
