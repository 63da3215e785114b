-- name: data_span
-- description: First and newest event time, and the end of the last busy minute; null where there are no events.
-- parameters: stray_after_s, stray_events (assets/hours.py)
-- A log has stragglers: a few events hours after the traffic ended. Ranges end where traffic ended (`busy_until`), not
-- at the last straggler: at the last minute with a tenth of an average minute of the last hour that holds a fiftieth of the
-- busiest. Stray hours of wrong clocks, as assets/hours.py says which, count nowhere. Hours are read once: a WITH of rows would be run anew wherever it is named, one of a single value is not. The table, not its view:
-- each page asks this each 2 s, and the view costs a tenth.
WITH
    (
        SELECT groupArray((hour, n, first, newest))
        FROM
        (
            SELECT hour, min(e.first) AS first, max(e.newest) AS newest, sum(e.n) AS n
            FROM feed_totals_all AS e
            WHERE grain = 3600 AND subject = 'events' AND (hour, load) IN (SELECT hour, argMax(load, seq) FROM loads WHERE part = 'feed' GROUP BY hour)
            GROUP BY hour
            ORDER BY hour
        )
    ) AS every,
    arrayDifference(arrayMap(one -> toInt64(toUnixTimestamp(one.1)), every)) AS gaps,
    arraySplit((one, gap) -> gap > {stray_after_s:UInt32}, every, gaps) AS stretches,
    arrayMap(part -> toUInt64(arraySum(one -> one.2, part)), stretches) AS sizes,
    length(sizes) + 1 - indexOf(arrayReverse(sizes), arrayMax(sizes)) AS main,
    arrayFlatten(arrayFilter((part, size, place) -> size >= {stray_events:UInt32} OR place = main, stretches, sizes, arrayEnumerate(sizes))) AS hours,
    arrayMax(one -> one.2, hours) AS most,
    arrayMax(one -> one.1, arrayFilter(one -> one.2 * 50 >= most, hours)) AS busy_hour,
    arrayFirst(one -> one.1 = busy_hour, hours).2 AS busy_events
SELECT
    if(empty(hours), NULL, toDateTime64(arrayMin(one -> one.3, hours), 6, 'UTC')) AS first,
    if(empty(hours), NULL, toDateTime64(arrayMax(one -> one.4, hours), 6, 'UTC')) AS newest,
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
