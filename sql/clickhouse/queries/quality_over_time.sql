-- name: quality_over_time
-- description: What is in no display's label, by kind and time step; quarantined rows have an hour only.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; step UInt32, seconds, whole minutes; of assets/metrics/ranges.py: minutes_start, minutes_end, step_grain, step_grain_start, step_grain_end
SELECT toStartOfInterval(at, toIntervalSecond({step:UInt32}), 'UTC') AS time, if(subject = 'stray clicks', 'clicks without a display', subject) AS kind, sum(f.n) AS rows
FROM feed_in(start = {minutes_start:DateTime('UTC')}, end = {minutes_end:DateTime('UTC')}, grain = {step_grain:UInt16}, grain_start = {step_grain_start:DateTime('UTC')}, grain_end = {step_grain_end:DateTime('UTC')},
    channels = [], devices = [], bands = []) AS f
WHERE subject IN ('late events', 'orphan actions', 'stray clicks')
GROUP BY time, kind
UNION ALL
SELECT toStartOfInterval(hour, toIntervalSecond({step:UInt32}), 'UTC') AS time, 'quarantined rows' AS kind, count() AS rows
FROM quarantine
WHERE hour >= toStartOfHour({minutes_start:DateTime('UTC')}) AND hour < {minutes_end:DateTime('UTC')}
GROUP BY time
ORDER BY time, kind
