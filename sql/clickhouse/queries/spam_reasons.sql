-- name: spam_reasons
-- description: Flagged accounts by the rule that they broke.
-- parameters: start and end DateTime64(6, 'UTC') half-open
SELECT arrayJoin(extractAll(toString(reasons), '[A-Za-z_]+')) AS reason, uniqExact(user_id) AS accounts
FROM spam_accounts
WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
GROUP BY reason
ORDER BY accounts DESC, reason
LIMIT 30
