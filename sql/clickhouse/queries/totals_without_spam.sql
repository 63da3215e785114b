-- name: totals_without_spam
-- description: Active users, events, displays, clicks and CTR of a range; without what accounts did in hours in which they were flagged.
-- parameters: start and end DateTime64(6, 'UTC') half-open; channels, devices, bands Array(String), empty for all
SELECT users, events, displays, clicks, clicks / nullIf(displays, 0) AS ctr
FROM
(
    SELECT uniqExact(user_id) AS users, count() AS events
    FROM events
    WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
        AND event_time >= {start:DateTime64(6, 'UTC')} AND event_time < {end:DateTime64(6, 'UTC')}
        AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, ifNull(channel, 'none')))
        AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
        AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
        AND (hour, user_id) NOT IN (SELECT hour, user_id FROM spam_accounts)
) AS active
CROSS JOIN
(
    SELECT count() AS displays, countIf(clicked) AS clicks
    FROM impression_sessions
    WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
        AND session_start >= {start:DateTime64(6, 'UTC')} AND session_start < {end:DateTime64(6, 'UTC')}
        AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, ifNull(channel, 'none')))
        AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
        AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
        AND (hour, user_id) NOT IN (SELECT hour, user_id FROM spam_accounts)
) AS shown
