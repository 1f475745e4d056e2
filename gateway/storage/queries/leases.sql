-- name: try_lease
-- Take a lease for as long as this connection lives; false where another process holds it.
SELECT pg_try_advisory_lock(%s::int, hashtext(%s))

-- name: still_connected
-- A lease lives as long as its connection.
SELECT 1

-- name: give_lease
-- Let a lease go that this connection holds.
SELECT pg_advisory_unlock(%s::int, hashtext(%s))
