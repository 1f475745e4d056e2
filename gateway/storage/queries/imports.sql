-- Assets from files: the statements of imports.py, all in one transaction. Cells that were empty are NULL: a
-- default for what is new, "as it is" for what is there.

-- name: stage_terminals
-- What terminals.csv says.
CREATE TEMPORARY TABLE import_terminal (
    line int NOT NULL, terminal text COLLATE "C" NOT NULL, profile text, organisation text, area text
) ON COMMIT DROP

-- name: copy_terminals
-- In the order of the columns.
COPY import_terminal FROM STDIN (FORMAT binary)

-- name: twice_terminals
-- Rows that name the same terminal: line, the other line, terminal.
SELECT line, other, terminal FROM (
    SELECT line, terminal, CASE WHEN line = min(line) OVER w THEN lead(line) OVER (w ORDER BY line)
        ELSE min(line) OVER w END AS other
    FROM import_terminal WINDOW w AS (PARTITION BY terminal)
) AS rows WHERE other IS NOT NULL ORDER BY line

-- name: forget_terminals
-- Bad rows are not imported.
DELETE FROM import_terminal WHERE line = ANY(%s)

-- name: add_organisations
-- By name.
INSERT INTO organisation (name, source_system)
SELECT DISTINCT organisation, 'csv' FROM import_terminal WHERE organisation IS NOT NULL
ON CONFLICT (name) DO NOTHING

-- name: add_areas
-- By name.
INSERT INTO area (name, organisation_id, source_system)
SELECT DISTINCT ON (area) area, o.organisation_id, 'csv'
FROM import_terminal AS i LEFT JOIN organisation AS o ON o.name = i.organisation
WHERE area IS NOT NULL ORDER BY area, line
ON CONFLICT (name) DO NOTHING

-- name: add_terminals
-- Those not known yet.
INSERT INTO terminal (address, profile, organisation_id, area_id, source_system)
SELECT i.terminal, coalesce(i.profile, ''), o.organisation_id, a.area_id, 'csv'
FROM import_terminal AS i
LEFT JOIN organisation AS o ON o.name = i.organisation
LEFT JOIN area AS a ON a.name = i.area
ORDER BY i.line
ON CONFLICT (address) DO NOTHING

-- name: change_terminals
-- Those that differ.
UPDATE terminal AS t SET
    profile = coalesce(i.profile, t.profile), organisation_id = coalesce(o.organisation_id, t.organisation_id),
    area_id = coalesce(a.area_id, t.area_id), version = t.version + 1
FROM import_terminal AS i
LEFT JOIN organisation AS o ON o.name = i.organisation
LEFT JOIN area AS a ON a.name = i.area
WHERE t.address = i.terminal AND (t.profile, t.organisation_id, t.area_id) IS DISTINCT FROM (
    coalesce(i.profile, t.profile), coalesce(o.organisation_id, t.organisation_id),
    coalesce(a.area_id, t.area_id))

-- name: greet_terminals
-- A terminal that is in the assets now is no stranger any more.
DELETE FROM unregistered_terminal AS u USING import_terminal AS i WHERE u.address = i.terminal

-- name: stage_meters
-- What meters.csv says, and what it means here (filled by `understand…`). starts: valid_from, NULL as -infinity.
CREATE TEMPORARY TABLE import_meter (
    line int NOT NULL, meter text COLLATE "C" NOT NULL, address text COLLATE "C" NOT NULL,
    terminal text COLLATE "C" NOT NULL, pn smallint NOT NULL, port smallint, protocol text, tariffs smallint,
    class text, role text, relay_kind text, ct int, pt int, valid_from timestamptz, profile text, cons_no text,
    meter_id int, terminal_id int, install_id int, point_id int, customer_id int, is_new boolean DEFAULT false,
    changed boolean DEFAULT false, action text, starts timestamptz, ends timestamptz,
    new_point boolean
) ON COMMIT DROP

-- name: copy_meters
-- The columns of the file, in the order of imports.py.
COPY import_meter (line, meter, address, terminal, pn, port, protocol, tariffs, class, role, relay_kind, ct, pt,
    valid_from, profile, cons_no) FROM STDIN (FORMAT binary)

-- name: index_meters
-- The planner knows nothing of a table just filled.
ANALYZE import_meter

