-- name: actions_over_time
-- description: Events per action and time step, as a rate per minute.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; channels, devices, bands Array(String), empty for all; step UInt32, seconds, whole minutes
SELECT
    toStartOfInterval(at, toIntervalSecond({step:UInt32}), 'UTC') AS time,
    action,
    sum(e.events) AS events,
    events * 60 / {step:UInt32} AS per_minute
FROM events_in(start = {start:DateTime64(6, 'UTC')}, end = {end:DateTime64(6, 'UTC')}, zone = 'UTC', step = {step:UInt32},
    channels = {channels:Array(String)}, devices = {devices:Array(String)}, bands = {bands:Array(String)}) AS e
GROUP BY time, action
ORDER BY time, action
