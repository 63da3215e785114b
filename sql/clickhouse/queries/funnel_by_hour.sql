-- name: funnel_by_hour
-- description: The funnel per hour of the day, in the zone, of the display.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; channels, devices, bands Array(String), empty for all; long_view_ms UInt32; zone String, IANA; of assets/metrics/ranges.py: minutes_start, minutes_end, zone_grain, zone_grain_start, zone_grain_end
-- Long views are counted by whole seconds of dwell: exact for a threshold of whole seconds.
SELECT
    toHour(at, {zone:String}) AS hour_of_day,
    sumIf(f.n, subject = 'displays') AS displays, sumIf(f.clicks, subject = 'displays') AS clicks, clicks / nullIf(displays, 0) AS ctr,
    arraySum(mapValues(mapFilter((second, sessions) -> second * 1000 >= {long_view_ms:UInt32}, sumMapIf(f.seconds, subject = 'clicks')))) AS long_views,
    sumIf(f.likes, subject = 'clicks') AS likes, sumIf(f.favs, subject = 'clicks') AS favs, sumIf(f.comments, subject = 'clicks') AS comments,
    sumIf(f.shares, subject = 'clicks') AS shares, sumIf(f.follows, subject = 'clicks') AS follows,
    sumIf(f.profile_enters, subject = 'clicks') AS profile_enters, sumIf(f.hides, subject = 'clicks') AS hides
FROM feed_in(start = {minutes_start:DateTime('UTC')}, end = {minutes_end:DateTime('UTC')}, grain = {zone_grain:UInt16}, grain_start = {zone_grain_start:DateTime('UTC')}, grain_end = {zone_grain_end:DateTime('UTC')},
    channels = {channels:Array(String)}, devices = {devices:Array(String)}, bands = {bands:Array(String)}) AS f
WHERE subject IN ('displays', 'clicks')
GROUP BY hour_of_day
ORDER BY hour_of_day
