-- name: time_to_click_without_spam
-- description: Clicked displays by the time from display to first click, in bins that double; upper bound in seconds; without what accounts did in hours in which they were flagged.
-- parameters: start and end DateTime64(6, 'UTC') half-open; channels, devices, bands Array(String), empty for all
SELECT
    pow(2, greatest(0, ceil(log2(greatest(seconds, 0.001))))) AS up_to_s,
    count() AS clicks
FROM
(
    SELECT dateDiff('millisecond', session_start, assumeNotNull(first_click_time)) / 1000 AS seconds
    FROM impression_sessions
    WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
        AND session_start >= {start:DateTime64(6, 'UTC')} AND session_start < {end:DateTime64(6, 'UTC')}
        AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, ifNull(channel, 'none')))
        AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
        AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
        AND (hour, user_id) NOT IN (SELECT hour, user_id FROM spam_accounts)
        AND clicked AND first_click_time IS NOT NULL
)
GROUP BY up_to_s
ORDER BY up_to_s
