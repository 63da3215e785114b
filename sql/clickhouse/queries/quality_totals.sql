-- name: quality_totals
-- description: Late events, orphan actions, clicks without a display and quarantined rows of a range, beside its events.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes
SELECT
    (SELECT sum(e.events) FROM events_in(start = {start:DateTime64(6, 'UTC')}, end = {end:DateTime64(6, 'UTC')}, zone = 'UTC', step = 3600,
        channels = [], devices = [], bands = []) AS e) AS events,
    (SELECT count() FROM late_events WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
        AND event_time >= {start:DateTime64(6, 'UTC')} AND event_time < {end:DateTime64(6, 'UTC')}) AS late_events,
    (SELECT count() FROM orphan_actions WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
        AND event_time >= {start:DateTime64(6, 'UTC')} AND event_time < {end:DateTime64(6, 'UTC')}) AS orphan_actions,
    (SELECT sum(c.clicks) FROM clicks_in(start = {start:DateTime64(6, 'UTC')}, end = {end:DateTime64(6, 'UTC')}, zone = 'UTC', step = 3600,
        channels = [], devices = [], bands = []) AS c WHERE NOT attributed) AS unattributed_clicks,
    (SELECT count() FROM quarantine WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}) AS quarantined
