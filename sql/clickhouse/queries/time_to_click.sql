-- name: time_to_click
-- description: Clicked displays by the time from display to first click, in bins that double; upper bound in seconds.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; channels, devices, bands Array(String), empty for all
-- Whole hours are read from the aggregates of hours, the range's ends from those of minutes.
-- Whole seconds, rounded up, fall into the same bins as exact times: the bounds are whole seconds.
SELECT
    pow(2, ceil(log2(greatest(seconds, 1)))) AS up_to_s,
    sum(n) AS clicks
FROM
(
    SELECT sum(d.displays) AS displays, sumMap(d.click_seconds) AS counted
    FROM
    (
        SELECT hour AS at, displays, click_seconds
        FROM displays_by_hour
        WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')} + INTERVAL 3599 SECOND) AND hour < toStartOfHour({end:DateTime64(6, 'UTC')})
            AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
            AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
            AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
        UNION ALL
        SELECT minute AS at, displays, click_seconds
        FROM displays_by_minute
        WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
            AND minute >= toStartOfMinute({start:DateTime64(6, 'UTC')}) AND minute < {end:DateTime64(6, 'UTC')}
            AND (hour < toStartOfHour({start:DateTime64(6, 'UTC')} + INTERVAL 3599 SECOND) OR hour >= toStartOfHour({end:DateTime64(6, 'UTC')}))
            AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
            AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
            AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
    ) AS d
)
ARRAY JOIN mapKeys(counted) AS seconds, mapValues(counted) AS n
GROUP BY up_to_s
ORDER BY up_to_s
