-- name: revenue_by_channel
-- description: Revenue by the channel of the click; none where no click or no channel is known.
-- parameters: start and end DateTime64(6, 'UTC') half-open; channels Array(String), empty for all
SELECT ifNull(o.channel, 'none') AS click_channel,
    count() AS orders, sum(o.net_cents + o.refunded_cents) AS gross_cents, sum(o.refunded_cents) AS refunded_cents, sum(o.net_cents) AS net_cents
FROM order_attributions AS o
WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
    AND placed_at >= {start:DateTime64(6, 'UTC')} AND placed_at < {end:DateTime64(6, 'UTC')}
    AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, ifNull(channel, 'none')))
GROUP BY click_channel
ORDER BY net_cents DESC, click_channel
LIMIT 50
