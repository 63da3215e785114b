-- name: actions_over_time
-- description: Events per action and time step, as a rate per minute.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; channels, devices, bands Array(String), empty for all; step UInt32, seconds, whole minutes
-- Whole hours are read from the aggregates of hours, the range's ends from those of minutes.
SELECT
    toStartOfInterval(at, toIntervalSecond({step:UInt32}), 'UTC') AS time,
    action,
    sum(d.events) AS events,
    events * 60 / {step:UInt32} AS per_minute
FROM
(
    SELECT hour AS at, action, events
    FROM events_by_hour
    WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')} + INTERVAL 3599 SECOND) AND hour < toStartOfHour({end:DateTime64(6, 'UTC')}) AND {step:UInt32} % 3600 = 0
        AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
        AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
        AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
    UNION ALL
    SELECT minute AS at, action, events
    FROM events_by_minute
    WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
        AND minute >= toStartOfMinute({start:DateTime64(6, 'UTC')}) AND minute < {end:DateTime64(6, 'UTC')}
        AND (hour < toStartOfHour({start:DateTime64(6, 'UTC')} + INTERVAL 3599 SECOND) OR hour >= toStartOfHour({end:DateTime64(6, 'UTC')}) OR {step:UInt32} % 3600 != 0)
        AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
        AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
        AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
) AS d
GROUP BY time, action
ORDER BY time, action
