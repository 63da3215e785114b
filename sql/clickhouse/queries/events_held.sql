-- name: events_held
-- description: First and newest event time of all, stray hours too; null where there are no events.
-- parameters: none
SELECT if(count() = 0, NULL, toDateTime64(min(e.first), 6, 'UTC')) AS earliest, if(count() = 0, NULL, toDateTime64(max(e.newest), 6, 'UTC')) AS latest
FROM feed_totals_all AS e
WHERE grain = 3600 AND subject = 'events' AND (hour, load) IN (SELECT hour, argMax(load, seq) FROM loads WHERE part = 'feed' GROUP BY hour)
