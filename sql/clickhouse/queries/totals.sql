-- name: totals
-- description: Active users, events, displays, clicks and CTR of a range.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; channels, devices, bands Array(String), empty for all; of assets/metrics/ranges.py: minutes_start, minutes_end, hours_start, hours_end, left_out
SELECT users, events, displays, clicks, clicks / nullIf(displays, 0) AS ctr
FROM (SELECT groupBitmapMerge(users) AS users FROM users_in(start = {minutes_start:DateTime('UTC')}, end = {minutes_end:DateTime('UTC')}, hours_start = {hours_start:DateTime('UTC')}, hours_end = {hours_end:DateTime('UTC')},
    channels = {channels:Array(String)}, devices = {devices:Array(String)}, bands = {bands:Array(String)}, left_out = {left_out:UInt8})) AS active
CROSS JOIN
(
    SELECT sumIf(f.n, subject = 'events') AS events, sumIf(f.n, subject = 'displays') AS displays, sumIf(f.clicks, subject = 'displays') AS clicks
    FROM feed_in(start = {minutes_start:DateTime('UTC')}, end = {minutes_end:DateTime('UTC')}, grain = 3600, grain_start = {hours_start:DateTime('UTC')}, grain_end = {hours_end:DateTime('UTC')},
    channels = {channels:Array(String)}, devices = {devices:Array(String)}, bands = {bands:Array(String)}) AS f
    WHERE subject IN ('events', 'displays')
) AS counted
