-- name: spam_over_time
-- description: Accounts flagged in each hour.
-- parameters: start and end DateTime64(6, 'UTC') half-open
SELECT hour AS time, uniqExact(user_id) AS accounts
FROM spam_accounts
WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
GROUP BY time
ORDER BY time
