"""When jobs run by the clock: each hour once its labels are settled, the check of labels and the ranker once a day.

Here: times. Not here: what runs (jobs.py). Schedules start stopped, turn them on in the UI; but for the
housekeeping, without which live batches would leave thousands of small files.
"""

import datetime as dt

import dagster as dg

from assets.attribution.rules import Rules
from assets.lake import Window
from dagster_project.jobs import AFTER_LABELS, CHECK, CHECK_ENGINES, TIDY, TRAIN
from dagster_project.partitions import HOUR, key_of, known_hours, range_tags
from dagster_project.settings import Settings


def settled_after(rules: Rules) -> dt.timedelta:
    """How long after its end an hour's labels can still change: 2 W + delay (docs/attribution.md)."""
    return 2 * rules.window + rules.delay


def newest_settled(now: dt.datetime, rules: Rules) -> dt.datetime:
    """The newest hour whose labels cannot change any more."""
    latest_end = (now - settled_after(rules)).astimezone(dt.UTC)
    return latest_end.replace(minute=0, second=0, microsecond=0) - HOUR


def minute_of_hour(rules: Rules) -> int:
    """The first full minute of an hour at which one more hour has settled."""
    minutes = -(-settled_after(rules) // dt.timedelta(minutes=1))
    return minutes % 60


def schedules(jobs: dict[str, object], settings: Settings) -> list[dg.ScheduleDefinition]:
    @dg.schedule(
        name="hourly_after_labels",
        job=jobs[AFTER_LABELS],
        cron_schedule=f"{minute_of_hour(settings.rules)} * * * *",
        execution_timezone="UTC",
        description="Materializes what follows from the labels of the newest settled hour.",
    )
    def hourly_after_labels(context: dg.ScheduleEvaluationContext):
        hour = newest_settled(context.scheduled_execution_time, settings.rules)
        if hour not in known_hours(settings.lake):
            return dg.SkipReason(f"the lake holds no events of {key_of(hour)}")
        return dg.RunRequest(run_key=key_of(hour), partition_key=key_of(hour))

    @dg.schedule(
        name="daily_label_check",
        job=jobs[CHECK],
        cron_schedule="10 3 * * *",
        execution_timezone="UTC",
        description="Compares the labels of the 24 newest settled hours with a recompute, as one run.",
    )
    def daily_label_check(context: dg.ScheduleEvaluationContext):
        newest = newest_settled(context.scheduled_execution_time, settings.rules)
        last = Window(newest - 23 * HOUR, newest + HOUR)
        hours = [hour for hour in known_hours(settings.lake) if last.start <= hour < last.end]
        if not hours:
            return dg.SkipReason(f"the lake holds no events from {key_of(last.start)} to {key_of(newest)}")
        return dg.RunRequest(run_key=key_of(newest), tags=range_tags(Window(hours[0], hours[-1] + HOUR)))

    daily = dg.ScheduleDefinition(
        name="daily_ranker",
        job=jobs[TRAIN],
        cron_schedule="30 2 * * *",
        execution_timezone="UTC",
        description="Trains a new version of the ranker.",
    )
    engines = [dg.ScheduleDefinition(
        name="daily_engines_check",
        job=jobs[CHECK_ENGINES],
        cron_schedule="40 3 * * *",
        execution_timezone="UTC",
        description="Asks Spark what the embedded SQL engine answered for the newest hour of each job.",
    )] if CHECK_ENGINES in jobs else []  # fmt: skip
    tidy = dg.ScheduleDefinition(
        name="hourly_tidy",
        job=jobs[TIDY],
        cron_schedule="50 * * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Compacts the small files of live batches and deletes what no reader can need any more.",
    )
    return [hourly_after_labels, daily_label_check, *engines, daily, tidy]
