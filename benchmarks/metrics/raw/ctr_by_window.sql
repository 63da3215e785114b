-- name: ctr_by_window
-- description: Share of displays clicked within so many seconds of the window's start, for several lengths.
-- parameters: start and end DateTime64(6, 'UTC') half-open; channels, devices, bands Array(String), empty for all; lengths Array(Float64), seconds
SELECT length_s, countIf(seconds >= 0 AND seconds <= length_s) AS clicks, count() AS displays, clicks / displays AS ctr
FROM
(
    SELECT if(clicked AND first_click_time IS NOT NULL, dateDiff('millisecond', session_start, assumeNotNull(first_click_time)) / 1000, -1) AS seconds
    FROM impression_sessions
    WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
        AND session_start >= {start:DateTime64(6, 'UTC')} AND session_start < {end:DateTime64(6, 'UTC')}
        AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, ifNull(channel, 'none')))
        AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, ifNull(nullIf(simpleJSONExtractString(ifNull(context, ''), 'device'), ''), 'none')))
        AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, multiIf(position IS NULL, 'none', position < 1, '0', position < 3, '1-2', position < 6, '3-5', position < 10, '6-9', '10+')))
)
ARRAY JOIN {lengths:Array(Float64)} AS length_s
GROUP BY length_s
ORDER BY length_s
