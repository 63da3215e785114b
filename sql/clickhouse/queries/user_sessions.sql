-- name: user_sessions
-- description: The display windows of one user that start in the range, newest first, with what followed a click.
-- parameters: start and end DateTime64(6, 'UTC') half-open; user_id Int64
SELECT s.session_start AS start, s.note_id AS note_id, s.channel AS channel, s.position AS position,
    s.impressions AS impressions, s.clicked AS clicked,
    if(s.clicked, dateDiff('millisecond', s.session_start, assumeNotNull(s.first_click_time)) / 1000, NULL) AS to_click_s,
    c.dwell_ms / 1000 AS dwell_s,
    arrayStringConcat(arrayFilter(x -> x != '', [
        if(s.like OR c.like, 'like', ''), if(s.fav OR c.fav, 'fav', ''), if(s.comment OR c.comment, 'comment', ''),
        if(s.share OR c.share, 'share', ''), if(s.follow OR c.follow, 'follow', ''), if(s.hide OR c.hide, 'hide', ''),
        if(s.profile_enter OR c.profile_enter, 'profile enter', '')]), ', ') AS then_did
FROM
(
    SELECT * FROM impression_sessions
    WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
        AND session_start >= {start:DateTime64(6, 'UTC')} AND session_start < {end:DateTime64(6, 'UTC')}
        AND user_id = {user_id:Int64}
    ORDER BY session_start DESC
    LIMIT 500
) AS s
LEFT JOIN
(
    SELECT note_id, assumeNotNull(impression_session_start) AS shown, dwell_ms, like, fav, comment, share, follow, hide, profile_enter
    FROM click_sessions
    WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')} + INTERVAL 1 DAY
        AND attributed AND user_id = {user_id:Int64}
) AS c ON s.note_id = c.note_id AND s.session_start = c.shown
ORDER BY start DESC, note_id
