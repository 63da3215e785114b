-- name: funnel_by_hour
-- description: The funnel per hour of the day, in the zone, of the display.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; channels, devices, bands Array(String), empty for all; long_view_ms UInt32; zone String, IANA
-- Whole hours are read from the aggregates of hours, the range's ends from those of minutes.
-- Long views are counted by whole seconds of dwell: exact for a threshold of whole seconds.
SELECT
    hour_of_day,
    sum(displays) AS displays, sum(clicks) AS clicks, clicks / nullIf(displays, 0) AS ctr,
    sum(long_views) AS long_views, sum(likes) AS likes, sum(favs) AS favs, sum(comments) AS comments,
    sum(shares) AS shares, sum(follows) AS follows, sum(profile_enters) AS profile_enters, sum(hides) AS hides
FROM
(
    SELECT toHour(at, {zone:String}) AS hour_of_day, sum(d.displays) AS displays, sum(d.clicks) AS clicks, 0 AS long_views,
        0 AS likes, 0 AS favs, 0 AS comments, 0 AS shares, 0 AS follows, 0 AS profile_enters, 0 AS hides
    FROM
    (
        SELECT hour AS at, displays, clicks
        FROM displays_by_hour
        WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')} + INTERVAL 3599 SECOND) AND hour < toStartOfHour({end:DateTime64(6, 'UTC')})
            AND ((timezoneOffset(toDateTime({start:DateTime64(6, 'UTC')}, {zone:String})) % 3600 = 0 AND timezoneOffset(toDateTime({end:DateTime64(6, 'UTC')}, {zone:String})) % 3600 = 0 AND {zone:String} != 'Australia/Lord_Howe') OR toHour(hour, {zone:String}) = toHour(hour + INTERVAL 3599 SECOND, {zone:String}))
            AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
            AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
            AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
        UNION ALL
        SELECT minute AS at, displays, clicks
        FROM displays_by_minute
        WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
            AND minute >= toStartOfMinute({start:DateTime64(6, 'UTC')}) AND minute < {end:DateTime64(6, 'UTC')}
            AND (hour < toStartOfHour({start:DateTime64(6, 'UTC')} + INTERVAL 3599 SECOND) OR hour >= toStartOfHour({end:DateTime64(6, 'UTC')}) OR (NOT (timezoneOffset(toDateTime({start:DateTime64(6, 'UTC')}, {zone:String})) % 3600 = 0 AND timezoneOffset(toDateTime({end:DateTime64(6, 'UTC')}, {zone:String})) % 3600 = 0 AND {zone:String} != 'Australia/Lord_Howe') AND NOT toHour(hour, {zone:String}) = toHour(hour + INTERVAL 3599 SECOND, {zone:String})))
            AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
            AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
            AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
    ) AS d
    GROUP BY hour_of_day
    UNION ALL
    -- What followed their clicks, by the time of the display, though the click may be of the next hour.
    SELECT toHour(at, {zone:String}) AS hour_of_day, 0, 0,
        arraySum(mapValues(mapFilter((seconds, n) -> seconds * 1000 >= {long_view_ms:UInt32}, sumMap(c.dwell_seconds)))),
        sum(c.likes), sum(c.favs), sum(c.comments), sum(c.shares), sum(c.follows), sum(c.profile_enters), sum(c.hides)
    FROM
    (
        SELECT display_hour AS at, dwell_seconds, likes, favs, comments, shares, follows, profile_enters, hides
        FROM clicks_by_hour
        WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')} + INTERVAL 1 DAY
            AND display_hour >= toStartOfHour({start:DateTime64(6, 'UTC')} + INTERVAL 3599 SECOND) AND display_hour < toStartOfHour({end:DateTime64(6, 'UTC')})
            AND ((timezoneOffset(toDateTime({start:DateTime64(6, 'UTC')}, {zone:String})) % 3600 = 0 AND timezoneOffset(toDateTime({end:DateTime64(6, 'UTC')}, {zone:String})) % 3600 = 0 AND {zone:String} != 'Australia/Lord_Howe') OR toHour(display_hour, {zone:String}) = toHour(display_hour + INTERVAL 3599 SECOND, {zone:String}))
            AND attributed
            AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
            AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
            AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
        UNION ALL
        SELECT minute AS at, dwell_seconds, likes, favs, comments, shares, follows, profile_enters, hides
        FROM clicks_by_minute
        WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')} + INTERVAL 1 DAY
            AND minute >= toStartOfMinute({start:DateTime64(6, 'UTC')}) AND minute < {end:DateTime64(6, 'UTC')}
            AND ((hour < toStartOfHour({start:DateTime64(6, 'UTC')} + INTERVAL 3599 SECOND) + INTERVAL 1 DAY AND toStartOfHour({start:DateTime64(6, 'UTC')} + INTERVAL 3599 SECOND) > {start:DateTime64(6, 'UTC')}) OR hour >= toStartOfHour({end:DateTime64(6, 'UTC')}) OR NOT (timezoneOffset(toDateTime({start:DateTime64(6, 'UTC')}, {zone:String})) % 3600 = 0 AND timezoneOffset(toDateTime({end:DateTime64(6, 'UTC')}, {zone:String})) % 3600 = 0 AND {zone:String} != 'Australia/Lord_Howe'))
            AND (minute < toStartOfHour({start:DateTime64(6, 'UTC')} + INTERVAL 3599 SECOND) OR minute >= toStartOfHour({end:DateTime64(6, 'UTC')}) OR (NOT (timezoneOffset(toDateTime({start:DateTime64(6, 'UTC')}, {zone:String})) % 3600 = 0 AND timezoneOffset(toDateTime({end:DateTime64(6, 'UTC')}, {zone:String})) % 3600 = 0 AND {zone:String} != 'Australia/Lord_Howe') AND NOT toHour(toStartOfHour(minute, 'UTC'), {zone:String}) = toHour(toStartOfHour(minute, 'UTC') + INTERVAL 3599 SECOND, {zone:String})))
            AND attributed
            AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
            AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
            AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
    ) AS c
    GROUP BY hour_of_day
)
GROUP BY hour_of_day
ORDER BY hour_of_day
