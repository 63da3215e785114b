-- name: channels
-- description: The channels that displays name in the range, most displays first; `none` where a display names none.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes
-- Whole hours are read from the aggregates of hours, the range's ends from those of minutes.
SELECT channel, sum(d.displays) AS displays
FROM
(
    SELECT hour AS at, channel, displays
    FROM displays_by_hour
    WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')} + INTERVAL 3599 SECOND) AND hour < toStartOfHour({end:DateTime64(6, 'UTC')})
    UNION ALL
    SELECT minute AS at, channel, displays
    FROM displays_by_minute
    WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
        AND minute >= toStartOfMinute({start:DateTime64(6, 'UTC')}) AND minute < {end:DateTime64(6, 'UTC')}
        AND (hour < toStartOfHour({start:DateTime64(6, 'UTC')} + INTERVAL 3599 SECOND) OR hour >= toStartOfHour({end:DateTime64(6, 'UTC')}))
) AS d
GROUP BY channel
ORDER BY displays DESC, channel
LIMIT 50
