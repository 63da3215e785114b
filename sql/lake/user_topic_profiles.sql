-- name: user_topic_profiles
-- owner: team:feed
-- grain: user_id, topic, hour
-- partition: hourly
-- lookback: 8d
-- description: What each user did with each topic's notes in the trailing seven days, as known by the end of the hour; one row
--   for each hour in which something of the user and the topic became known. The topic is the events' own;
--   an event without one counts nowhere. When an event is known is said in user_profiles.
with known as (
    select
        e.user_id,
        e.topic,
        date_trunc('HOUR', greatest(e.event_time, e.ingest_time)) as hour,
        e.hour as event_hour,
        e.action,
        e.dwell_ms
    from events as e
    where
        e.hour >= {{ lookback_start }} and e.hour < {{ window_end }}
        and e.action in ('impression', 'click', 'view_end', 'like')
),
hourly as (
    select
        k.user_id,
        k.topic,
        k.hour,
        count_if(k.action = 'impression') as impressions,
        count_if(k.action = 'click') as clicks,
        count_if(k.action = 'view_end' and k.dwell_ms >= {{ long_view_ms }}) as long_views,
        count_if(k.action = 'like') as likes
    from known as k
    where k.topic is not null and k.hour < {{ window_end }} and k.hour <= k.event_hour + interval 24 hours
    group by k.user_id, k.topic, k.hour
),
trailing as (
    select
        h.hour,
        h.user_id,
        h.topic,
        sum(h.impressions) over week as impressions,
        sum(h.clicks) over week as clicks,
        sum(h.long_views) over week as long_views,
        sum(h.likes) over week as likes
    from hourly as h
    window week as (
        partition by h.user_id, h.topic order by h.hour range between interval 167 hours preceding and current row
    )
)
select
    t.hour, -- start of the hour by whose end all this was known, UTC
    t.user_id, -- who
    t.topic, -- of which notes
    t.impressions, -- displays received
    t.clicks, -- clicks made
    t.long_views, -- notes open for long_view or longer
    t.likes, -- like events; a taken-back like still counts as one
    (t.clicks + 2) / (t.impressions + 20) as ctr -- clicks per display, smoothed by 20 displays at 10 %
from trailing as t
where t.hour >= {{ window_start }}
