-- name: outside_sessions
-- description: What is in no display's label, of all channels: orphan actions, clicks without a display, late and broken events.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; of assets/metrics/ranges.py: minutes_start, minutes_end, hours_start, hours_end
SELECT
    multiIf(subject = 'late events', 'late event', subject = 'orphan actions', 'orphan action', 'click without display') AS kind,
    if(subject = 'stray clicks', 'click', toString(action)) AS detail,
    sum(f.n) AS rows
FROM feed_in(start = {minutes_start:DateTime('UTC')}, end = {minutes_end:DateTime('UTC')}, grain = 3600, grain_start = {hours_start:DateTime('UTC')}, grain_end = {hours_end:DateTime('UTC')},
    channels = [], devices = [], bands = []) AS f
WHERE subject IN ('late events', 'orphan actions', 'stray clicks')
GROUP BY kind, detail
HAVING rows > 0
UNION ALL
SELECT 'quarantined row', replaceRegexpAll(reason, '\'[^\']*\'|"[^"]*"', '·') AS what, count()
FROM quarantine
WHERE hour >= toStartOfHour({minutes_start:DateTime('UTC')}) AND hour < {minutes_end:DateTime('UTC')}
GROUP BY what
