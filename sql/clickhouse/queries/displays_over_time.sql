-- name: displays_over_time
-- description: Displays, clicks and CTR per time step.
-- parameters: start and end DateTime64(6, 'UTC') half-open; channels Array(String), empty for all; step UInt32, seconds
SELECT
    toStartOfInterval(session_start, toIntervalSecond({step:UInt32}), 'UTC') AS time,
    count() AS displays,
    countIf(clicked) AS clicks,
    clicks / displays AS ctr
FROM impression_sessions
WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
    AND session_start >= {start:DateTime64(6, 'UTC')} AND session_start < {end:DateTime64(6, 'UTC')}
    AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, ifNull(channel, 'none')))
GROUP BY time
ORDER BY time
