-- name: terminal_addresses
-- All terminals of the assets, without what hangs on them.
SELECT address FROM terminal ORDER BY address
