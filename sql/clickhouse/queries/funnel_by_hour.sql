-- name: funnel_by_hour
-- description: The funnel per hour of the day, in the zone, of the display.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; channels, devices, bands Array(String), empty for all; long_view_ms UInt32; zone String, IANA
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
    FROM displays_in(start = {start:DateTime64(6, 'UTC')}, end = {end:DateTime64(6, 'UTC')}, zone = {zone:String}, step = 3600,
    channels = {channels:Array(String)}, devices = {devices:Array(String)}, bands = {bands:Array(String)}) AS d
    GROUP BY hour_of_day
    UNION ALL
    SELECT toHour(at, {zone:String}) AS hour_of_day, 0, 0,
        arraySum(mapValues(mapFilter((seconds, n) -> seconds * 1000 >= {long_view_ms:UInt32}, sumMap(c.dwell_seconds)))),
        sum(c.likes), sum(c.favs), sum(c.comments), sum(c.shares), sum(c.follows), sum(c.profile_enters), sum(c.hides)
    FROM clicks_in(start = {start:DateTime64(6, 'UTC')}, end = {end:DateTime64(6, 'UTC')}, zone = {zone:String}, step = 3600,
    channels = {channels:Array(String)}, devices = {devices:Array(String)}, bands = {bands:Array(String)}) AS c
    WHERE attributed
    GROUP BY hour_of_day
)
GROUP BY hour_of_day
ORDER BY hour_of_day
