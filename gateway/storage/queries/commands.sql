-- Relay commands: the statements of commands.py. Each that changes a command names the state and version it leaves.

-- name: lock_meter
-- One desk a meter: whoever holds this row decides. Until more is done than looked, nothing waits for the disk.
SELECT intent, set_config('synchronous_commit', 'off', true) FROM meter_intent WHERE meter_id = %s FOR UPDATE

-- name: frame_secret
-- With what the hashes of frames are keyed.
SELECT secret FROM frame_secret

-- name: make_frame_secret
-- The first one stays.
INSERT INTO frame_secret (secret, made_at) VALUES (%s, %s) ON CONFLICT DO NOTHING

-- name: wait_for_disk
-- This transaction is over when it is on the disk.
SET LOCAL synchronous_commit = on

-- name: first_intent
-- Of a meter that never had a command.
INSERT INTO meter_intent (meter_id) VALUES (%s) ON CONFLICT DO NOTHING

-- name: facts
-- Where the meter stands now, or stood last, whose it is, what protects it, and what is switched for all; beside it the
-- commands that have not ended, one a row, each with the end of its chain. No row: it never was anywhere.
WITH facts AS MATERIALIZED (
    SELECT
        m.meter_id, m.number, m.address, i.terminal_id, t.address, i.pn, i.port, m.protocol, m.profile, p.role,
        m.relay_kind, own.area_id, own.organisation_id,
        NOT coalesce((
            SELECT s.value = 'false' FROM control_setting AS s
            WHERE s.name = 'shadow' AND s.scope = coalesce('organisation:' || own.organisation_id, '')
                AND (s.approved_by IS NOT NULL OR s.value = 'true')
            ORDER BY s.setting_id DESC LIMIT 1
        ), false) AS shadow,
        coalesce(c.cons_no, ''), coalesce(c.protected_class, '') <> '', coalesce(c.restore_mode, 'close'),
        coalesce((
            SELECT s.value = 'true' FROM control_setting AS s WHERE s.name = 'brake' AND s.scope = ''
            ORDER BY s.setting_id DESC LIMIT 1
        ), false) AS brake,
        weather_halted(own.area_id, own.organisation_id) AS weather_halt,
        (
            SELECT CASE WHEN s.value = 'true' THEN s.set_at END FROM control_setting AS s
            WHERE s.name = 'hold' AND s.scope = '' ORDER BY s.setting_id DESC LIMIT 1
        ) AS hold_since,
        ARRAY(
            SELECT jsonb_build_array(b.block_id, b.kind, b.since, b.until, b.source) FROM control_block AS b
            WHERE b.lifted_at IS NULL AND b.since <= %(now)s AND (b.until IS NULL OR b.until > %(now)s)
                AND (b.customer_id = p.customer_id OR b.point_id = p.point_id)
            ORDER BY b.block_id
        ) AS blocks,
        past.trip_until,
        (
            SELECT s.value FROM control_setting AS s
            WHERE s.name = 'limits' AND s.scope = '' AND s.approved_by IS NOT NULL ORDER BY s.setting_id DESC LIMIT 1
        ) AS limits,
        coalesce(past.restored_intent, 0) AS restored_intent, past.copy_until,
        coalesce(past.tripped_intent, 0) AS tripped_intent, coalesce(past.relit_intent, 0) AS relit_intent,
        i.installed, login.worker, login.generation, coalesce(newest.intent, 0) AS intent
    FROM meter AS m
    CROSS JOIN LATERAL (
        SELECT any_.terminal_id, any_.point_id, any_.pn, any_.port,
            (any_.valid_from IS NULL OR any_.valid_from <= %(now)s)
                AND (any_.valid_to IS NULL OR any_.valid_to > %(now)s) AS installed
        FROM meter_install AS any_ WHERE any_.meter_id = m.meter_id
        ORDER BY installed DESC, any_.valid_to DESC NULLS FIRST LIMIT 1
    ) AS i
    JOIN terminal AS t USING (terminal_id)
    JOIN metering_point AS p USING (point_id)
    LEFT JOIN customer AS c USING (customer_id)
    LEFT JOIN terminal_session AS login USING (terminal_id)
    LEFT JOIN meter_intent AS newest USING (meter_id)
    LEFT JOIN area AS a ON a.area_id = coalesce(p.area_id, t.area_id)
    CROSS JOIN LATERAL (
        SELECT max(c.intent) FILTER (WHERE c.action IN ('close', 'permit-close', 'keep-power')) AS restored_intent,
            max(c.valid_until) FILTER (WHERE c.action = 'trip' AND c.attempts > 0) AS copy_until,
            max(c.valid_until) FILTER (WHERE c.action = 'trip' AND c.attempts > 0 AND c.state <> 'verified') AS trip_until,
            max(c.intent) FILTER (WHERE c.action = 'trip' AND c.attempts > 0) AS tripped_intent,
            max(c.intent) FILTER (WHERE c.action IN ('close', 'permit-close') AND c.state = 'verified') AS relit_intent
        FROM relay_command AS c WHERE c.meter_id = m.meter_id
    ) AS past
    CROSS JOIN LATERAL (
        SELECT coalesce(p.area_id, t.area_id) AS area_id,
            coalesce(a.organisation_id, t.organisation_id) AS organisation_id
    ) AS own
    WHERE m.meter_id = %(meter_id)s
)
SELECT facts.*, own.* FROM facts LEFT JOIN LATERAL (
    SELECT %COLUMNS%, events, chain FROM relay_command
    WHERE meter_id = %(meter_id)s
        AND state IN ('requested', 'held', 'queued', 'sending', 'uncertain', 'acknowledged', 'field')
) AS own ON true
ORDER BY own.intent

