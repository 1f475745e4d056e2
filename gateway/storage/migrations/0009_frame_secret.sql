-- The secret of this installation with which events tell the hash of a control frame: a plain hash would let anybody who
-- holds an event try all passwords of six digits. One row, made by the first process that needs it, never changed.
CREATE TABLE frame_secret (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    secret bytea NOT NULL CHECK (length(secret) = 32),
    made_at timestamptz NOT NULL
);
CREATE FUNCTION frame_secret_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the frame secret stays: hashes in the events of relay commands are keyed with it';
END $$;
CREATE TRIGGER frame_secret_stays BEFORE UPDATE OR DELETE ON frame_secret
    FOR EACH ROW EXECUTE FUNCTION frame_secret_stays();
