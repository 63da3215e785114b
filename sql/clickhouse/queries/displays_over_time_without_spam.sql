-- name: displays_over_time_without_spam
-- description: Displays, clicks and CTR per time step; without what accounts did in hours in which they were flagged.
-- parameters: start and end DateTime64(6, 'UTC') half-open; channels, devices, bands Array(String), empty for all; step UInt32, seconds
SELECT
    toStartOfInterval(session_start, toIntervalSecond({step:UInt32}), 'UTC') AS time,
    count() AS displays,
    countIf(clicked) AS clicks,
    clicks / displays AS ctr
FROM impression_sessions
WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
    AND session_start >= {start:DateTime64(6, 'UTC')} AND session_start < {end:DateTime64(6, 'UTC')}
    AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, ifNull(channel, 'none')))
    AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
    AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
    AND (hour, user_id) NOT IN (SELECT hour, user_id FROM spam_accounts)
GROUP BY time
ORDER BY time
