-- name: demo_summary
-- description: The feed in one row: users of the last day that has any, displays, share of displays clicked
-- parameters: from, to (UTC, half-open)
SELECT
    (
        SELECT uniqExact(user_id) FROM events
        WHERE hour >= {from:DateTime64(6, 'UTC')} AND hour < {to:DateTime64(6, 'UTC')}
            AND toDate(event_time) = (SELECT max(toDate(event_time)) FROM events WHERE hour >= {from:DateTime64(6, 'UTC')} AND hour < {to:DateTime64(6, 'UTC')})
    ) AS daily_active_users,
    sum(impressions) AS displays,
    avg(clicked) AS ctr
FROM impression_sessions
WHERE hour >= {from:DateTime64(6, 'UTC')} AND hour < {to:DateTime64(6, 'UTC')}
