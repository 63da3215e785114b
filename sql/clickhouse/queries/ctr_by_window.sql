-- name: ctr_by_window
-- description: Share of displays clicked within so many seconds of the window's start, for several lengths.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; channels, devices, bands Array(String), empty for all; lengths Array(Float64), whole seconds
SELECT
    length_s,
    arraySum(mapValues(mapFilter((seconds, n) -> seconds <= length_s, counted))) AS clicks,
    displays,
    clicks / displays AS ctr
FROM (SELECT sum(d.displays) AS displays, sumMap(d.click_seconds) AS counted FROM displays_in(start = {start:DateTime64(6, 'UTC')}, end = {end:DateTime64(6, 'UTC')}, zone = 'UTC', step = 3600,
    channels = {channels:Array(String)}, devices = {devices:Array(String)}, bands = {bands:Array(String)}) AS d)
ARRAY JOIN {lengths:Array(Float64)} AS length_s
WHERE displays > 0
ORDER BY length_s