-- name: twice_meters
-- Rows of one file that cannot both be: line, the other line, the column and value they share. What is at one place
-- from two instants on follows one another there; what is there from the same instant on does not.
WITH shared AS (
    SELECT line, 'meter' AS what, meter AS value, '' AS of, NULL::timestamptz AS since FROM import_meter
    UNION ALL SELECT line, 'address', address, terminal, NULL FROM import_meter
    UNION ALL SELECT line, 'pn', pn::text, terminal, coalesce(valid_from, '-infinity') FROM import_meter
)
SELECT line, other, what, value FROM (
    SELECT line, what, value, CASE WHEN line = min(line) OVER w THEN lead(line) OVER (w ORDER BY line)
        ELSE min(line) OVER w END AS other
    FROM shared WINDOW w AS (PARTITION BY what, value, of, since)
) AS rows WHERE other IS NOT NULL ORDER BY line

-- name: forget_meters
-- Bad rows are not imported.
DELETE FROM import_meter WHERE line = ANY(%s)

-- name: understand_meters
-- Who and where that is here. The install a row speaks of: the meter's open one, or else its last one at that
-- place (a row of history).
UPDATE import_meter AS i SET
    meter_id = found.meter_id, terminal_id = found.terminal_id, install_id = found.install_id,
    starts = coalesce(i.valid_from, found.valid_from, '-infinity'),
    action = CASE
        WHEN found.install_id IS NULL THEN 'open'
        WHEN found.same_place THEN 'stay'
        WHEN i.valid_from > coalesce(found.valid_from, '-infinity') THEN 'move'
        ELSE 'correct'
    END
FROM (
    SELECT i.line, m.meter_id, t.terminal_id, n.install_id, n.valid_from,
        n.terminal_id = t.terminal_id AND n.pn = i.pn AS same_place
    FROM import_meter AS i
    LEFT JOIN terminal AS t ON t.address = i.terminal
    LEFT JOIN meter AS m ON m.number = i.meter
    LEFT JOIN LATERAL (
        SELECT n.* FROM meter_install AS n
        WHERE n.meter_id = m.meter_id
            AND (n.valid_to IS NULL OR (n.terminal_id = t.terminal_id AND n.pn = i.pn))
        ORDER BY n.valid_to DESC NULLS FIRST LIMIT 1
    ) AS n ON true
) AS found
WHERE found.line = i.line

-- name: unknown_terminals
-- Rows whose terminal nobody knows.
SELECT line, terminal FROM import_meter WHERE terminal_id IS NULL ORDER BY line

-- name: taken_places
-- Rows whose place is held by another meter at that time: line, pn, meter, until (NULL: until further notice). A
-- meter that came later or leaves with this import holds nothing; one that came earlier gives way.
SELECT i.line, i.pn, m.number, n.valid_to
FROM import_meter AS i
JOIN meter_install AS n ON n.terminal_id = i.terminal_id AND n.pn = i.pn
JOIN meter AS m ON m.meter_id = n.meter_id
WHERE n.meter_id IS DISTINCT FROM i.meter_id AND i.action IN ('open', 'move', 'correct')
    AND (coalesce(n.valid_from, '-infinity') = i.starts
        OR (coalesce(n.valid_from, '-infinity') < i.starts AND n.valid_to > i.starts))
    AND NOT EXISTS (
        SELECT FROM import_meter AS leaving
        WHERE leaving.install_id = n.install_id AND leaving.action = 'correct'
    )
ORDER BY i.line

-- name: still_elsewhere
-- Rows of meters that were somewhere else until later than the row's valid_from: line, meter, until.
SELECT i.line, i.meter, max(n.valid_to)
FROM import_meter AS i JOIN meter_install AS n ON n.meter_id = i.meter_id
WHERE n.install_id IS DISTINCT FROM i.install_id AND n.valid_to > i.starts AND i.action <> 'stay'
GROUP BY i.line, i.meter ORDER BY i.line

-- name: taken_addresses
-- Rows whose address another meter of the terminal has, which stays: line, address, meter, pn.
SELECT i.line, i.address, m.number, n.pn
FROM import_meter AS i
JOIN meter AS m ON m.address = i.address AND m.number <> i.meter
JOIN meter_install AS n ON n.meter_id = m.meter_id AND n.terminal_id = i.terminal_id AND n.valid_to IS NULL
WHERE n.pn <> i.pn AND NOT EXISTS (
    SELECT FROM import_meter AS other WHERE other.meter = m.number
        AND (other.address <> m.address OR other.terminal_id IS DISTINCT FROM n.terminal_id)
)
ORDER BY i.line

