-- name: revenue_by_note
-- description: Revenue by the note that planted the order, most net first.
-- parameters: start and end DateTime64(6, 'UTC') half-open; channels Array(String), empty for all
SELECT assumeNotNull(o.note_id) AS note_id,
    count() AS orders, sum(o.net_cents + o.refunded_cents) AS gross_cents, sum(o.refunded_cents) AS refunded_cents, sum(o.net_cents) AS net_cents
FROM order_attributions AS o
WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
    AND placed_at >= {start:DateTime64(6, 'UTC')} AND placed_at < {end:DateTime64(6, 'UTC')}
    AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, ifNull(channel, 'none')))
    AND o.note_id IS NOT NULL
GROUP BY note_id
ORDER BY net_cents DESC, note_id
LIMIT 20
