-- name: active_users
-- description: DAU, WAU and MAU, exact: different users in the 1, 7 and 30 days before `end`.
-- parameters: end DateTime64(6, 'UTC'), whole minutes; channels, devices, bands Array(String), empty for all
-- Each bitmap is read once: the days before are added to the newest day's.
SELECT
    bitmapCardinality(day) AS dau,
    bitmapCardinality(bitmapOr(day, week)) AS wau,
    bitmapCardinality(bitmapOr(bitmapOr(day, week), month)) AS mau
FROM
(
    SELECT
        groupBitmapMergeStateIf(users, at >= {end:DateTime64(6, 'UTC')} - INTERVAL 1 DAY) AS day,
        groupBitmapMergeStateIf(users, at < {end:DateTime64(6, 'UTC')} - INTERVAL 1 DAY AND at >= {end:DateTime64(6, 'UTC')} - INTERVAL 7 DAY) AS week,
        groupBitmapMergeStateIf(users, at < {end:DateTime64(6, 'UTC')} - INTERVAL 7 DAY) AS month
    FROM
    (
        SELECT hour AS at, users
        FROM users_by_hour
        WHERE hour >= toStartOfHour(({end:DateTime64(6, 'UTC')} - INTERVAL 30 DAY) + INTERVAL 3599 SECOND) AND hour < toStartOfHour({end:DateTime64(6, 'UTC')})
            AND (toMinute({end:DateTime64(6, 'UTC')}) = 0 OR hour NOT IN (toStartOfHour({end:DateTime64(6, 'UTC')} - INTERVAL 1 DAY), toStartOfHour({end:DateTime64(6, 'UTC')} - INTERVAL 7 DAY)))
            AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
            AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
            AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
        UNION ALL
        SELECT minute AS at, users
        FROM users_by_minute
        WHERE hour >= toStartOfHour(({end:DateTime64(6, 'UTC')} - INTERVAL 30 DAY)) AND hour < {end:DateTime64(6, 'UTC')}
            AND minute >= toStartOfMinute(({end:DateTime64(6, 'UTC')} - INTERVAL 30 DAY)) AND minute < {end:DateTime64(6, 'UTC')}
            AND (hour < toStartOfHour(({end:DateTime64(6, 'UTC')} - INTERVAL 30 DAY) + INTERVAL 3599 SECOND) OR hour >= toStartOfHour({end:DateTime64(6, 'UTC')})
                OR (toMinute({end:DateTime64(6, 'UTC')}) != 0 AND hour IN (toStartOfHour({end:DateTime64(6, 'UTC')} - INTERVAL 1 DAY), toStartOfHour({end:DateTime64(6, 'UTC')} - INTERVAL 7 DAY))))
            AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
            AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
            AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
    )
)
