-- name: ctr_by_window
-- description: Share of displays clicked within so many seconds of the window's start, for several lengths.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; channels, devices, bands Array(String), empty for all; lengths Array(Float64), whole seconds; of assets/metrics/ranges.py: minutes_start, minutes_end, hours_start, hours_end
SELECT
    length_s,
    arraySum(mapValues(mapFilter((seconds, n) -> seconds <= length_s, counted))) AS clicks,
    displays,
    clicks / displays AS ctr
FROM (
    SELECT sum(d.n) AS displays, sumMap(d.seconds) AS counted
    FROM feed_in(start = {minutes_start:DateTime('UTC')}, end = {minutes_end:DateTime('UTC')}, grain = 3600, grain_start = {hours_start:DateTime('UTC')}, grain_end = {hours_end:DateTime('UTC')},
        channels = {channels:Array(String)}, devices = {devices:Array(String)}, bands = {bands:Array(String)}) AS d
    WHERE subject = 'displays'
)
ARRAY JOIN {lengths:Array(Float64)} AS length_s
WHERE displays > 0
ORDER BY length_s
