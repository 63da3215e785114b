-- name: time_to_click_summary
-- description: Median and 90th percentile of the time from display to first click, in seconds, rounded up.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; channels, devices, bands Array(String), empty for all
SELECT
    toFloat64OrNull(toString(quantileExactWeightedOrNull(0.5)(seconds, n))) AS median_s,
    toFloat64OrNull(toString(quantileExactWeightedOrNull(0.9)(seconds, n))) AS p90_s
FROM
(
    SELECT sumMap(d.click_seconds) AS counted
    FROM displays_by_minute AS d
    WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
        AND minute >= toStartOfMinute({start:DateTime64(6, 'UTC')}) AND minute < {end:DateTime64(6, 'UTC')}
        AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
        AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
        AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
)
ARRAY JOIN mapKeys(counted) AS seconds, mapValues(counted) AS n