-- name: command
-- One command.
SELECT %COLUMNS% FROM relay_command WHERE command_id = %s

-- name: known
-- What an idempotency key made.
SELECT %COLUMNS%, body_sha256 FROM relay_command WHERE requester = %s AND idempotency_key = %s

-- name: next_intent
-- The newest intent is the one that is carried out.
UPDATE meter_intent SET intent = intent + 1 WHERE meter_id = %s RETURNING intent

-- name: add
-- A new command, accepted and durable.
INSERT INTO relay_command (command_id, meter_id, terminal_id, area_id, organisation_id, action, state, version, intent,
    requester, cause, notice, customer, caused_by, work_order, label, trace, idempotency_key, body_sha256, batch_id,
    shadow, created_at, not_before, expires_at, changed_at)
VALUES (%(command_id)s, %(meter_id)s, %(terminal_id)s, %(area_id)s, %(organisation_id)s, %(action)s, 'requested', 1,
    %(intent)s, %(requester)s, %(cause)s, %(notice)s, %(customer)s, %(caused_by)s, %(work_order)s, %(label)s, %(trace)s,
    %(idempotency_key)s, %(body_sha256)s, %(batch_id)s, %(shadow)s, %(created_at)s, %(not_before)s, %(expires_at)s,
    %(created_at)s)

-- name: move
-- One step, its event, and with it what tells others. No row: somebody else has moved it.
WITH moved AS (
    UPDATE relay_command SET
        state = %(then)s, version = version + 1, changed_at = %(at)s, why = %(why)s, detail = %(detail)s,
        events = %(n)s, chain = %(hash)s, approver = %(approver)s, expires_at = %(expires_at)s,
        look_at = %(look_at)s, attempts = %(attempts)s, frame_sha256 = %(frame_hash)s, sent_at = %(sent_at)s,
        valid_until = %(valid_until)s, energised_at = %(energised_at)s
    WHERE command_id = %(command_id)s AND state = %(state)s AND version = %(version)s
    RETURNING command_id
), told AS (
    INSERT INTO outbox (at, type, subject, organisation_id, data)
    SELECT %(at)s, %(tells)s, command_id::text, %(organisation_id)s, %(told)s::jsonb FROM moved
    WHERE %(tells)s::text IS NOT NULL
)
INSERT INTO relay_command_event (command_id, n, at, kind, state, body, hash)
SELECT command_id, %(n)s, %(at)s, %(kind)s, %(then)s, %(body)s::jsonb, %(hash)s FROM moved
RETURNING event_id, CASE WHEN %(waits)s THEN set_config('synchronous_commit', 'on', true) END

