-- name: totals
-- description: Active users, events, displays, clicks and CTR of a range.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; channels, devices, bands Array(String), empty for all
-- Users of whole hours come from the bitmaps of hours, those of the range's ends from the bitmaps of minutes.
SELECT users, events, displays, clicks, clicks / nullIf(displays, 0) AS ctr
FROM
(
    SELECT groupBitmapMerge(users) AS users
    FROM
    (
        SELECT users
        FROM users_by_hour
        WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')} + INTERVAL 3599 SECOND) AND hour + INTERVAL 1 HOUR <= {end:DateTime64(6, 'UTC')}
            AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
            AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
            AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
        UNION ALL
        SELECT users
        FROM users_by_minute
        WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
            AND minute >= toStartOfMinute({start:DateTime64(6, 'UTC')}) AND minute < {end:DateTime64(6, 'UTC')}
            AND NOT (hour >= toStartOfHour({start:DateTime64(6, 'UTC')} + INTERVAL 3599 SECOND) AND hour + INTERVAL 1 HOUR <= {end:DateTime64(6, 'UTC')})
            AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
            AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
            AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
    )
) AS active
CROSS JOIN
(
    SELECT sum(events) AS events
    FROM events_by_minute
    WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
        AND minute >= toStartOfMinute({start:DateTime64(6, 'UTC')}) AND minute < {end:DateTime64(6, 'UTC')}
        AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
        AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
        AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
) AS acted
CROSS JOIN
(
    SELECT sum(displays) AS displays, sum(clicks) AS clicks
    FROM displays_by_minute
    WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
        AND minute >= toStartOfMinute({start:DateTime64(6, 'UTC')}) AND minute < {end:DateTime64(6, 'UTC')}
        AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
        AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
        AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
) AS shown
