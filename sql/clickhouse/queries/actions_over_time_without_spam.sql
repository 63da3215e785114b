-- name: actions_over_time_without_spam
-- description: Events per action and time step, as a rate per minute; without what accounts did in hours in which they were flagged.
-- parameters: start and end DateTime64(6, 'UTC') half-open; channels, devices, bands Array(String), empty for all; step UInt32, seconds
SELECT
    toStartOfInterval(event_time, toIntervalSecond({step:UInt32}), 'UTC') AS time,
    action,
    count() AS events,
    count() * 60 / {step:UInt32} AS per_minute
FROM events
WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
    AND event_time >= {start:DateTime64(6, 'UTC')} AND event_time < {end:DateTime64(6, 'UTC')}
    AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, ifNull(channel, 'none')))
    AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
    AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
    AND (hour, user_id) NOT IN (SELECT hour, user_id FROM spam_accounts)
GROUP BY time, action
ORDER BY time, action
