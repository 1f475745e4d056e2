-- Is there a weather halt in force for this area, this organisation, one above it, or all? A function keeps its plans,
-- and a company without halts pays for one look at an index: the question is asked at every desk.
CREATE FUNCTION weather_halted(area int, organisation int) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM control_setting WHERE name = 'weather-halt') THEN
        RETURN false;
    END IF;
    RETURN EXISTS (
        WITH RECURSIVE above AS (
            SELECT o.organisation_id, o.parent_id FROM organisation AS o WHERE o.organisation_id = organisation
            UNION
            SELECT o.organisation_id, o.parent_id FROM organisation AS o
            JOIN above ON o.organisation_id = above.parent_id
        ), scopes (scope) AS (
            SELECT '' UNION ALL SELECT 'area:' || area
            UNION ALL SELECT 'organisation:' || above.organisation_id FROM above
        )
        SELECT FROM scopes CROSS JOIN LATERAL (
            SELECT s.value FROM control_setting AS s WHERE s.name = 'weather-halt' AND s.scope = scopes.scope
            ORDER BY s.setting_id DESC LIMIT 1
        ) AS newest WHERE newest.value = 'true'
    );
END $$;
