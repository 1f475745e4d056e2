-- A trip takes its place within the limits in a transaction of its own, before it is claimed: whoever counts keeps others
-- waiting for the length of one statement, and how many trips there were does not matter, since places are numbered.
-- attempt: of the command, so that one that could not be claimed has its place still when it comes again.
ALTER TABLE relay_trip_sent
    ADD COLUMN attempt int NOT NULL DEFAULT 0,
    ADD COLUMN of_all bigint,
    ADD COLUMN of_area bigint,
    ADD COLUMN of_requester bigint;
UPDATE relay_trip_sent AS sent SET
    of_all = numbered.of_all, of_area = numbered.of_area, of_requester = numbered.of_requester
FROM (
    SELECT ctid AS place,
        row_number() OVER (ORDER BY at, ctid) AS of_all,
        row_number() OVER (PARTITION BY area_id ORDER BY at, ctid) AS of_area,
        row_number() OVER (PARTITION BY requester ORDER BY at, ctid) AS of_requester
    FROM relay_trip_sent
) AS numbered
WHERE sent.ctid = numbered.place;
ALTER TABLE relay_trip_sent
    ALTER COLUMN of_all SET NOT NULL,
    ALTER COLUMN of_area SET NOT NULL,
    ALTER COLUMN of_requester SET NOT NULL;
DROP INDEX relay_trip_sent_at_idx;
CREATE INDEX ON relay_trip_sent (at, of_all);
CREATE INDEX ON relay_trip_sent ((coalesce(area_id, 0)), at, of_all);
CREATE INDEX ON relay_trip_sent (requester, at, of_all);
CREATE INDEX ON relay_trip_sent (command_id, attempt);

-- Trips of this area, of this requester and in all that have taken a place after `since`.
CREATE FUNCTION trip_places(area int, asked_by text, since timestamptz,
    OUT of_area bigint, OUT of_requester bigint, OUT of_all bigint) LANGUAGE plpgsql STABLE AS $$
BEGIN
    of_area := coalesce((SELECT s.of_area FROM relay_trip_sent AS s WHERE coalesce(s.area_id, 0) = coalesce(area, 0)
            ORDER BY s.at DESC, s.of_all DESC LIMIT 1), 0)
        - coalesce((SELECT s.of_area FROM relay_trip_sent AS s WHERE coalesce(s.area_id, 0) = coalesce(area, 0)
            AND s.at <= since ORDER BY s.at DESC, s.of_all DESC LIMIT 1), 0);
    of_requester := coalesce((SELECT s.of_requester FROM relay_trip_sent AS s WHERE s.requester = asked_by
            ORDER BY s.at DESC, s.of_all DESC LIMIT 1), 0)
        - coalesce((SELECT s.of_requester FROM relay_trip_sent AS s WHERE s.requester = asked_by
            AND s.at <= since ORDER BY s.at DESC, s.of_all DESC LIMIT 1), 0);
    of_all := coalesce((SELECT s.of_all FROM relay_trip_sent AS s ORDER BY s.at DESC, s.of_all DESC LIMIT 1), 0)
        - coalesce((SELECT s.of_all FROM relay_trip_sent AS s
            WHERE s.at <= since ORDER BY s.at DESC, s.of_all DESC LIMIT 1), 0);
END $$;

-- Take a place where all three limits have room, or keep the one that this attempt has had since `fresh`. taken_at: NULL
-- where there was no room; the counts are those of the others.
-- It need not wait for the disk: the claim that rests on it comes later in the same log.
CREATE FUNCTION take_trip_place(lock bigint, command uuid, try int, area int, asked_by text, now timestamptz,
    since timestamptz, fresh timestamptz, most_area bigint, most_requester bigint, most_all bigint,
    OUT taken_at timestamptz, OUT of_area bigint, OUT of_requester bigint, OUT of_all bigint) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    -- Two that count at once would both find room for the last one. Each statement from here on sees what was committed.
    PERFORM pg_advisory_xact_lock(lock);
    SELECT p.of_area, p.of_requester, p.of_all INTO of_area, of_requester, of_all
    FROM trip_places(area, asked_by, since) AS p;
    SELECT s.at INTO taken_at FROM relay_trip_sent AS s
    WHERE s.command_id = command AND s.attempt = try AND s.at > fresh
        AND s.area_id IS NOT DISTINCT FROM area AND s.requester = asked_by
    ORDER BY s.at DESC LIMIT 1;
    IF FOUND THEN
        of_area := of_area - 1;
        of_requester := of_requester - 1;
        of_all := of_all - 1;
    ELSIF of_area < most_area AND of_requester < most_requester AND of_all < most_all THEN
        -- Never before an earlier one, whatever the clocks of several gateways say: the numbers follow the times.
        SELECT greatest(now, max(s.at)) INTO taken_at FROM relay_trip_sent AS s;
        INSERT INTO relay_trip_sent (at, area_id, requester, command_id, attempt, of_area, of_requester, of_all)
        SELECT taken_at, area, asked_by, command, try, 1 + ever.of_area, 1 + ever.of_requester, 1 + ever.of_all
        FROM trip_places(area, asked_by, '-infinity') AS ever;
    END IF;
END $$;
