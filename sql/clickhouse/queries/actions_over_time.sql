-- name: actions_over_time
-- description: Events per action and time step, as a rate per minute.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; channels, devices, bands Array(String), empty for all; step UInt32, seconds, whole minutes
SELECT
    toStartOfInterval(minute, toIntervalSecond({step:UInt32}), 'UTC') AS time,
    action,
    sum(e.events) AS events,
    events * 60 / {step:UInt32} AS per_minute
FROM events_by_minute AS e
WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
    AND minute >= toStartOfMinute({start:DateTime64(6, 'UTC')}) AND minute < {end:DateTime64(6, 'UTC')}
    AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
    AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
    AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
GROUP BY time, action
ORDER BY time, action
