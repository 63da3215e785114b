-- name: quarantine_examples
-- description: Up to three newest rows of each reason as received, cut at 400 characters; unless ids may be shown, only the marks between values.
-- parameters: start and end DateTime64(6, 'UTC') half-open; show_ids UInt8, 1: as received
SELECT hour,
    if({show_ids:UInt8} = 1, why, replaceRegexpAll(why, '\'[^\']*\'|"[^"]*"', '·')) AS reason,
    source, row,
    if({show_ids:UInt8} = 1, text, replaceRegexpAll(text, '[^{}:,;"\\t\\[\\]]+', '·')) AS received
FROM
(
    SELECT hour, reason AS why, source, row, toValidUTF8(substring(body, 1, 400)) AS text
    FROM quarantine
    WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
    ORDER BY reason, hour DESC, source, row
    LIMIT 3 BY reason
)
ORDER BY reason, hour DESC, source, row
LIMIT 60
