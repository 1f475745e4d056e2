-- Readings as a hypertable, where TimescaleDB is: chunks of 90 days, packed once the last day of the longest
-- re-asking window (62 days) lies behind. Ordered by meter without segments: a day has one row per meter, so a
-- segment per meter would pack no more than 90 values.
SELECT create_hypertable('register_reading', 'frozen_at', chunk_time_interval => INTERVAL '90 days',
                         create_default_indexes => false, migrate_data => true);
ALTER TABLE register_reading SET (
    timescaledb.compress,
    timescaledb.compress_orderby = 'meter_id, frozen_at'
);
SELECT add_compression_policy('register_reading', compress_after => INTERVAL '100 days');
