-- name: active_users
-- description: DAU, WAU and MAU, exact: different users in the 1, 7 and 30 days before `end`.
-- parameters: end DateTime64(6, 'UTC'), whole minutes; channels, devices, bands Array(String), empty for all; of assets/metrics/ranges.py: minutes_end, left_out
-- Bitmaps of the last day, the six before and the 23 before those, read once; of whole hours, and of minutes in the hours that one
-- of the four borders cuts: they lie whole days apart, hence all at the same minute.
WITH
    {minutes_end:DateTime('UTC')} AS range_end,
    toStartOfHour(range_end) = range_end AS whole_hours,
    arrayMap(days -> toStartOfHour(range_end - toIntervalDay(days)), [0, 1, 7, 30]) AS cut
SELECT
    bitmapCardinality(day) AS dau,
    bitmapCardinality(bitmapOr(day, week)) AS wau,
    bitmapCardinality(bitmapOr(bitmapOr(day, week), month)) AS mau
FROM
(
    SELECT
        groupBitmapMergeStateIf(users, at >= range_end - INTERVAL 1 DAY) AS day,
        groupBitmapMergeStateIf(users, at < range_end - INTERVAL 1 DAY AND at >= range_end - INTERVAL 7 DAY) AS week,
        groupBitmapMergeStateIf(users, at < range_end - INTERVAL 7 DAY) AS month
    FROM user_totals
    WHERE hour >= toStartOfHour(range_end - INTERVAL 30 DAY) AND hour < range_end
        AND at >= range_end - INTERVAL 30 DAY AND at < range_end
        AND
        (
            (grain = 3600 AND rolled = {left_out:UInt8} AND (whole_hours OR hour NOT IN cut))
            OR (grain = 60 AND rolled = if({left_out:UInt8} = 7, 7, 0) AND NOT whole_hours AND hour IN cut)
        )
        AND (empty({channels:Array(String)}) OR channel IN {channels:Array(String)})
        AND (empty({devices:Array(String)}) OR device IN {devices:Array(String)})
        AND (empty({bands:Array(String)}) OR band IN {bands:Array(String)})
)
