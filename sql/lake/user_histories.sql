-- name: user_histories
-- owner: team:feed
-- grain: user_id, hour
-- partition: hourly
-- lookback: 8d
-- description: The last notes that each user clicked and liked in the trailing seven days, as known by the end of the hour,
--   newest first; one row for each hour in which a click or a like of the user became known. An event is known once it has
--   happened and has been received: a late one enters in the hour of its receipt, and one received more than a day late
--   never enters. Entry i of the three lists of clicks (of likes) is one event.
{% set kept = 20 %} {# entries of a list #}
with known as (
    select
        e.user_id,
        date_trunc('HOUR', greatest(e.event_time, e.ingest_time)) as hour,
        e.hour as event_hour,
        e.action,
        greatest(e.event_time, e.ingest_time) as known_time,
        e.event_time,
        e.event_id,
        e.note_id,
        e.topic,
        e.author_id
    from events as e
    where e.hour >= {{ lookback_start }} and e.hour < {{ window_end }} and e.action in ('click', 'like')
),
entries as (
    select
        k.user_id,
        k.hour,
        k.action,
        struct(
            k.known_time, k.event_time, k.event_id, k.note_id, k.topic, k.author_id
        ) as entry
    from known as k
    where k.hour < {{ window_end }} and k.hour <= k.event_hour + interval 24 hours
),
-- cut to the last few before the week is put together: what a window then holds is bounded, whatever an account does
hourly as (
    select
        n.user_id,
        n.hour,
        slice(reverse(array_sort(collect_list(case when n.action = 'click' then n.entry end))), 1, {{ kept }}) as clicks,
        slice(reverse(array_sort(collect_list(case when n.action = 'like' then n.entry end))), 1, {{ kept }}) as likes
    from entries as n
    group by n.user_id, n.hour
),
trailing as (
    select
        h.hour,
        h.user_id,
        slice(flatten(reverse(collect_list(h.clicks) over week)), 1, {{ kept }}) as clicks,
        slice(flatten(reverse(collect_list(h.likes) over week)), 1, {{ kept }}) as likes
    from hourly as h
    window week as (partition by h.user_id order by h.hour range between interval 167 hours preceding and current row)
)
select
    t.hour, -- start of the hour by whose end all this was known, UTC
    t.user_id, -- who
    cast(transform(t.clicks, one -> one.note_id) as array<bigint>) as clicked_notes, -- the last clicks' notes, newest first
    cast(transform(t.clicks, one -> one.topic) as array<string>) as clicked_topics, -- their topics
    cast(transform(t.clicks, one -> one.author_id) as array<bigint>) as clicked_authors, -- their authors
    cast(transform(t.likes, one -> one.note_id) as array<bigint>) as liked_notes, -- the last likes' notes, newest first; a taken-back like stays
    cast(transform(t.likes, one -> one.topic) as array<string>) as liked_topics, -- their topics
    cast(transform(t.likes, one -> one.author_id) as array<bigint>) as liked_authors -- their authors
from trailing as t
where t.hour >= {{ window_start }}
