-- name: daily_users
-- description: Daily active users, exact: different user_id with at least one event in the day of the zone.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; channels, devices, bands Array(String), empty for all; zone String, IANA
SELECT toDate(at, {zone:String}) AS day, groupBitmapMerge(users) AS users
FROM users_in(start = {start:DateTime64(6, 'UTC')}, end = {end:DateTime64(6, 'UTC')}, zone = {zone:String}, step = 3600,
    channels = {channels:Array(String)}, devices = {devices:Array(String)}, bands = {bands:Array(String)})
GROUP BY day
ORDER BY day
