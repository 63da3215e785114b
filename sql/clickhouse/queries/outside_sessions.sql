-- name: outside_sessions
-- description: What is in no display's label, of all channels: orphan actions, clicks without a display, late and broken events.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes
SELECT 'orphan action' AS kind, toString(action) AS detail, count() AS rows
FROM orphan_actions
WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
    AND event_time >= {start:DateTime64(6, 'UTC')} AND event_time < {end:DateTime64(6, 'UTC')}
GROUP BY action
UNION ALL
SELECT 'click without display', 'click', sum(c.clicks) AS n
FROM clicks_in(start = {start:DateTime64(6, 'UTC')}, end = {end:DateTime64(6, 'UTC')}, zone = 'UTC', step = 3600, channels = [], devices = [], bands = []) AS c
WHERE NOT attributed
HAVING n > 0
UNION ALL
SELECT 'late event', toString(action), count()
FROM late_events
WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
    AND event_time >= {start:DateTime64(6, 'UTC')} AND event_time < {end:DateTime64(6, 'UTC')}
GROUP BY action
UNION ALL
SELECT 'quarantined row', reason, count()
FROM quarantine
WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
GROUP BY reason
