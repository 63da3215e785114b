-- name: note_funnel
-- description: The funnel of one note and its audience.
-- parameters: start and end DateTime64(6, 'UTC') half-open; channels, devices, bands Array(String), empty for all; note_id Int64; long_view_ms UInt32
SELECT displays, clicks, clicks / nullIf(displays, 0) AS ctr, audience, long_views, likes, favs, comments, shares, follows,
    profile_enters, hides, dwell_s
FROM
(
    SELECT count() AS displays, countIf(clicked) AS clicks, uniqExact(user_id) AS audience
    FROM impression_sessions
    WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
        AND session_start >= {start:DateTime64(6, 'UTC')} AND session_start < {end:DateTime64(6, 'UTC')}
        AND note_id = {note_id:Int64}
        AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, ifNull(channel, 'none')))
        AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
        AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
) AS shown
CROSS JOIN
(
    SELECT countIf(dwell_ms >= {long_view_ms:UInt32}) AS long_views, countIf(like) AS likes, countIf(fav) AS favs,
        countIf(comment) AS comments, countIf(share) AS shares, countIf(follow) AS follows,
        countIf(profile_enter) AS profile_enters, countIf(hide) AS hides, avgOrNull(dwell_ms) / 1000 AS dwell_s
    FROM click_sessions
    WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')} + INTERVAL 1 DAY
        AND attributed
        AND impression_session_start >= {start:DateTime64(6, 'UTC')} AND impression_session_start < {end:DateTime64(6, 'UTC')}
        AND note_id = {note_id:Int64}
        AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, ifNull(channel, 'none')))
        AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
        AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
) AS read
