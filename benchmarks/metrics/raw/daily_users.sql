-- name: daily_users
-- description: Daily active users, exact: different user_id with at least one event in the day of the zone.
-- parameters: start and end DateTime64(6, 'UTC') half-open; channels, devices, bands Array(String), empty for all; zone String, IANA
SELECT toDate(event_time, {zone:String}) AS day, uniqExact(user_id) AS users
FROM events
WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
    AND event_time >= {start:DateTime64(6, 'UTC')} AND event_time < {end:DateTime64(6, 'UTC')}
    AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, ifNull(channel, 'none')))
    AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, ifNull(nullIf(simpleJSONExtractString(ifNull(context, ''), 'device'), ''), 'none')))
    AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, multiIf(position IS NULL, 'none', position < 1, '0', position < 3, '1-2', position < 6, '3-5', position < 10, '6-9', '10+')))
GROUP BY day
ORDER BY day
