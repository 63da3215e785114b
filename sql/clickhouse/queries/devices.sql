-- name: devices
-- description: The devices that displays name in the range, most displays first; `none` where a display names none.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; of assets/metrics/ranges.py: minutes_start, minutes_end, hours_start, hours_end
SELECT device, sum(d.n) AS displays
FROM feed_in(start = {minutes_start:DateTime('UTC')}, end = {minutes_end:DateTime('UTC')}, grain = 3600, grain_start = {hours_start:DateTime('UTC')}, grain_end = {hours_end:DateTime('UTC')},
    channels = [], devices = [], bands = []) AS d
WHERE subject = 'displays'
GROUP BY device
ORDER BY displays DESC, device
LIMIT 50
