"""The main job from an empty folder: `make demo`, on generated traffic or on a log of one's own.

Here: the order of things and the table at the end. Not here: any computation; every step is a room's, the line itself is
the Dagster job `line`, launched as one run over the whole range and kept for the UI.
"""

from __future__ import annotations

import datetime as dt
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from assets.lake import Window
from dagster_project import instance, services, show
from dagster_project.settings import Settings

MANIFEST = "demo.json"


class DemoError(Exception):
    """The demo cannot go on; the message says why and what to do."""


def run(settings: Settings, log: Path | None, mapping: Path | None, hours: int, events: int, seed: int) -> None:
    """Generate or take in the log, run the line over its hours, print what came out."""
    say = show.Steps()
    started = time.monotonic()
    settings.home.mkdir(parents=True, exist_ok=True)
    say(f"home: {settings.home}")
    window = _own_log(settings, log, mapping, say) if log else _traffic(settings, hours, events, seed, say)
    settings = replace(settings, first_hour=window.start)
    with clickhouse(settings, say) as url:
        settings = replace(settings, clickhouse_url=url)
        _line(settings, window, say)
        _report(settings, window, time.monotonic() - started)


def _traffic(settings: Settings, hours: int, events: int, seed: int, say) -> Window:
    """Generate the demo's traffic once; a second start finds it and goes on with it."""
    manifest = settings.home / MANIFEST
    if manifest.exists():
        found = json.loads(manifest.read_text())
        window = Window(dt.datetime.fromisoformat(found["start"]), dt.datetime.fromisoformat(found["end"]))
        if (found["hours"], found["events"], found["seed"]) != (hours, events, seed):
            raise DemoError(
                f"{settings.home} holds a demo of other traffic ({found}); remove that folder, or set GLASSHOUSE_HOME"
            )
        say(f"traffic of seed {seed} is here already: [{window.start:%Y-%m-%d %H:%M}, {window.end:%Y-%m-%d %H:%M}) UTC")
        return window
    from assets.events import generator

    # Ends with the last full hour, so that the pages show yesterday and today and `make up` goes on from there.
    end = dt.datetime.now(dt.UTC).replace(minute=0, second=0, microsecond=0)
    window = Window(end - dt.timedelta(hours=hours), end)
    config = generator.TrafficConfig(seed=seed, start=window.start, hours=hours, events=events)
    for folder in (settings.landing, settings.truth):
        shutil.rmtree(folder, ignore_errors=True)  # only what a killed start of this very step left
    say(f"generating about {events:,} events over {hours} hours")
    summary = generator.generate(config, settings.landing, settings.truth)
    say(f"generated {summary['events']:,} events into {settings.landing}")
    text = {"start": window.start.isoformat(), "end": window.end.isoformat(), "hours": hours, "events": events, "seed": seed}
    manifest.write_text(json.dumps(text))
    return window


def _own_log(settings: Settings, log: Path, mapping_file: Path | None, say) -> Window:
    """Take a log of one's own into the lake; the hours it touches are the range of the run."""
    from assets.events import intake
    from assets.events.mapping import load_mapping

    say(f"reading {log}")
    landed = intake.land(settings.lake, [log], load_mapping(mapping_file) if mapping_file else None)
    say(f"{landed.rows:,} rows landed" if landed.files_new else "the log is in the lake already")
    hours = settings.lake.hours("raw_events")
    if not hours:
        raise DemoError(f"{log} holds no rows")
    return Window(hours[0], hours[-1] + dt.timedelta(hours=1))


@contextmanager
def clickhouse(settings: Settings, say) -> Iterator[str]:
    """URL of a ClickHouse that holds this home's metrics: the server, a running endpoint, or one started for now."""
    from assets.metrics import endpoint

    if settings.clickhouse_url:
        yield settings.clickhouse_url
        return
    if url := endpoint.running(settings.clickhouse_folder):
        say(f"ClickHouse's endpoint is running at {url}")
        yield url
        return
    port = settings.clickhouse_port if services.port_is_free(settings.clickhouse_port) else services.free_port()
    command = [str(services.BIN / "glasshouse"), "clickhouse"]
    env = {**services.environment(settings), "GLASSHOUSE_CLICKHOUSE_PORT": str(port)}
    process = subprocess.Popen(command, env=env, start_new_session=True)  # Ctrl-C goes to us; we stop it when done
    try:
        yield endpoint.wait_until_ready(f"http://127.0.0.1:{port}", process)
    finally:
        process.terminate()
        process.wait(services.STOP_SECONDS)


def _line(settings: Settings, window: Window, say) -> None:
    from dagster_project import jobs

    hours = len(window.hours)
    say(f"running the line over {hours} hourly partitions, one Dagster run")
    with instance.open_instance(settings) as dagster, _following(dagster, say):
        result = jobs.run_line(dagster, window, settings=settings)
    if not result.success:
        raise DemoError(
            f"the run {result.run_id} failed, see above; `make up` shows it at {services.addresses(settings)['Dagster']}/runs"
        )
