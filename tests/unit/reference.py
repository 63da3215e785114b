"""The labeler's rules once more, plainly, a key at a time: what every mode of the real labeler is compared with.

Written from docs/attribution.md alone. It shares no code with assets/attribution, and is slow: only for tests.
Events and rows are dicts; times are integers, microseconds since the epoch.
"""

MINUTE = 60_000_000
ORDER = [
    "impression", "click", "view_end", "like", "unlike", "fav", "unfav", "comment", "share", "follow", "unfollow",
    "hide", "profile_enter",
]  # fmt: skip
FLAGS = ["like", "fav", "comment", "share", "follow", "hide", "profile_enter"]
CONTEXT = ["request_id", "channel", "position", "context"]


def first_of_each_id(events):
    seen, kept = set(), []
    for event in events:
        if event["event_id"] not in seen:
            seen.add(event["event_id"])
            kept.append(event)
    return kept


def label(events, window=20 * MINUTE):
    """(impression sessions, click sessions, orphans) of a bounded log given in arrival order; every session closes."""
    by_key = {}
    for event in first_of_each_id(events):
        by_key.setdefault((event["user_id"], event["note_id"]), []).append(event)
    impressions, clicks, orphans = [], [], []
    for key in sorted(by_key):
        ordered = sorted(by_key[key], key=lambda e: (e["event_time"], ORDER.index(e["action"]), e["event_id"]))
        _label_key(key, ordered, window, impressions, clicks, orphans)
    return impressions, clicks, orphans


def _label_key(key, events, window, impressions, clicks, orphans):
    impression = click = None
    for event in events:
        now, action = event["event_time"], event["action"]
        if impression is not None and now >= impression["session_end"]:
            impression = None
        if click is not None and now >= click["session_end"]:
            click = None

        if action == "impression":
            if impression is None:
                impression = _session(key, now, window, event)
                impression.update(impressions=0, clicked=False, first_click_time=None)
                impressions.append(impression)
            impression["impressions"] += 1
        elif action == "click":
            if impression is not None and not impression["clicked"]:
                impression["clicked"] = True
                impression["first_click_time"] = now
            if click is None:
                click = _session(key, now, window, impression if impression is not None else event)
                click["clicks"] = 0
                click["attributed"] = impression is not None
                click["impression_session_start"] = impression["session_start"] if impression is not None else None
                clicks.append(click)
            click["clicks"] += 1
        else:
            session = click if click is not None else impression
            if session is None:
                orphans.append(
                    {name: event[name] for name in ("event_id", "user_id", "note_id", "action", "event_time")}
                )
            elif action == "view_end":
                session["dwell_ms"] += event["dwell_ms"] or 0
            elif action in ("unlike", "unfav", "unfollow"):
                session[action[2:]] = False
            else:
                session[action] = True


def _session(key, start, window, bearer):
    session = {"user_id": key[0], "note_id": key[1], "session_start": start, "session_end": start + window}
    session["dwell_ms"] = 0
    session.update({flag: False for flag in FLAGS})
    session.update({name: bearer[name] for name in CONTEXT})
    return session


def stream(events, window=20 * MINUTE, delay=2 * MINUTE):
    """Live labeling of events in arrival order.

    Returns (impression sessions, click sessions, orphans, late events) that are out when the last event has arrived.
    """
    on_time, late, greatest = [], [], None
    for event in first_of_each_id(events):
        if greatest is not None and event["event_time"] < greatest - delay:
            late.append(event)
        else:
            on_time.append(event)
        greatest = event["event_time"] if greatest is None else max(greatest, event["event_time"])
    watermark = None if greatest is None else greatest - delay
    impressions, clicks, orphans = label(on_time, window)
    return (
        [row for row in impressions if row["session_end"] <= watermark],
        [row for row in clicks if row["session_end"] <= watermark],
        [row for row in orphans if row["event_time"] < watermark],
        late,
    )
