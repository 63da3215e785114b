-- name: quality_over_time
-- description: What is in no display's label, by kind and time step; quarantined rows have an hour only.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; step UInt32, seconds, whole minutes
SELECT toStartOfInterval(event_time, toIntervalSecond({step:UInt32}), 'UTC') AS time, 'late events' AS kind, count() AS rows
FROM late_events
WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
    AND event_time >= {start:DateTime64(6, 'UTC')} AND event_time < {end:DateTime64(6, 'UTC')}
GROUP BY time
UNION ALL
SELECT toStartOfInterval(event_time, toIntervalSecond({step:UInt32}), 'UTC') AS time, 'orphan actions' AS kind, count() AS rows
FROM orphan_actions
WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
    AND event_time >= {start:DateTime64(6, 'UTC')} AND event_time < {end:DateTime64(6, 'UTC')}
GROUP BY time
UNION ALL
SELECT toStartOfInterval(at, toIntervalSecond({step:UInt32}), 'UTC') AS time, 'clicks without a display' AS kind, sum(c.clicks) AS rows
FROM clicks_in(start = {start:DateTime64(6, 'UTC')}, end = {end:DateTime64(6, 'UTC')}, zone = 'UTC', step = {step:UInt32},
    channels = [], devices = [], bands = []) AS c
WHERE NOT attributed
GROUP BY time
UNION ALL
SELECT toStartOfInterval(hour, toIntervalSecond({step:UInt32}), 'UTC') AS time, 'quarantined rows' AS kind, count() AS rows
FROM quarantine
WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
GROUP BY time
ORDER BY time, kind
