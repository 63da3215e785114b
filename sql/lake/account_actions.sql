-- name: account_actions
-- owner: team:feed
-- grain: hour, user_id, note_id, action, author_id, device_id
-- partition: hourly
-- description: How often each account did what to which note in an hour, and from which device: what the spam rules about
--   repetition and shared devices add up. Actions are events other than impression and view_end.
with actions as (
    select
        e.hour,
        e.user_id,
        e.note_id,
        e.action,
        e.author_id,
        e.device_id
    from events as e
    where
        e.hour >= {{ window_start }} and e.hour < {{ window_end }} and e.action not in ('impression', 'view_end')
)
select
    a.hour, -- hour of the events, UTC
    a.user_id, -- who
    a.note_id, -- on which note
    a.action, -- did what
    cast(a.author_id as string) as author_id, -- the note's author, as text; null where the event names none
    a.device_id, -- the device; null where the event names none
    count(*) as times -- how often
from actions as a
group by a.hour, a.user_id, a.note_id, a.action, a.author_id, a.device_id
