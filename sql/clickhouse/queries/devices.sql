-- name: devices
-- description: The devices that displays name in the range, most displays first; `none` where a display names none.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes
SELECT device, sum(d.displays) AS displays
FROM displays_in(start = {start:DateTime64(6, 'UTC')}, end = {end:DateTime64(6, 'UTC')}, zone = 'UTC', step = 3600,
    channels = [], devices = [], bands = []) AS d
GROUP BY device
ORDER BY displays DESC, device
LIMIT 50
