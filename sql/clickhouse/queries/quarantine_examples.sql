-- name: quarantine_examples
-- description: Up to three newest rows of each reason as received, cut at 400 characters; digits hidden unless ids may be shown.
-- parameters: start and end DateTime64(6, 'UTC') half-open; show_ids UInt8, 1: as received
SELECT hour, reason, source, row,
    if({show_ids:UInt8} = 1, text,
        replaceRegexpAll(replaceRegexpAll(text, '("user_id"\\s*:\\s*)("[^"]*"?|[^,}]*)', '\\1#'), '[0-9]', '#')) AS received
FROM
(
    SELECT hour, reason, source, row, toValidUTF8(substring(body, 1, 400)) AS text
    FROM quarantine
    WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
    ORDER BY reason, hour DESC, source, row
    LIMIT 3 BY reason
)
ORDER BY reason, hour DESC, source, row
LIMIT 60
