-- name: top_notes
-- description: The notes with the most displays in the range, and how many different users saw them.
-- parameters: start and end DateTime64(6, 'UTC') half-open; channels, devices, bands Array(String), empty for all
-- Users are counted of the twenty notes only: of all notes it took two thirds of the time.
WITH
(
    SELECT groupArray((note_id, displays, clicks))
    FROM
    (
        SELECT note_id, count() AS displays, countIf(clicked) AS clicks
        FROM impression_sessions
        WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
            AND session_start >= {start:DateTime64(6, 'UTC')} AND session_start < {end:DateTime64(6, 'UTC')}
            AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, ifNull(channel, 'none')))
            AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
            AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
        GROUP BY note_id
        ORDER BY displays DESC, note_id
        LIMIT 20
    )
) AS top
SELECT one.1 AS note_id, one.2 AS displays, one.3 AS clicks, clicks / displays AS ctr, audience
FROM (SELECT arrayJoin(top) AS one) AS listed
INNER JOIN
(
    SELECT i.note_id AS note, uniqExact(i.user_id) AS audience
    FROM impression_sessions AS i
    WHERE note IN (SELECT arrayJoin(arrayMap(one -> one.1, top)))
        AND hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
        AND session_start >= {start:DateTime64(6, 'UTC')} AND session_start < {end:DateTime64(6, 'UTC')}
        AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, ifNull(channel, 'none')))
        AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
        AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
    GROUP BY note
) AS seen ON one.1 = note
ORDER BY displays DESC, note_id
