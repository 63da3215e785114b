-- name: daily_users
-- description: Daily active users, exact: different user_id with at least one event in the day of the zone.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; channels, devices, bands Array(String), empty for all; zone String, IANA
-- Whole hours are read from the aggregates of hours, the range's ends from those of minutes.
SELECT toDate(at, {zone:String}) AS day, groupBitmapMerge(users) AS users
FROM
(
    SELECT hour AS at, users
    FROM users_by_hour
    WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')} + INTERVAL 3599 SECOND) AND hour < toStartOfHour({end:DateTime64(6, 'UTC')})
        AND ((timezoneOffset(toDateTime({start:DateTime64(6, 'UTC')}, {zone:String})) % 3600 = 0 AND timezoneOffset(toDateTime({end:DateTime64(6, 'UTC')}, {zone:String})) % 3600 = 0 AND {zone:String} != 'Australia/Lord_Howe') OR toDate(hour, {zone:String}) = toDate(hour + INTERVAL 3599 SECOND, {zone:String}))
        AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
        AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
        AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
    UNION ALL
    SELECT minute AS at, users
    FROM users_by_minute
    WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
        AND minute >= toStartOfMinute({start:DateTime64(6, 'UTC')}) AND minute < {end:DateTime64(6, 'UTC')}
        AND (hour < toStartOfHour({start:DateTime64(6, 'UTC')} + INTERVAL 3599 SECOND) OR hour >= toStartOfHour({end:DateTime64(6, 'UTC')}) OR (NOT (timezoneOffset(toDateTime({start:DateTime64(6, 'UTC')}, {zone:String})) % 3600 = 0 AND timezoneOffset(toDateTime({end:DateTime64(6, 'UTC')}, {zone:String})) % 3600 = 0 AND {zone:String} != 'Australia/Lord_Howe') AND toDate(hour, {zone:String}) != toDate(hour + INTERVAL 3599 SECOND, {zone:String})))
        AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
        AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
        AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
)
GROUP BY day
ORDER BY day
