-- name: time_to_click
-- description: Clicked displays by the time from display to first click, in bins that double; upper bound in seconds.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; channels, devices, bands Array(String), empty for all; of assets/metrics/ranges.py: minutes_start, minutes_end, hours_start, hours_end
-- Whole seconds, rounded up, fall into the same bins as exact times: the bounds are whole seconds.
SELECT pow(2, ceil(log2(greatest(seconds, 1)))) AS up_to_s, sum(n) AS clicks
FROM (
    SELECT sum(d.n) AS displays, sumMap(d.seconds) AS counted
    FROM feed_in(start = {minutes_start:DateTime('UTC')}, end = {minutes_end:DateTime('UTC')}, grain = 3600, grain_start = {hours_start:DateTime('UTC')}, grain_end = {hours_end:DateTime('UTC')},
        channels = {channels:Array(String)}, devices = {devices:Array(String)}, bands = {bands:Array(String)}) AS d
    WHERE subject = 'displays'
)
ARRAY JOIN mapKeys(counted) AS seconds, mapValues(counted) AS n
GROUP BY up_to_s
ORDER BY up_to_s
