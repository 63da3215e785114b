-- name: totals
-- description: Active users, events, displays, clicks and CTR of a range.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; channels, devices, bands Array(String), empty for all
SELECT users, events, displays, clicks, clicks / nullIf(displays, 0) AS ctr
FROM (SELECT groupBitmapMerge(users) AS users FROM users_in(start = {start:DateTime64(6, 'UTC')}, end = {end:DateTime64(6, 'UTC')}, zone = 'UTC', step = 3600,
    channels = {channels:Array(String)}, devices = {devices:Array(String)}, bands = {bands:Array(String)})) AS active
CROSS JOIN (SELECT sum(e.events) AS events FROM events_in(start = {start:DateTime64(6, 'UTC')}, end = {end:DateTime64(6, 'UTC')}, zone = 'UTC', step = 3600,
    channels = {channels:Array(String)}, devices = {devices:Array(String)}, bands = {bands:Array(String)}) AS e) AS acted
CROSS JOIN (SELECT sum(d.displays) AS displays, sum(d.clicks) AS clicks FROM displays_in(start = {start:DateTime64(6, 'UTC')}, end = {end:DateTime64(6, 'UTC')}, zone = 'UTC', step = 3600,
    channels = {channels:Array(String)}, devices = {devices:Array(String)}, bands = {bands:Array(String)}) AS d) AS shown
