-- name: time_to_click_summary_without_spam
-- description: Median and 90th percentile of the time from display to first click, seconds; exact; without what accounts did in hours in which they were flagged.
-- parameters: start and end DateTime64(6, 'UTC') half-open; channels, devices, bands Array(String), empty for all
SELECT
    quantileExactOrNull(0.5)(seconds) AS median_s,
    quantileExactOrNull(0.9)(seconds) AS p90_s
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
