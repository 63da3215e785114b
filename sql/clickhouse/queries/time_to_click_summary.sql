-- name: time_to_click_summary
-- description: Median and 90th percentile of the time from display to first click, in seconds, rounded up.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; channels, devices, bands Array(String), empty for all
SELECT
    toFloat64OrNull(toString(quantileExactWeightedOrNull(0.5)(seconds, n))) AS median_s,
    toFloat64OrNull(toString(quantileExactWeightedOrNull(0.9)(seconds, n))) AS p90_s
FROM (SELECT sum(d.displays) AS displays, sumMap(d.click_seconds) AS counted FROM displays_in(start = {start:DateTime64(6, 'UTC')}, end = {end:DateTime64(6, 'UTC')}, zone = 'UTC', step = 3600,
    channels = {channels:Array(String)}, devices = {devices:Array(String)}, bands = {bands:Array(String)}) AS d)
ARRAY JOIN mapKeys(counted) AS seconds, mapValues(counted) AS n
