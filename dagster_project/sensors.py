"""What starts a run without a clock: files that land, samples that have closed.

Here: looking. Not here: taking files in (assets/events/). The cursor is only a hint that saves runs: landing is
idempotent, and what has been taken in is known by the lake.
"""

import datetime as dt
import json
from pathlib import Path

import dagster as dg

from assets.events.landing import batches, logs
from assets.events.names import shown
from dagster_project.jobs import FRESH, LAND
from dagster_project.partitions import key_of
from dagster_project.settings import Settings


def _changed(path: Path) -> int:
    """When a file was changed last (ns); 0 where it is gone."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _why_none(settings: Settings) -> str:
    growing = len(logs(settings.landing))
    if not growing:
        return f"no logs in {settings.landing}"
    named = f"{growing} logs" if growing > 1 else "1 log"
    return f"{named} in {settings.landing}, written to less than {settings.settle.total_seconds():g} s ago: perhaps still growing"


def sensors(jobs: dict[str, object], settings: Settings) -> list[dg.SensorDefinition]:
    @dg.sensor(
        name="landing_folder",
        job=jobs[LAND],
        minimum_interval_seconds=30,
        description="Takes in new files of the landing folder. Off by default: the live labeler reads it itself.",
    )
    def landing_folder(context: dg.SensorEvaluationContext):
        paths = [path for batch in batches(settings.landing, settings.settle.total_seconds()) for path in batch.paths]
        stamps = sorted((_changed(path), shown(path)) for path in paths)
        if not stamps:
            return dg.SkipReason(_why_none(settings))
        newest = json.dumps([len(stamps), *stamps[-1]])
        if newest == context.cursor:
            return dg.SkipReason("no new files")
        context.update_cursor(newest)
        now = dt.datetime.now(dt.UTC).replace(minute=0, second=0, microsecond=0)
        return dg.RunRequest(run_key=newest, partition_key=key_of(now))

    @dg.sensor(
        name="closed_samples",
        job=jobs[FRESH],
        minimum_interval_seconds=60,
        description="Trains the ranker on when samples have closed. Off by default: `glasshouse ranker fresh` does it too.",
    )
    def closed_samples(context: dg.SensorEvaluationContext):
        from assets.ranking import fresh

        if fresh.head(settings.lake) is None:
            return dg.SkipReason("there is no version of the ranker to go on from: materialize `ranker`")
        found = fresh.next_stretch(settings.lake, fresh.FreshConfig(), settings.rules)
        if found is None:
            return dg.SkipReason("no closed samples that the newest version has not seen")
        version, stretch = found
        return dg.RunRequest(run_key=f"{version} {stretch.since.isoformat()} {stretch.cutoff.isoformat()}")

    return [landing_folder, closed_samples]
