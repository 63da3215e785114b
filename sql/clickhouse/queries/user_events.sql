-- name: user_events
-- description: The good events of one user in the range, newest first.
-- parameters: start and end DateTime64(6, 'UTC') half-open; user_id Int64
SELECT event_time AS time_of_event, action, note_id, channel, position,
    if(device = 'none', '', device) AS device, dwell_ms / 1000 AS dwell_s
FROM events
WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
    AND event_time >= {start:DateTime64(6, 'UTC')} AND event_time < {end:DateTime64(6, 'UTC')}
    AND user_id = {user_id:Int64}
ORDER BY event_time DESC, action
LIMIT 500