-- name: add_customers
-- By cons_no.
INSERT INTO customer (cons_no, source_system)
SELECT DISTINCT cons_no, 'csv' FROM import_meter WHERE cons_no IS NOT NULL ON CONFLICT (cons_no) DO NOTHING

-- name: number_meters
-- New meters and new places get their numbers; a place that was measured before keeps its point. ends: when a later
-- meter comes to the same place.
WITH spot AS (
    SELECT n.terminal_id, n.pn, n.valid_from, n.point_id, NULL::int AS line
    FROM meter_install AS n
    WHERE (n.terminal_id, n.pn) IN (SELECT terminal_id, pn FROM import_meter WHERE action <> 'stay')
        AND NOT EXISTS (
            SELECT FROM import_meter AS i WHERE i.install_id = n.install_id AND i.action = 'correct'
        )
    UNION ALL
    SELECT terminal_id, pn, starts, CASE action WHEN 'correct' THEN (
            SELECT n.point_id FROM meter_install AS n WHERE n.install_id = i.install_id
        ) END, line
    FROM import_meter AS i WHERE action <> 'stay'
), ordered AS (
    SELECT line, terminal_id, pn, point_id, max(point_id) FILTER (WHERE line IS NULL) OVER place AS known_point,
        lead(valid_from) OVER (place ORDER BY valid_from NULLS FIRST) AS ends
    FROM spot WINDOW place AS (PARTITION BY terminal_id, pn)
), fresh AS MATERIALIZED (
    SELECT terminal_id, pn, nextval(pg_get_serial_sequence('metering_point', 'point_id'))::int AS point_id
    FROM (
        SELECT DISTINCT terminal_id, pn FROM ordered WHERE coalesce(point_id, known_point) IS NULL
    ) AS missing
)
UPDATE import_meter AS i SET
    customer_id = c.customer_id,
    is_new = i.meter_id IS NULL,
    meter_id = coalesce(i.meter_id, nextval(pg_get_serial_sequence('meter', 'meter_id'))::int),
    point_id = CASE WHEN i.action = 'stay' THEN n.point_id
        ELSE coalesce(o.point_id, o.known_point, f.point_id) END,
    ends = o.ends,
    new_point = i.action <> 'stay' AND coalesce(o.point_id, o.known_point) IS NULL
FROM import_meter AS self
LEFT JOIN customer AS c ON c.cons_no = self.cons_no
LEFT JOIN ordered AS o ON o.line = self.line
LEFT JOIN fresh AS f ON f.terminal_id = self.terminal_id AND f.pn = self.pn
LEFT JOIN meter_install AS n ON n.install_id = self.install_id
WHERE self.line = i.line

-- name: add_points
-- One per new place, as its latest meter's row says.
INSERT INTO metering_point (point_id, role, customer_id, source_system) OVERRIDING SYSTEM VALUE
SELECT DISTINCT ON (point_id) point_id, coalesce(role, 'customer'), customer_id, 'csv'
FROM import_meter WHERE new_point ORDER BY point_id, starts DESC

-- name: change_points
-- Role and customer are the place's; where a file tells of two meters there, the later row counts.
WITH told AS (
    SELECT DISTINCT ON (point_id) line, point_id, role, customer_id
    FROM import_meter ORDER BY point_id, starts DESC
), changed AS (
    UPDATE metering_point AS p SET
        role = coalesce(told.role, p.role), customer_id = coalesce(told.customer_id, p.customer_id),
        version = p.version + 1
    FROM told
    WHERE p.point_id = told.point_id AND (p.role, p.customer_id) IS DISTINCT FROM
        (coalesce(told.role, p.role), coalesce(told.customer_id, p.customer_id))
    RETURNING told.line
)
UPDATE import_meter AS i SET changed = true FROM changed WHERE changed.line = i.line

