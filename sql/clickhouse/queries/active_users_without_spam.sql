-- name: active_users_without_spam
-- description: DAU, WAU and MAU, exact; without what accounts did in hours in which they were flagged.
-- parameters: end DateTime64(6, 'UTC'); channels, devices, bands Array(String), empty for all
SELECT
    uniqExactIf(user_id, event_time >= {end:DateTime64(6, 'UTC')} - INTERVAL 1 DAY) AS dau,
    uniqExactIf(user_id, event_time >= {end:DateTime64(6, 'UTC')} - INTERVAL 7 DAY) AS wau,
    uniqExact(user_id) AS mau
FROM events
WHERE hour >= toStartOfHour({end:DateTime64(6, 'UTC')} - INTERVAL 30 DAY) AND hour < {end:DateTime64(6, 'UTC')}
    AND event_time >= {end:DateTime64(6, 'UTC')} - INTERVAL 30 DAY AND event_time < {end:DateTime64(6, 'UTC')}
    AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, ifNull(channel, 'none')))
    AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
    AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
    AND (hour, user_id) NOT IN (SELECT hour, user_id FROM spam_accounts)
