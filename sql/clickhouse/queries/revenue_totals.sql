-- name: revenue_totals
-- description: Orders of a range: gross, refunds, net, and the share that a note's click preceded.
-- parameters: start and end DateTime64(6, 'UTC') half-open; channels Array(String), empty for all
SELECT count() AS orders, sum(o.net_cents + o.refunded_cents) AS gross_cents, sum(o.refunded_cents) AS refunded_cents, sum(o.net_cents) AS net_cents,
    countIf(o.note_id IS NOT NULL) / nullIf(count(), 0) AS attributed_share
FROM order_attributions AS o
WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
    AND placed_at >= {start:DateTime64(6, 'UTC')} AND placed_at < {end:DateTime64(6, 'UTC')}
    AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, ifNull(channel, 'none')))