-- name: add_meters
-- With defaults for what the file left out.
INSERT INTO meter (meter_id, number, address, protocol, profile, class, relay_kind, tariffs, source_system)
OVERRIDING SYSTEM VALUE
SELECT meter_id, meter, address, coalesce(protocol, 'dlt645-2007'), coalesce(profile, ''),
    coalesce(class, 'single_phase'), coalesce(relay_kind, 'built_in'), coalesce(tariffs, 4), 'csv'
FROM import_meter WHERE is_new

-- name: change_meters
-- Those that differ.
WITH changed AS (
    UPDATE meter AS m SET
        address = i.address, protocol = coalesce(i.protocol, m.protocol), profile = coalesce(i.profile, m.profile),
        class = coalesce(i.class, m.class), relay_kind = coalesce(i.relay_kind, m.relay_kind),
        tariffs = coalesce(i.tariffs, m.tariffs), version = m.version + 1
    FROM import_meter AS i
    WHERE m.meter_id = i.meter_id AND NOT i.is_new
        AND (m.address, m.protocol, m.profile, m.class, m.relay_kind, m.tariffs) IS DISTINCT FROM (
            i.address, coalesce(i.protocol, m.protocol), coalesce(i.profile, m.profile),
            coalesce(i.class, m.class), coalesce(i.relay_kind, m.relay_kind), coalesce(i.tariffs, m.tariffs))
    RETURNING i.line
)
UPDATE import_meter AS i SET changed = true FROM changed WHERE changed.line = i.line

-- name: close_installs
-- A meter that moves leaves its old place at that instant; one that is followed leaves when the later one comes.
UPDATE meter_install AS n SET valid_to = leaving.at, reason = leaving.reason, version = n.version + 1
FROM (
    SELECT install_id, min(at) AS at, min(reason) AS reason FROM (
        SELECT install_id, valid_from AS at, 'moved' AS reason FROM import_meter WHERE action = 'move'
        UNION ALL
        SELECT n.install_id, i.starts, 'followed'
        FROM import_meter AS i JOIN meter_install AS n ON n.terminal_id = i.terminal_id AND n.pn = i.pn
        WHERE i.action <> 'stay' AND n.valid_to IS NULL AND n.meter_id <> i.meter_id
            AND coalesce(n.valid_from, '-infinity') < i.starts
            AND NOT EXISTS (
                SELECT FROM import_meter AS l WHERE l.install_id = n.install_id AND l.action = 'correct'
            )
    ) AS ways GROUP BY install_id
) AS leaving
WHERE n.install_id = leaving.install_id

-- name: change_installs
-- Those that stay or were wrong: only what the file tells and what differs. Meters may change places here.
WITH changed AS (
    UPDATE meter_install AS n SET
        terminal_id = i.terminal_id, pn = i.pn, port = coalesce(i.port, n.port), ct = coalesce(i.ct, n.ct),
        pt = coalesce(i.pt, n.pt), valid_from = coalesce(i.valid_from, n.valid_from),
        valid_to = coalesce(n.valid_to, i.ends), version = n.version + 1
    FROM import_meter AS i
    WHERE i.action IN ('stay', 'correct') AND n.install_id = i.install_id
        AND (n.terminal_id, n.pn, n.port, n.ct, n.pt, n.valid_from) IS DISTINCT FROM (
            i.terminal_id, i.pn, coalesce(i.port, n.port), coalesce(i.ct, n.ct), coalesce(i.pt, n.pt),
            coalesce(i.valid_from, n.valid_from))
    RETURNING i.line
)
UPDATE import_meter AS i SET changed = true FROM changed WHERE changed.line = i.line

-- name: open_installs
-- New meters, and those that moved.
INSERT INTO meter_install (point_id, meter_id, terminal_id, pn, port, valid_from, valid_to, ct, pt, source_system)
SELECT point_id, meter_id, terminal_id, pn, coalesce(port, 31), valid_from, ends, coalesce(ct, 1),
    coalesce(pt, 1), 'csv'
FROM import_meter WHERE action IN ('open', 'move')

-- name: count_meters
-- new, changed, same
SELECT count(*) FILTER (WHERE is_new),
    count(*) FILTER (WHERE NOT is_new AND (changed OR action IN ('open', 'move'))),
    count(*) FILTER (WHERE NOT is_new AND NOT changed AND action NOT IN ('open', 'move'))
FROM import_meter

-- name: analyze_assets
-- After a large import the planner must know.
ANALYZE terminal, meter, metering_point, meter_install, customer
