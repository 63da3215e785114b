-- name: quality_over_time
-- description: What is in no display's label, by kind and time step; quarantined rows have an hour only.
-- parameters: start and end DateTime64(6, 'UTC') half-open; step UInt32, seconds
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
SELECT toStartOfInterval(session_start, toIntervalSecond({step:UInt32}), 'UTC') AS time, 'clicks without a display' AS kind, count() AS rows
FROM click_sessions
WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
    AND session_start >= {start:DateTime64(6, 'UTC')} AND session_start < {end:DateTime64(6, 'UTC')}
    AND NOT attributed
GROUP BY time
UNION ALL
SELECT toStartOfInterval(hour, toIntervalSecond({step:UInt32}), 'UTC') AS time, 'quarantined rows' AS kind, count() AS rows
FROM quarantine
WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
GROUP BY time
ORDER BY time, kind
