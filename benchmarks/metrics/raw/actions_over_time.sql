-- name: actions_over_time
-- description: Events per action and time step, as a rate per minute.
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
    AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, ifNull(nullIf(simpleJSONExtractString(ifNull(context, ''), 'device'), ''), 'none')))
    AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, multiIf(position IS NULL, 'none', position < 1, '0', position < 3, '1-2', position < 6, '3-5', position < 10, '6-9', '10+')))
GROUP BY time, action
ORDER BY time, action
