-- name: time_to_click
-- description: Clicked displays by the time from display to first click, in bins that double; upper bound in seconds.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; channels, devices, bands Array(String), empty for all
-- Whole seconds, rounded up, fall into the same bins as exact times: the bounds are whole seconds.
SELECT pow(2, ceil(log2(greatest(seconds, 1)))) AS up_to_s, sum(n) AS clicks
FROM (SELECT sum(d.displays) AS displays, sumMap(d.click_seconds) AS counted FROM displays_in(start = {start:DateTime64(6, 'UTC')}, end = {end:DateTime64(6, 'UTC')}, zone = 'UTC', step = 3600,
    channels = {channels:Array(String)}, devices = {devices:Array(String)}, bands = {bands:Array(String)}) AS d)
ARRAY JOIN mapKeys(counted) AS seconds, mapValues(counted) AS n
GROUP BY up_to_s
ORDER BY up_to_s
