-- name: top_notes
-- description: The notes with the most displays in the range.
-- parameters: start and end DateTime64(6, 'UTC') half-open; channels, devices, bands Array(String), empty for all
SELECT note_id, count() AS displays, countIf(clicked) AS clicks, clicks / displays AS ctr, uniqExact(user_id) AS audience
FROM impression_sessions
WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
    AND session_start >= {start:DateTime64(6, 'UTC')} AND session_start < {end:DateTime64(6, 'UTC')}
    AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, ifNull(channel, 'none')))
    AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
    AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
GROUP BY note_id
ORDER BY displays DESC, note_id
LIMIT 20
