-- name: spam_totals
-- description: Flagged accounts of a range, and what share of its events, displays and clicks is theirs.
-- parameters: start and end DateTime64(6, 'UTC') half-open
WITH flagged AS (SELECT DISTINCT user_id FROM spam_accounts WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')})
SELECT spam_users, users, spam_users / nullIf(users, 0) AS user_share, spam_events / nullIf(events, 0) AS event_share,
    spam_displays / nullIf(displays, 0) AS display_share, spam_clicks / nullIf(clicks, 0) AS click_share
FROM
(
    SELECT count() AS events, countIf(user_id IN flagged) AS spam_events, uniqExact(user_id) AS users,
        (SELECT count() FROM flagged) AS spam_users
    FROM events
    WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
        AND event_time >= {start:DateTime64(6, 'UTC')} AND event_time < {end:DateTime64(6, 'UTC')}
) AS acted
CROSS JOIN
(
    SELECT count() AS displays, countIf(user_id IN flagged) AS spam_displays, countIf(clicked) AS clicks,
        countIf(clicked AND user_id IN flagged) AS spam_clicks
    FROM impression_sessions
    WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
        AND session_start >= {start:DateTime64(6, 'UTC')} AND session_start < {end:DateTime64(6, 'UTC')}
) AS shown
