-- name: quality_totals
-- description: Late events, orphan actions, clicks without a display and quarantined rows of a range, beside its events.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; of assets/metrics/ranges.py: minutes_start, minutes_end, hours_start, hours_end
SELECT
    sumIf(f.n, subject = 'events') AS events,
    sumIf(f.n, subject = 'late events') AS late_events,
    sumIf(f.n, subject = 'orphan actions') AS orphan_actions,
    sumIf(f.n, subject = 'stray clicks') AS unattributed_clicks,
    (SELECT count() FROM quarantine WHERE hour >= toStartOfHour({minutes_start:DateTime('UTC')}) AND hour < {minutes_end:DateTime('UTC')}) AS quarantined
FROM feed_in(start = {minutes_start:DateTime('UTC')}, end = {minutes_end:DateTime('UTC')}, grain = 3600, grain_start = {hours_start:DateTime('UTC')}, grain_end = {hours_end:DateTime('UTC')},
    channels = [], devices = [], bands = []) AS f
WHERE subject IN ('events', 'late events', 'orphan actions', 'stray clicks')
