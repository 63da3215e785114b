-- name: actions_over_time
-- description: Events per action and time step, as a rate per minute.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; channels, devices, bands Array(String), empty for all; step UInt32, seconds, whole minutes; of assets/metrics/ranges.py: minutes_start, minutes_end, step_grain, step_grain_start, step_grain_end
SELECT
    toStartOfInterval(at, toIntervalSecond({step:UInt32}), 'UTC') AS time,
    action,
    sum(e.n) AS events,
    events * 60 / {step:UInt32} AS per_minute
FROM feed_in(start = {minutes_start:DateTime('UTC')}, end = {minutes_end:DateTime('UTC')}, grain = {step_grain:UInt16}, grain_start = {step_grain_start:DateTime('UTC')}, grain_end = {step_grain_end:DateTime('UTC')},
    channels = {channels:Array(String)}, devices = {devices:Array(String)}, bands = {bands:Array(String)}) AS e
WHERE subject = 'events'
GROUP BY time, action
ORDER BY time, action
