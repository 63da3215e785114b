-- name: displays_over_time
-- description: Displays, clicks and CTR per time step.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; channels, devices, bands Array(String), empty for all; step UInt32, seconds, whole minutes
SELECT
    toStartOfInterval(minute, toIntervalSecond({step:UInt32}), 'UTC') AS time,
    sum(d.displays) AS displays,
    sum(d.clicks) AS clicks,
    clicks / displays AS ctr
FROM displays_by_minute AS d
WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
    AND minute >= toStartOfMinute({start:DateTime64(6, 'UTC')}) AND minute < {end:DateTime64(6, 'UTC')}
    AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
    AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
    AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
GROUP BY time
ORDER BY time
