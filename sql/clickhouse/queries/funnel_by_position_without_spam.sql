-- name: funnel_by_position_without_spam
-- description: The funnel per band of positions; without what accounts did in hours in which they were flagged.
-- parameters: start and end DateTime64(6, 'UTC') half-open; channels, devices, bands Array(String), empty for all; long_view_ms UInt32
SELECT
    band,
    sum(displays) AS displays, sum(clicks) AS clicks, clicks / nullIf(displays, 0) AS ctr,
    sum(long_views) AS long_views, sum(likes) AS likes, sum(favs) AS favs, sum(comments) AS comments,
    sum(shares) AS shares, sum(follows) AS follows, sum(profile_enters) AS profile_enters, sum(hides) AS hides
FROM
(
    SELECT band, count() AS displays, countIf(clicked) AS clicks,
        0 AS long_views, 0 AS likes, 0 AS favs, 0 AS comments, 0 AS shares, 0 AS follows, 0 AS profile_enters, 0 AS hides
    FROM impression_sessions
    WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
        AND session_start >= {start:DateTime64(6, 'UTC')} AND session_start < {end:DateTime64(6, 'UTC')}
        AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, ifNull(channel, 'none')))
        AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
        AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
        AND (hour, user_id) NOT IN (SELECT hour, user_id FROM spam_accounts)
        AND band != 'none'
    GROUP BY band
    UNION ALL
    -- The clicks of those displays: by the time of the display, though the click may be of the next hour.
    SELECT band, 0, 0, countIf(dwell_ms >= {long_view_ms:UInt32}), countIf(like), countIf(fav), countIf(comment), countIf(share),
        countIf(follow), countIf(profile_enter), countIf(hide)
    FROM click_sessions
    WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')} + INTERVAL 1 DAY
        AND attributed
        AND impression_session_start >= {start:DateTime64(6, 'UTC')} AND impression_session_start < {end:DateTime64(6, 'UTC')}
        AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, ifNull(channel, 'none')))
        AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
        AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
        AND (hour, user_id) NOT IN (SELECT hour, user_id FROM spam_accounts)
        AND band != 'none'
    GROUP BY band
)
GROUP BY band
ORDER BY toUInt8OrZero(extract(band, '^[0-9]+'))
LIMIT 50
