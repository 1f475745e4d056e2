-- How often the assets of terminals were changed: whoever keeps them in memory reads them again when the sum is another.
-- One row for all would make one import wait for the other, and a sequence counts before the change can be seen. So each
-- server process counts in a row of its own (of 64); the sum grows with each COMMIT, in the order of the commits.
CREATE TABLE assets_changes (
    place smallint PRIMARY KEY,
    changes bigint NOT NULL
);

CREATE FUNCTION count_assets_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO assets_changes AS known (place, changes) VALUES (pg_backend_pid() % 64, 1)
    ON CONFLICT (place) DO UPDATE SET changes = known.changes + 1;
    RETURN NULL;
END $$;

-- Only what a terminal's assets are made of: its clock, its archive and its customers change without them.
CREATE TRIGGER assets_changed AFTER INSERT OR DELETE OR UPDATE OF address, profile ON terminal
    FOR EACH STATEMENT EXECUTE FUNCTION count_assets_change();
CREATE TRIGGER assets_changed AFTER INSERT OR DELETE OR UPDATE ON meter_install
    FOR EACH STATEMENT EXECUTE FUNCTION count_assets_change();
CREATE TRIGGER assets_changed
    AFTER DELETE OR UPDATE OF number, address, protocol, profile, class, tariffs ON meter
    FOR EACH STATEMENT EXECUTE FUNCTION count_assets_change();
CREATE TRIGGER assets_changed AFTER DELETE OR UPDATE OF role ON metering_point
    FOR EACH STATEMENT EXECUTE FUNCTION count_assets_change();
