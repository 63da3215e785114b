-- name: daily_users
-- description: Daily active users, exact: different user_id with at least one event in the day of the zone.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; channels, devices, bands Array(String), empty for all; zone String, IANA; of assets/metrics/ranges.py: minutes_start, minutes_end, zone_hours_start, zone_hours_end, left_out
SELECT toDate(at, {zone:String}) AS day, groupBitmapMerge(users) AS users
FROM users_in(start = {minutes_start:DateTime('UTC')}, end = {minutes_end:DateTime('UTC')}, hours_start = {zone_hours_start:DateTime('UTC')}, hours_end = {zone_hours_end:DateTime('UTC')},
    channels = {channels:Array(String)}, devices = {devices:Array(String)}, bands = {bands:Array(String)}, left_out = {left_out:UInt8})
GROUP BY day
ORDER BY day
