-- name: channels
-- description: The channels that displays name in the range, most displays first; `none` where a display names none.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes
SELECT channel, sum(d.displays) AS displays
FROM displays_by_minute AS d
WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
    AND minute >= toStartOfMinute({start:DateTime64(6, 'UTC')}) AND minute < {end:DateTime64(6, 'UTC')}
GROUP BY channel
ORDER BY displays DESC, channel
LIMIT 50
