-- name: ctr_by_window_without_spam
-- description: Share of displays clicked within so many seconds of the window's start, for several lengths; without what accounts did in hours in which they were flagged.
-- parameters: start and end DateTime64(6, 'UTC') half-open; channels, devices, bands Array(String), empty for all; lengths Array(Float64), seconds
SELECT length_s, countIf(seconds >= 0 AND seconds <= length_s) AS clicks, count() AS displays, clicks / displays AS ctr
FROM
(
    SELECT if(clicked AND first_click_time IS NOT NULL, dateDiff('millisecond', session_start, assumeNotNull(first_click_time)) / 1000, -1) AS seconds
    FROM impression_sessions
    WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
        AND session_start >= {start:DateTime64(6, 'UTC')} AND session_start < {end:DateTime64(6, 'UTC')}
        AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, ifNull(channel, 'none')))
        AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
        AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
        AND (hour, user_id) NOT IN (SELECT hour, user_id FROM spam_accounts)
)
ARRAY JOIN {lengths:Array(Float64)} AS length_s
GROUP BY length_s
ORDER BY length_s
