-- name: ctr_by_window
-- description: Share of displays clicked within so many seconds of the window's start, for several lengths.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; channels, devices, bands Array(String), empty for all; lengths Array(Float64), whole seconds
-- Whole hours are read from the aggregates of hours, the range's ends from those of minutes.
SELECT
    length_s,
    arraySum(mapValues(mapFilter((seconds, n) -> seconds <= length_s, counted))) AS clicks,
    displays,
    clicks / displays AS ctr
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
    HAVING displays > 0
)
ARRAY JOIN {lengths:Array(Float64)} AS length_s
ORDER BY length_s
