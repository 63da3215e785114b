-- name: active_users
-- description: DAU, WAU and MAU, exact: different users in the 1, 7 and 30 days before `end`.
-- parameters: end DateTime64(6, 'UTC'), whole minutes; channels, devices, bands Array(String), empty for all
SELECT
    (
        SELECT groupBitmapMerge(users)
        FROM
        (
            SELECT users
            FROM users_by_hour
            WHERE hour >= toStartOfHour(({end:DateTime64(6, 'UTC')} - INTERVAL 1 DAY) + INTERVAL 3599 SECOND) AND hour + INTERVAL 1 HOUR <= {end:DateTime64(6, 'UTC')}
                AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
                AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
                AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
            UNION ALL
            SELECT users
            FROM users_by_minute
            WHERE hour >= toStartOfHour(({end:DateTime64(6, 'UTC')} - INTERVAL 1 DAY)) AND hour < {end:DateTime64(6, 'UTC')}
                AND minute >= toStartOfMinute(({end:DateTime64(6, 'UTC')} - INTERVAL 1 DAY)) AND minute < {end:DateTime64(6, 'UTC')}
                AND NOT (hour >= toStartOfHour(({end:DateTime64(6, 'UTC')} - INTERVAL 1 DAY) + INTERVAL 3599 SECOND) AND hour + INTERVAL 1 HOUR <= {end:DateTime64(6, 'UTC')})
                AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
                AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
                AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
        )
    ) AS dau,
    (
        SELECT groupBitmapMerge(users)
        FROM
        (
            SELECT users
            FROM users_by_hour
            WHERE hour >= toStartOfHour(({end:DateTime64(6, 'UTC')} - INTERVAL 7 DAY) + INTERVAL 3599 SECOND) AND hour + INTERVAL 1 HOUR <= {end:DateTime64(6, 'UTC')}
                AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
                AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
                AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
            UNION ALL
            SELECT users
            FROM users_by_minute
            WHERE hour >= toStartOfHour(({end:DateTime64(6, 'UTC')} - INTERVAL 7 DAY)) AND hour < {end:DateTime64(6, 'UTC')}
                AND minute >= toStartOfMinute(({end:DateTime64(6, 'UTC')} - INTERVAL 7 DAY)) AND minute < {end:DateTime64(6, 'UTC')}
                AND NOT (hour >= toStartOfHour(({end:DateTime64(6, 'UTC')} - INTERVAL 7 DAY) + INTERVAL 3599 SECOND) AND hour + INTERVAL 1 HOUR <= {end:DateTime64(6, 'UTC')})
                AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
                AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
                AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
        )
    ) AS wau,
    (
        SELECT groupBitmapMerge(users)
        FROM
        (
            SELECT users
            FROM users_by_hour
            WHERE hour >= toStartOfHour(({end:DateTime64(6, 'UTC')} - INTERVAL 30 DAY) + INTERVAL 3599 SECOND) AND hour + INTERVAL 1 HOUR <= {end:DateTime64(6, 'UTC')}
                AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
                AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
                AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
            UNION ALL
            SELECT users
            FROM users_by_minute
            WHERE hour >= toStartOfHour(({end:DateTime64(6, 'UTC')} - INTERVAL 30 DAY)) AND hour < {end:DateTime64(6, 'UTC')}
                AND minute >= toStartOfMinute(({end:DateTime64(6, 'UTC')} - INTERVAL 30 DAY)) AND minute < {end:DateTime64(6, 'UTC')}
                AND NOT (hour >= toStartOfHour(({end:DateTime64(6, 'UTC')} - INTERVAL 30 DAY) + INTERVAL 3599 SECOND) AND hour + INTERVAL 1 HOUR <= {end:DateTime64(6, 'UTC')})
                AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
                AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
                AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
        )
    ) AS mau
