-- name: daily_users_without_spam
-- description: Daily active users, exact: different user_id with at least one event in the day of the zone; without what accounts did in hours in which they were flagged.
-- parameters: start and end DateTime64(6, 'UTC') half-open; channels, devices, bands Array(String), empty for all; zone String, IANA
SELECT toDate(event_time, {zone:String}) AS day, uniqExact(user_id) AS users
FROM events
WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
    AND event_time >= {start:DateTime64(6, 'UTC')} AND event_time < {end:DateTime64(6, 'UTC')}
    AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, ifNull(channel, 'none')))
    AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
    AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
    AND (hour, user_id) NOT IN (SELECT hour, user_id FROM spam_accounts)
GROUP BY day
ORDER BY day
