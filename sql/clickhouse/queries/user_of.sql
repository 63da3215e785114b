-- name: user_of
-- description: The users of the range whose code this is: one, or none. The hash is ClickHouse's own, over different users only.
-- parameters: start and end DateTime64(6, 'UTC') half-open; user String, the code; user_key String
SELECT user_id
FROM
(
    SELECT DISTINCT user_id FROM events WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
)
WHERE substring(lower(hex(SHA256(concat({user_key:String}, ':', toString(user_id))))), 1, 12) = {user:String}
ORDER BY user_id
LIMIT 2
