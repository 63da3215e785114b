-- name: top_users
-- description: The users with the most events in the range, by their codes.
-- parameters: start and end DateTime64(6, 'UTC') half-open; channels, devices, bands Array(String), empty for all; user_key String; show_ids UInt8, 1: ids too
SELECT substring(lower(hex(SHA256(concat({user_key:String}, ':', toString(user_id))))), 1, 12) AS user, if({show_ids:UInt8} = 1, toString(user_id), '') AS user_id_shown, n AS events, first AS first_event, newest AS newest_event
FROM
(
    SELECT user_id, count() AS n, min(event_time) AS first, max(event_time) AS newest
    FROM events
    WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
        AND event_time >= {start:DateTime64(6, 'UTC')} AND event_time < {end:DateTime64(6, 'UTC')}
        AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, ifNull(channel, 'none')))
        AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
        AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
    GROUP BY user_id
    ORDER BY n DESC, user_id
    LIMIT 20
)
ORDER BY events DESC, user
