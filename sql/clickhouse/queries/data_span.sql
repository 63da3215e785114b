-- name: data_span
-- description: First and newest event time, and the end of the last busy minute; null where there are no events.
-- parameters: none
-- A log has stragglers: a few events hours after the traffic ended. Ranges end where traffic ended (`busy_until`), not
-- at the last straggler: at the last minute with a tenth of an average minute of the last hour that holds a fiftieth of the
-- busiest. Hours are read once: a WITH of rows would be run anew wherever it is named, one of a single value is not. The table, not its view:
-- each page asks this each 2 s, and the view costs a tenth.
WITH
    (
        SELECT (min(first), max(newest), groupArray((hour, n)))
        FROM
        (
            SELECT hour, min(e.first) AS first, max(e.newest) AS newest, sum(e.n) AS n
            FROM feed_totals_all AS e
            WHERE grain = 3600 AND subject = 'events' AND (hour, load) IN (SELECT hour, argMax(load, seq) FROM loads WHERE part = 'feed' GROUP BY hour)
            GROUP BY hour
        )
    ) AS span,
    tupleElement(span, 3) AS hours,
    arrayMax(one -> one.2, hours) AS most,
    arrayMax(one -> one.1, arrayFilter(one -> one.2 * 50 >= most, hours)) AS busy_hour,
    arrayFirst(one -> one.1 = busy_hour, hours).2 AS busy_events
SELECT
    if(empty(hours), NULL, toDateTime64(tupleElement(span, 1), 6, 'UTC')) AS first,
    if(empty(hours), NULL, toDateTime64(tupleElement(span, 2), 6, 'UTC')) AS newest,
    (
        SELECT maxOrNull(minute) + INTERVAL 1 MINUTE
        FROM
        (
            SELECT at AS minute, sum(e.n) AS n
            FROM feed_totals_all AS e
            WHERE grain = 60 AND subject = 'events' AND hour >= busy_hour AND hour <= busy_hour + INTERVAL 1 HOUR
                AND (hour, load) IN (SELECT hour, argMax(load, seq) FROM loads WHERE part = 'feed' GROUP BY hour)
            GROUP BY minute
        )
        WHERE n * 600 >= busy_events
    ) AS busy_until
