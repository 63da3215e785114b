-- name: note_by_position
-- description: Displays and CTR of one note by slot of the feed, the first 50.
-- parameters: start and end DateTime64(6, 'UTC') half-open; channels, devices, bands Array(String), empty for all; note_id Int64
SELECT assumeNotNull(position) AS slot, count() AS displays, countIf(clicked) AS clicks, clicks / displays AS ctr
FROM impression_sessions
WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
    AND session_start >= {start:DateTime64(6, 'UTC')} AND session_start < {end:DateTime64(6, 'UTC')}
    AND note_id = {note_id:Int64}
    AND position IS NOT NULL
    AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, ifNull(channel, 'none')))
    AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
    AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
GROUP BY slot
ORDER BY slot
LIMIT 50
