-- name: data_span
-- description: First and newest event time, and the end of the last busy minute; null where there are no events.
-- parameters: none
-- A log has stragglers: a few events hours after the traffic ended. Ranges end where traffic ended (`busy_until`), not
-- at the last straggler: at the last minute with a tenth of an average minute of the last hour that holds a fiftieth of the
-- busiest.
WITH
    hours AS (SELECT hour, sum(e.events) AS n FROM events_by_hour AS e GROUP BY hour),
    (SELECT max(n) FROM hours) AS most,
    (SELECT maxOrNull(hour) FROM hours WHERE n * 50 >= most) AS busy_hour,
    (SELECT any(n) FROM hours WHERE hour = busy_hour) AS busy_events,
    minutes AS
    (
        SELECT minute, sum(e.events) AS n
        FROM events_by_minute AS e
        WHERE hour >= busy_hour AND hour <= busy_hour + INTERVAL 1 HOUR
        GROUP BY minute
    )
SELECT
    (SELECT minOrNull(event_time) FROM events WHERE hour = (SELECT min(hour) FROM hours)) AS first,
    (SELECT maxOrNull(event_time) FROM events WHERE hour = (SELECT max(hour) FROM hours)) AS newest,
    (SELECT maxOrNull(minute) + INTERVAL 1 MINUTE FROM minutes WHERE n * 600 >= busy_events) AS busy_until
