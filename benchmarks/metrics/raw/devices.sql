-- name: devices
-- description: The devices that displays name in the range, most displays first; `none` where a display names none.
-- parameters: start and end DateTime64(6, 'UTC') half-open
SELECT ifNull(nullIf(simpleJSONExtractString(ifNull(context, ''), 'device'), ''), 'none') AS device, count() AS displays
FROM impression_sessions
WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
    AND session_start >= {start:DateTime64(6, 'UTC')} AND session_start < {end:DateTime64(6, 'UTC')}
GROUP BY device
ORDER BY displays DESC, device
LIMIT 50