-- name: chain
-- Where the chain of a command's events ends.
SELECT events, chain FROM relay_command WHERE command_id = %s

-- name: used
-- Trips of an area, of a requester and in all that have taken a place since an instant.
SELECT of_area, of_requester, of_all FROM trip_places(%s, %s, %s)

-- name: take_place
-- A place for a trip, where all limits have room; the places of others.
SELECT taken_at, of_area, of_requester, of_all FROM take_trip_place(%(lock)s, %(command_id)s, %(attempt)s, %(area_id)s,
    %(requester)s, %(now)s, %(since)s, %(fresh)s, %(most_area)s, %(most_requester)s, %(most_all)s)

-- name: open_field_order
-- One open order a meter.
INSERT INTO field_order (meter_id, command_id, opened_at, why, detail) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (meter_id) WHERE closed_at IS NULL DO NOTHING

-- name: close_field_order
-- Power is back, however that came about.
UPDATE field_order SET closed_at = %(at)s, closed_by = %(by)s, report = %(report)s
WHERE meter_id = %(meter_id)s AND closed_at IS NULL

-- name: cancel_field_order
-- Nobody has to go there any more, unless another close still waits for somebody.
UPDATE field_order SET closed_at = %(at)s, closed_by = 'cancelled', report = %(report)s
WHERE meter_id = %(meter_id)s AND closed_at IS NULL AND NOT EXISTS (
    SELECT FROM relay_command WHERE meter_id = %(meter_id)s AND action IN ('close', 'permit-close')
        AND state IN ('requested', 'held', 'queued', 'sending', 'uncertain', 'acknowledged', 'field')
)

-- name: overdue
-- What nobody has sent before its expiry: the meter's terminal may be away for good.
SELECT command_id, meter_id, terminal_id, action, state FROM relay_command
WHERE state IN ('held', 'queued') AND expires_at <= %s AND command_id <> ALL(%s::uuid[])
ORDER BY expires_at LIMIT %s

-- name: put_off
-- Nothing has happened but time; the reason why it waits stays the same.
UPDATE relay_command SET version = version + 1, look_at = %(look_at)s, detail = %(detail)s
WHERE command_id = %(command_id)s AND state = %(state)s AND version = %(version)s
RETURNING version

-- name: due
-- What wants work at these terminals: one each, what gives power back first, then the oldest; and so among
-- the terminals, where there is more than fits.
SELECT work.command_id, work.meter_id, work.terminal_id, work.action, work.state
FROM unnest(%(terminals)s::int[]) AS asked (terminal_id)
CROSS JOIN LATERAL (
    SELECT * FROM (
        (
            SELECT command_id, meter_id, terminal_id, action, state, created_at FROM relay_command AS c
            WHERE c.terminal_id = asked.terminal_id
                AND c.state IN ('queued', 'sending', 'uncertain', 'acknowledged', 'field')
                AND (c.look_at IS NULL OR c.look_at <= %(now)s)
                AND (c.state <> 'queued' OR c.not_before IS NULL OR c.not_before <= %(now)s)
            ORDER BY c.action IN ('close', 'permit-close') DESC, c.created_at LIMIT 1
        )
        UNION ALL
        (
            SELECT command_id, meter_id, terminal_id, action, state, created_at FROM relay_command AS c
            WHERE c.terminal_id = asked.terminal_id AND c.state = 'verified' AND c.look_at <= %(now)s
            ORDER BY c.look_at LIMIT 1
        )
    ) AS either
    ORDER BY action IN ('close', 'permit-close') DESC, state = 'verified', created_at LIMIT 1
) AS work
ORDER BY work.action IN ('close', 'permit-close') DESC, work.state = 'verified', work.created_at
LIMIT %(limit)s
