-- name: note_over_time
-- description: Displays, clicks and CTR of one note per time step.
-- parameters: start and end DateTime64(6, 'UTC') half-open; channels, devices, bands Array(String), empty for all; note_id Int64; step UInt32, seconds
SELECT
    toStartOfInterval(session_start, toIntervalSecond({step:UInt32}), 'UTC') AS time,
    count() AS displays,
    countIf(clicked) AS clicks,
    clicks / displays AS ctr
FROM impression_sessions
WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
    AND session_start >= {start:DateTime64(6, 'UTC')} AND session_start < {end:DateTime64(6, 'UTC')}
    AND note_id = {note_id:Int64}
    AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, ifNull(channel, 'none')))
    AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
    AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
GROUP BY time
ORDER BY time
