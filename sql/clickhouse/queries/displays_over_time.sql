-- name: displays_over_time
-- description: Displays, clicks and CTR per time step.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; channels, devices, bands Array(String), empty for all; step UInt32, seconds, whole minutes; of assets/metrics/ranges.py: minutes_start, minutes_end, step_grain, step_grain_start, step_grain_end
SELECT
    toStartOfInterval(at, toIntervalSecond({step:UInt32}), 'UTC') AS time,
    sum(d.n) AS displays,
    sum(d.clicks) AS clicks,
    clicks / displays AS ctr
FROM feed_in(start = {minutes_start:DateTime('UTC')}, end = {minutes_end:DateTime('UTC')}, grain = {step_grain:UInt16}, grain_start = {step_grain_start:DateTime('UTC')}, grain_end = {step_grain_end:DateTime('UTC')},
    channels = {channels:Array(String)}, devices = {devices:Array(String)}, bands = {bands:Array(String)}) AS d
WHERE subject = 'displays'
GROUP BY time
ORDER BY time
