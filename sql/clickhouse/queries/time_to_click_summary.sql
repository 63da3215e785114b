-- name: time_to_click_summary
-- description: Median and 90th percentile of the time from display to first click, in seconds, rounded up.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; channels, devices, bands Array(String), empty for all; of assets/metrics/ranges.py: minutes_start, minutes_end, hours_start, hours_end
SELECT
    toFloat64OrNull(toString(quantileExactWeightedOrNull(0.5)(seconds, n))) AS median_s,
    toFloat64OrNull(toString(quantileExactWeightedOrNull(0.9)(seconds, n))) AS p90_s
FROM (
    SELECT sum(d.n) AS displays, sumMap(d.seconds) AS counted
    FROM feed_in(start = {minutes_start:DateTime('UTC')}, end = {minutes_end:DateTime('UTC')}, grain = 3600, grain_start = {hours_start:DateTime('UTC')}, grain_end = {hours_end:DateTime('UTC')},
        channels = {channels:Array(String)}, devices = {devices:Array(String)}, bands = {bands:Array(String)}) AS d
    WHERE subject = 'displays'
)
ARRAY JOIN mapKeys(counted) AS seconds, mapValues(counted) AS n
