"""The two logs on which the ladder is climbed: generated traffic, whose truth is known, and the KuaiRand subset.

Here: finding a lake that has them, or making one under build/bench, once for a size. Not here: the ladder.
"""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from assets.attribution.rules import Rules
from assets.engines.choice import Engines
from assets.lake import Lake, Window

START = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
EVENTS_PER_HOUR = 2_000_000 / 48  # as the demo's
HOURS = 48
SEED = 7
Say = Callable[[str], None]


@dataclass(frozen=True)
class Log:
    """A lake with training_samples over `window`. truth: the folder of the generator's probabilities, or None."""

    name: str
    lake: Lake
    window: Window
    truth: Path | None


def demo(home: Path) -> Log | None:
    """The demo's own traffic, where `make demo` has been run; never what a log of one's own or `make up` added."""
    from assets.ranking.samples import TABLE

    manifest, lake = home / "demo.json", Lake(str(home / "lake"))
    if not manifest.exists() or not lake.exists(TABLE):
        return None
    said = json.loads(manifest.read_text())
    window = Window(dt.datetime.fromisoformat(said["start"]), dt.datetime.fromisoformat(said["end"]))
    return Log("generated", lake, window, home / "truth")


def generated(root: Path, hours: int, scale: float, seed: int, say: Say) -> Log:
    """`hours` hours of traffic at `scale` times the demo's rate, through the whole line, made if it is not there."""
    from assets.events import generator, landing

    window = Window(START, START + dt.timedelta(hours=hours))
    folder = root / f"ladder-{hours}h-{scale:g}-seed{seed}"
    if not folder.exists():
        part = _beginning(folder)
        rate = EVENTS_PER_HOUR * scale
        say(f"generating {rate * hours:,.0f} events over {hours} hours, once; {folder} keeps them")
        config = generator.TrafficConfig(seed=seed, start=START, hours=hours, events_per_hour=rate, tail=False)
        generator.generate(config, part / "landing", part / "truth")
        for batch in landing.batches(part / "landing"):
            _line(Lake(str(part / "lake")), batch.paths, None, window, say)
        part.rename(folder)
    return Log("generated", Lake(str(folder / "lake")), window, folder / "truth")


def kuairand(root: Path, log: Path, say: Say) -> Log:
    """The KuaiRand subset, through the whole line, made if it is not there. Raises FileNotFoundError without the file."""
    from assets.events.mapping import load_mapping
    from assets.ranking.ladder.climb import span_of

    folder = root / "ladder-kuairand"
    if not log.exists():
        raise FileNotFoundError(f"the KuaiRand subset is not at {log}; name it with --kuairand, or leave it out: --data generated")
    if not folder.exists():
        part = _beginning(folder)
        say(f"taking in {log.name}, once; {folder} keeps it")
        _line(Lake(str(part / "lake")), [log], load_mapping("kuairand"), None, say)
        part.rename(folder)
    lake = Lake(str(folder / "lake"))
    return Log("kuairand", lake, span_of(lake), None)


def _beginning(folder: Path) -> Path:
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)  # what a killed start left
    part.mkdir(parents=True)
    return part


def _line(lake: Lake, paths: list[Path], mapping, window: Window | None, say: Say) -> None:
    """From files to training_samples with the line's own functions, without Dagster. window: None for all that landed."""
    from assets.attribution.label import label_window
    from assets.events import intake
    from assets.ranking.samples import TABLE
    from assets.samples.sql_job import load_jobs, run_job
    from assets.spark import get_spark
    from dagster_project.line_assets import TABLES
    from dagster_project.sql_jobs import FOLDER

    landed = intake.land(lake, paths, mapping)
    say(f"{landed.rows:,} rows landed; labeling them")
    # One hour more: what follows a display late in its hour lies in the next one.
    window = window or Window(landed.hours[0], landed.hours[-1] + dt.timedelta(hours=2))
    rules = Rules()
    intake.accept(lake, window, rules)
    label_window(lake, window, rules)
    jobs = {job.name: job for job in load_jobs(FOLDER, TABLES)}
    wanted = _upstream(TABLE, {name: job.inputs for name, job in jobs.items()})
    for name in (name for name in jobs if name in wanted):
        say(f"running {name} over {len(window.hours)} hours")
        run_job(jobs[name], lake, Engines(spark=get_spark), window, rules)


def _upstream(name: str, inputs: dict[str, tuple[str, ...]]) -> set[str]:
    """The job and all jobs that it reads from, directly or not."""
    return {name}.union(*(_upstream(other, inputs) for other in inputs[name] if other in inputs))
