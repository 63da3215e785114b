"""The one time dimension: hours, UTC, half-open; its first hour, and a run's partitions as a window.

Stray hours (assets/hours.py) have no partition where it would make thousands of empty ones; `land`, `accept` and `label`
take care of them beside the partitions of a run.
Here: partitions. Not here: what is computed for them.
The hour that is running now is a partition too (end_offset=1): live events of it can be looked at. What counts as
settled is the schedules' concern.
"""

import datetime as dt

import dagster as dg

from assets import hours as rule
from assets.lake import Lake, Window
from dagster_project.settings import Settings

KEY_FORMAT = "%Y-%m-%d-%H:%M"  # Dagster's own for hours
HOUR = dt.timedelta(hours=1)


def hourly(first: dt.datetime) -> dg.HourlyPartitionsDefinition:
    """Hours from `first` to the running one."""
    return dg.HourlyPartitionsDefinition(start_date=first.astimezone(dt.UTC), timezone="UTC", end_offset=1)


def first_hour(settings: Settings, now: dt.datetime | None = None) -> dt.datetime:
    """The setting, else the lake's earliest hour of events, else the day before `now`.

    Stray hours do not count, nor what lies more than hours.MOST_PARTITIONS back or in the future. Costs one look at a Delta log; no JVM. A code location that was loaded before the first landing is reloaded to see
    earlier hours.
    """
    if settings.first_hour:
        return settings.first_hour
    now = now or dt.datetime.now(dt.UTC)
    if there := rule.newest(rule.of(settings.lake), now)[0]:
        return there[0]
    return now.replace(hour=0, minute=0, second=0, microsecond=0) - dt.timedelta(days=1)


def known_hours(lake: Lake) -> list[dt.datetime]:
    """The hours of which the lake holds raw events, or events that were never landed; ascending."""
    return sorted({hour for name in ("raw_events", "events") if lake.exists(name) for hour in lake.hours(name)})


def without_partition(lake: Lake, first: dt.datetime) -> dict[dt.datetime, int]:
    """Stray hours that lie before the first partition or after the running hour -> events."""
    now = dt.datetime.now(dt.UTC)
    return {hour: count for hour, count in rule.of(lake).stray.items() if not first <= hour <= now}


def stray_metadata(lake: Lake) -> dict[str, object]:
    """For a run's metadata: the stray hours, where there are any."""
    stray = rule.of(lake).stray
    return {"stray_hours": len(stray), "stray": rule.listed(stray)} if stray else {}


def key_of(hour: dt.datetime) -> str:
    return hour.astimezone(dt.UTC).strftime(KEY_FORMAT)


def hour_of(key: str) -> dt.datetime:
    return dt.datetime.strptime(key, KEY_FORMAT).replace(tzinfo=dt.UTC)


def window_of(context) -> Window:
    """All partitions of the run as one window: of the first key to the end of the last one."""
    keys = context.partition_key_range
    return Window(hour_of(keys.start), hour_of(keys.end) + HOUR)


def range_tags(window: Window) -> dict[str, str]:
    """The tags that make one run of a window, as an asset backfill with BackfillPolicy.single_run sets them."""
    return {
        "dagster/asset_partition_range_start": key_of(window.start),
        "dagster/asset_partition_range_end": key_of(window.end - HOUR),
    }
