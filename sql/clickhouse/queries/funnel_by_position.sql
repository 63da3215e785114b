-- name: funnel_by_position
-- description: The funnel per band of positions in the feed; displays that name no position are left out.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; channels, devices, bands Array(String), empty for all; long_view_ms UInt32; of assets/metrics/ranges.py: minutes_start, minutes_end, hours_start, hours_end
-- Long views are counted by whole seconds of dwell: exact for a threshold of whole seconds.
SELECT
    band AS band,
    sumIf(f.n, subject = 'displays') AS displays, sumIf(f.clicks, subject = 'displays') AS clicks, clicks / nullIf(displays, 0) AS ctr,
    arraySum(mapValues(mapFilter((second, sessions) -> second * 1000 >= {long_view_ms:UInt32}, sumMapIf(f.seconds, subject = 'clicks')))) AS long_views,
    sumIf(f.likes, subject = 'clicks') AS likes, sumIf(f.favs, subject = 'clicks') AS favs, sumIf(f.comments, subject = 'clicks') AS comments,
    sumIf(f.shares, subject = 'clicks') AS shares, sumIf(f.follows, subject = 'clicks') AS follows,
    sumIf(f.profile_enters, subject = 'clicks') AS profile_enters, sumIf(f.hides, subject = 'clicks') AS hides
FROM feed_in(start = {minutes_start:DateTime('UTC')}, end = {minutes_end:DateTime('UTC')}, grain = 3600, grain_start = {hours_start:DateTime('UTC')}, grain_end = {hours_end:DateTime('UTC')},
    channels = {channels:Array(String)}, devices = {devices:Array(String)}, bands = {bands:Array(String)}) AS f
WHERE subject IN ('displays', 'clicks') AND band != 'none'
GROUP BY band
ORDER BY toUInt8OrZero(extract(band, '^[0-9]+'))
LIMIT 50
