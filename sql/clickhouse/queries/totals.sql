-- name: totals
-- description: Active users, events, displays, clicks and CTR of a range.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; channels, devices, bands Array(String), empty for all
-- Whole hours are read from the aggregates of hours, the range's ends from those of minutes.
SELECT users, events, displays, clicks, clicks / nullIf(displays, 0) AS ctr
FROM
(
    SELECT groupBitmapMerge(users) AS users
    FROM
    (
        SELECT hour AS at, users
        FROM users_by_hour
        WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')} + INTERVAL 3599 SECOND) AND hour < toStartOfHour({end:DateTime64(6, 'UTC')})
            AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
            AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
            AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
        UNION ALL
        SELECT minute AS at, users
        FROM users_by_minute
        WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
            AND minute >= toStartOfMinute({start:DateTime64(6, 'UTC')}) AND minute < {end:DateTime64(6, 'UTC')}
            AND (hour < toStartOfHour({start:DateTime64(6, 'UTC')} + INTERVAL 3599 SECOND) OR hour >= toStartOfHour({end:DateTime64(6, 'UTC')}))
            AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
            AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
            AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
    )
) AS active
CROSS JOIN
(
    SELECT sum(e.events) AS events
    FROM
    (
        SELECT hour AS at, events
        FROM events_by_hour
        WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')} + INTERVAL 3599 SECOND) AND hour < toStartOfHour({end:DateTime64(6, 'UTC')})
            AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
            AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
            AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
        UNION ALL
        SELECT minute AS at, events
        FROM events_by_minute
        WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
            AND minute >= toStartOfMinute({start:DateTime64(6, 'UTC')}) AND minute < {end:DateTime64(6, 'UTC')}
            AND (hour < toStartOfHour({start:DateTime64(6, 'UTC')} + INTERVAL 3599 SECOND) OR hour >= toStartOfHour({end:DateTime64(6, 'UTC')}))
            AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
            AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
            AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
    ) AS e
) AS acted
CROSS JOIN
(
    SELECT sum(d.displays) AS displays, sum(d.clicks) AS clicks
    FROM
    (
        SELECT hour AS at, displays, clicks
        FROM displays_by_hour
        WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')} + INTERVAL 3599 SECOND) AND hour < toStartOfHour({end:DateTime64(6, 'UTC')})
            AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
            AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
            AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
        UNION ALL
        SELECT minute AS at, displays, clicks
        FROM displays_by_minute
        WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
            AND minute >= toStartOfMinute({start:DateTime64(6, 'UTC')}) AND minute < {end:DateTime64(6, 'UTC')}
            AND (hour < toStartOfHour({start:DateTime64(6, 'UTC')} + INTERVAL 3599 SECOND) OR hour >= toStartOfHour({end:DateTime64(6, 'UTC')}))
            AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
            AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
            AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
    ) AS d
) AS shown
