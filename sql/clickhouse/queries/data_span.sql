-- name: data_span
-- description: First and newest event time, and when the newest was received. Null times where there are no events.
-- parameters: none
SELECT
    minOrNull(event_time) AS first,
    maxOrNull(event_time) AS newest,
    maxOrNull(ingest_time) AS received,
    count() AS events
FROM events
WHERE hour IN (SELECT arrayJoin([min(hour), max(hour)]) FROM events)
