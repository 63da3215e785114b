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
CONTEXT = ["request_id", "channel", "position", "context", "device", "author_id", "topic", "device_id", "app_version"]


def first_of_each_id(events):
    seen, kept = set(), []
    for event in events:
        if event["event_id"] not in seen:
            seen.add(event["event_id"])
            kept.append(event)
    return kept


class Plain:
    """Rules as plain values. horizon: µs, None for the window. short: ms of dwell below which a click window is no click.
    stay: µs by action. labels: the actions that make a label."""

    def __init__(self, window=20 * MINUTE, horizon=None, short=0, stay=None, labels=None):
        self.window, self.horizon, self.short = window, window if horizon is None else horizon, short
        self.stay = {"like": 0, "fav": 0, "follow": 0, **(stay or {})}
        self.labels = {**{flag: [flag] for flag in FLAGS}, **(labels or {})}


def label(events, window=20 * MINUTE, short_clicks=None):
    """(impression sessions, click sessions, orphans) of a bounded log given in arrival order; every session closes.

    window: µs, or Plain rules. short_clicks: a list that takes the click windows that were no clicks.
    """
    rules = window if isinstance(window, Plain) else Plain(window)
    return label_by(events, lambda start: rules, short_clicks)


def label_by(events, rules_at, short_clicks=None):
    """The same where rules change: a session follows those of its start, rules_at(µs). They have one window."""
    by_key = {}
    for event in first_of_each_id(events):
        by_key.setdefault((event["user_id"], event["note_id"]), []).append(event)
    impressions, clicks, orphans = [], [], []
    for key in sorted(by_key):
        ordered = sorted(by_key[key], key=lambda e: (e["event_time"], ORDER.index(e["action"]), e["event_id"]))
        spans = _click_spans(ordered, rules_at(0).window)
        short = [one for one in spans if one["dwell_ms"] < rules_at(one["session_start"]).short]
        if short_clicks is not None:
            short_clicks.extend({"user_id": key[0], "note_id": key[1], **one} for one in short)
        _label_key(key, ordered, rules_at, short, impressions, clicks, orphans)
    for session in [*impressions, *clicks]:
        _settle(session, session.pop("did"), rules_at(session["session_start"]))
    return impressions, clicks, orphans


def _click_spans(events, window):
    """The click windows of a key, whatever becomes of them: start, end, clicks, dwell."""
    spans = []
    for event in events:
        inside = spans and event["event_time"] < spans[-1]["session_end"]
        if event["action"] == "click" and not inside:
            now = event["event_time"]
            spans.append({"session_start": now, "session_end": now + window, "clicks": 1, "dwell_ms": 0})
        elif inside and event["action"] == "click":
            spans[-1]["clicks"] += 1
        elif inside and event["action"] == "view_end":
            spans[-1]["dwell_ms"] += event["dwell_ms"] or 0
    return spans


def _label_key(key, events, rules_at, short, impressions, clicks, orphans):
    window = rules_at(0).window
    impression = click = None
    for event in events:
        now, action = event["event_time"], event["action"]
        if impression is not None and now >= impression["session_end"]:
            impression = None
        if click is not None and now >= click["session_end"]:
            click = None
        no_click = action == "click" and any(one["session_start"] <= now < one["session_end"] for one in short)

        if action == "impression":
            if impression is None:
                impression = _session(key, now, window, event)
                impression.update(impressions=0, clicked=False, first_click_time=None)
                impressions.append(impression)
            impression["impressions"] += 1
        elif action == "click" and not no_click:
            since = None if impression is None else now - impression["session_start"]
            if since is not None and since < rules_at(impression["session_start"]).horizon and not impression["clicked"]:
                impression["clicked"] = True
                impression["first_click_time"] = now
            if click is None:
                near = since is not None and since < rules_at(now).horizon
                click = _session(key, now, window, impression if near else event)
                click["clicks"] = 0
                click["attributed"] = near
                click["impression_session_start"] = impression["session_start"] if near else None
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
            else:
                session["did"].append((action, now))


def _settle(session, did, rules):
    """The labels of a session from what was done in it, (action, time) in order."""
    stood = {action for action in FLAGS if _stands(action, did, rules.stay.get(action, 0))}
    for flag in FLAGS:
        session[flag] = any(action in stood for action in rules.labels[flag])


def _stands(action, did, stay):
    stretches = []  # [from, to]; to is None while nobody has undone it
    for what, now in did:
        standing = stretches and stretches[-1][1] is None
        if what == action and not standing:
            stretches.append([now, None])
        elif what == "un" + action and standing:
            stretches[-1][1] = now
    if stay == 0:
        return bool(stretches) and stretches[-1][1] is None
    return any(end is None or end - start >= stay for start, end in stretches)


def _session(key, start, window, bearer):
    session = {"user_id": key[0], "note_id": key[1], "session_start": start, "session_end": start + window}
    session["dwell_ms"] = 0
    session["did"] = []
    session.update({name: bearer[name] for name in CONTEXT})
    return session


AHEAD = 5 * MINUTE


def wrong_clock(event):
    """Whether the live line refuses the event. Its ingest_time may be missing; landed_at: when its file landed."""
    ingest = event.get("ingest_time") or event["event_time"]
    landed = event.get("landed_at", FOREVER)
    return event["event_time"] > ingest + AHEAD or max(event["event_time"], ingest) > landed + AHEAD


FOREVER = 2**62


def stream(events, window=20 * MINUTE, delay=2 * MINUTE):
    """Live labeling of events in arrival order. An event without landed_at landed long after it happened.

    Returns (impression sessions, click sessions, orphans, late events) that are out when the last event has arrived.
    """
    on_time, late, watermark = [], [], None
    for event in first_of_each_id(one for one in events if not wrong_clock(one)):
        if watermark is not None and event["event_time"] < watermark:
            late.append(event)
        else:
            on_time.append(event)
        received = min(event["event_time"], event.get("ingest_time") or event["event_time"], event.get("landed_at", FOREVER))
        watermark = received - delay if watermark is None else max(watermark, received - delay)
    impressions, clicks, orphans = label(on_time, window)
    return (
        [row for row in impressions if row["session_end"] <= watermark],
        [row for row in clicks if row["session_end"] <= watermark],
        [row for row in orphans if row["event_time"] < watermark],
        late,
    )
