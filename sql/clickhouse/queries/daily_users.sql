-- name: daily_users
-- description: Daily active users, exact: different user_id with at least one event in the (UTC) day.
-- parameters: start and end DateTime64(6, 'UTC') half-open; channels Array(String), empty for all
SELECT toDate(event_time, 'UTC') AS day, uniqExact(user_id) AS users
FROM events
WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
    AND event_time >= {start:DateTime64(6, 'UTC')} AND event_time < {end:DateTime64(6, 'UTC')}
    AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, ifNull(channel, 'none')))
GROUP BY day
ORDER BY day
