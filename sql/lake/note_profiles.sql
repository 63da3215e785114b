-- name: note_profiles
-- owner: team:feed
-- grain: note_id, hour
-- partition: hourly
-- lookback: 8d
-- description: What happened to each note in the trailing seven days, as known by the end of the hour; one row for each
--   hour in which something of the note became known. An event is known once it has happened and has been received: a
--   late one enters in the hour of its receipt, and one received more than a day late never enters.
with known as (
    select
        e.note_id,
        date_trunc('HOUR', greatest(e.event_time, e.ingest_time)) as hour,
        e.hour as event_hour,
        e.action,
        e.dwell_ms
    from events as e
    where e.hour >= {{ lookback_start }} and e.hour < {{ window_end }}
),
hourly as (
    select
        k.note_id,
        k.hour,
        count_if(k.action = 'impression') as impressions,
        count_if(k.action = 'click') as clicks,
        count_if(k.action = 'view_end') as views,
        count_if(k.action = 'view_end' and k.dwell_ms >= {{ long_view_ms }}) as long_views,
        coalesce(sum(k.dwell_ms), 0) as dwell_ms,
        count_if(k.action = 'like') as likes,
        count_if(k.action = 'fav') as favs,
        count_if(k.action = 'comment') as comments,
        count_if(k.action = 'share') as shares,
        count_if(k.action = 'follow') as follows,
        count_if(k.action = 'hide') as hides,
        count_if(k.action = 'profile_enter') as profile_enters
    from known as k
    where k.hour < {{ window_end }} and k.hour <= k.event_hour + interval 24 hours
    group by k.note_id, k.hour
),
trailing as (
    select
        h.hour,
        h.note_id,
        sum(h.impressions) over week as impressions,
        sum(h.clicks) over week as clicks,
        sum(h.views) over week as views,
        sum(h.long_views) over week as long_views,
        sum(h.dwell_ms) over week as dwell_ms,
        sum(h.likes) over week as likes,
        sum(h.favs) over week as favs,
        sum(h.comments) over week as comments,
        sum(h.shares) over week as shares,
        sum(h.follows) over week as follows,
        sum(h.hides) over week as hides,
        sum(h.profile_enters) over week as profile_enters
    from hourly as h
    window week as (partition by h.note_id order by h.hour range between interval 167 hours preceding and current row)
)
select
    t.hour, -- start of the hour by whose end all this was known, UTC
    t.note_id, -- the note
    t.impressions, -- times displayed
    t.clicks, -- times clicked
    t.views, -- times opened and left again
    t.long_views, -- of these, open for long_view or longer
    t.dwell_ms, -- time readers spent in it, ms
    t.likes, -- like events; a taken-back like still counts as one
    t.favs, -- fav events
    t.comments, -- comments received
    t.shares, -- shares
    t.follows, -- follow events
    t.hides, -- times hidden
    t.profile_enters, -- times its author's page was entered from it
    (t.clicks + 2) / (t.impressions + 20) as ctr, -- clicks per display, smoothed by 20 displays at 10 %
    (t.likes + 1) / (t.clicks + 10) as like_rate, -- likes per click, smoothed by 10 clicks at 10 %
    (t.long_views + 3) / (t.clicks + 10) as long_view_rate -- long views per click, smoothed by 10 clicks at 30 %
from trailing as t
where t.hour >= {{ window_start }}
