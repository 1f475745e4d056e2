-- name: identifiers
-- Who has terminals behind this broker, by the identifiers they have there.
SELECT DISTINCT split_part(split_part(peer, '/', 3), '@', 1) FROM terminal_session
WHERE peer LIKE 'mqtt://%%@%%' AND split_part(split_part(peer, '/', 3), '@', 2) = %(broker)s

-- name: moved
-- Terminals behind this broker that went to others not long ago.
SELECT split_part(peer, '/', 4) FROM terminal_session
WHERE since >= %(since)s AND peer LIKE 'mqtt://%%@%%'
    AND split_part(split_part(peer, '/', 3), '@', 2) = %(broker)s
    AND split_part(split_part(peer, '/', 3), '@', 1) <> %(identifier)s

-- name: take_over
-- All terminals of an identifier at this broker are another's, in a new generation each: a process that comes
-- to itself again finds that they are not its own any more.
UPDATE terminal_session SET
    worker = %(worker)s, generation = generation + 1, since = %(at)s,
    peer = 'mqtt://' || %(identifier)s::text || '@' || %(broker)s::text || '/' || split_part(peer, '/', 4)
WHERE peer LIKE 'mqtt://%%@%%'
    AND split_part(peer, '/', 3) = %(gone)s::text || '@' || %(broker)s::text
RETURNING split_part(peer, '/', 4)
