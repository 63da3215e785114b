-- name: displays_over_time
-- description: Displays, clicks and CTR per time step.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; channels, devices, bands Array(String), empty for all; step UInt32, seconds, whole minutes
SELECT
    toStartOfInterval(at, toIntervalSecond({step:UInt32}), 'UTC') AS time,
    sum(d.displays) AS displays,
    sum(d.clicks) AS clicks,
    clicks / displays AS ctr
FROM displays_in(start = {start:DateTime64(6, 'UTC')}, end = {end:DateTime64(6, 'UTC')}, zone = 'UTC', step = {step:UInt32},
    channels = {channels:Array(String)}, devices = {devices:Array(String)}, bands = {bands:Array(String)}) AS d
GROUP BY time
ORDER BY time
