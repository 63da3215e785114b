"""The main job from an empty folder: `make demo`, on generated traffic or on a log of one's own.

Here: the order of things and the table at the end. Not here: any computation; every step is a room's, the line itself is
the Dagster job `line`, launched as one run over the whole range and kept for the UI.
"""

from __future__ import annotations

import datetime as dt
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import rich.markup

from assets import hours as rule
from assets.commits import write_durably
from assets.lake import Window
from dagster_project import instance, services, show
from dagster_project.settings import ROOT, Settings

if TYPE_CHECKING:
    from dagster import DagsterInstance, EventLogEntry

MANIFEST, BEGUN = "demo.json", "demo.json.begun"
TRAFFIC = 2  # of what the generator writes: 2 with products in orders, and abusers
POLL_SECONDS = 0.5
QUIET_SECONDS = 5  # between two lines of a step's own progress
COUNTED = ("raw_events", "events", "quarantine", "impression_sessions", "click_sessions", "orphan_actions")


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
        here = replace(settings, clickhouse_url=url)
        repeats = _line(here, window, say)
        _report(here, window, repeats, time.monotonic() - started)
    home = "" if settings.home.name == "demo" else f"GLASSHOUSE_HOME={show.short(settings.home)} "
    show.addresses(services.addresses(settings), f"`{home}make up` serves it all:")


def _traffic(settings: Settings, hours: int, events: int, seed: int, say) -> Window:
    """Generate the demo's traffic once; a second start finds it and goes on with it."""
    manifest, begun = settings.home / MANIFEST, settings.home / BEGUN
    wanted = {"hours": hours, "events": events, "seed": seed, "traffic": TRAFFIC}
    if manifest.exists():
        window = _asked_before(manifest, wanted)
        say(f"traffic of seed {seed} is here already: [{window.start:%Y-%m-%d %H:%M}, {window.end:%Y-%m-%d %H:%M}) UTC")
        return window
    _refuse_beside_live(settings)
    if begun.exists():  # a start that was killed: the same hours again make the same files again
        window = _asked_before(begun, wanted)
    else:
        # Ends with the last full hour, so that the pages show yesterday and today and `make up` goes on from there.
        end = dt.datetime.now(dt.UTC).replace(minute=0, second=0, microsecond=0)
        window = Window(end - dt.timedelta(hours=hours), end)
        said = {"start": window.start.isoformat(), "end": window.end.isoformat(), **wanted}
        write_durably(begun, json.dumps(said).encode())
    from assets.events import generator

    config = generator.TrafficConfig(
        seed=seed, start=window.start, hours=hours, events_per_hour=events / hours, tail=False, abusers=services.ABUSERS
    )
    say(f"generating about {events:,} events over {hours} hours")
    summary = generator.generate(config, settings.landing, settings.truth)
    say(f"generated {summary['events']:,} events into {settings.landing}")
    begun.rename(manifest)
    return window


def _asked_before(path: Path, wanted: dict[str, int]) -> Window:
    """The window of the traffic that was asked for before. Raises DemoError where something else is asked for now."""
    found = json.loads(path.read_text())
    if found.get("traffic") != TRAFFIC:
        raise DemoError(f"{path.parent} holds traffic that an older Glasshouse made, without what is shown today; remove that folder")
    if any(found[name] != value for name, value in wanted.items()):
        raise DemoError(f"{path.parent} holds a demo of other traffic ({found}); remove that folder, or set GLASSHOUSE_HOME")
    return Window(dt.datetime.fromisoformat(found["start"]), dt.datetime.fromisoformat(found["end"]))


def _refuse_beside_live(settings: Settings) -> None:
    from assets.attribution import state

    with state.idle(settings.lake) as idle:
        if not idle:
            raise DemoError(
                f"a live labeler works on {settings.home} (`make up`?) and would take the demo's two days for late events; stop it, "
                "then run `make demo`"
            )


def _own_log(settings: Settings, log: Path, mapping_file: Path | None, say) -> Window:
    """Take a log of one's own into the lake; the hours it touches are the range of the run."""
    from assets.events import intake
    from assets.events.mapping import load_mapping

    say(f"reading {log}")
    landed = intake.land(settings.lake, [log], load_mapping(mapping_file) if mapping_file else None)
    say(f"{landed.rows:,} rows landed" if landed.files_new else "the log is in the lake already")
    settings.own_log.write_text(f"{log}\n")
    found, now = rule.of(settings.lake, "raw_events"), dt.datetime.now(dt.UTC)
    for warning in rule.warnings(found, now):
        say(warning)
    hours = rule.newest(found, now)[0]
    if not hours:
        raise DemoError(f"{log} holds no rows" if not found.all else f"{log} holds no rows of hours that have begun by this machine's clock")
    # One hour more: what follows a display late in its hour lies in the next one.
    return Window(hours[0], hours[-1] + dt.timedelta(hours=2))


@contextmanager
def clickhouse(settings: Settings, say: show.Steps) -> Iterator[str]:
    """URL of a ClickHouse that holds this home's metrics: the server, a running endpoint, or one started for now."""
    from assets.metrics import endpoint
    from assets.metrics.client import masked

    if settings.clickhouse_url:
        yield settings.clickhouse_url
    elif url := endpoint.running(settings.clickhouse_folder):
        say(f"ClickHouse's endpoint is running at {masked(url)}")
        yield url
    else:
        with endpoint.started(settings.clickhouse_folder) as url:
            yield url


def _line(settings: Settings, window: Window, say: show.Steps) -> int:
    """Run the line over the window, as one run; returns how many events intake dropped as repeats."""
    from dagster_project import jobs
    from dagster_project.line_assets import COUNTED as COUNTED_CHECK

    say(f"running the line over {len(window.hours)} hourly partitions, as one Dagster run")
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with instance.open_instance(settings) as dagster, _following(dagster, say):
        result = jobs.run_line(dagster, window, settings=settings, run_config=quiet)
    if not result.success and not _only_not_good_enough(result):
        raise DemoError(
            f"the run {result.run_id} failed, see above; `make up` shows it at {services.addresses(settings)['Dagster']}/runs"
        )
    (counted,) = (check for check in result.get_asset_check_evaluations() if check.check_name == COUNTED_CHECK)
    return counted.metadata["repeats"].value


def _only_not_good_enough(result) -> bool:
    """Whether all that failed is the ranker's gate: everything else is there, and an earlier version serves on, or none."""
    from dagster_project.ranker_assets import GOOD_ENOUGH, RANKER

    return {event.step_key for event in result.all_events if event.is_step_failure} == {f"{RANKER}_{GOOD_ENOUGH}"}


@contextmanager
def _following(dagster: DagsterInstance, say: show.Steps) -> Iterator[None]:
    """Tell of the newest run while it goes on: a line for each step and check, the steps' own progress now and then."""
    follower = _Follower(dagster, say)
    done = threading.Event()

    def watch() -> None:
        while not done.wait(POLL_SECONDS):
            follower.look()
        follower.look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class _Follower:
    """Reads the log of the first run that appears after its making."""

    def __init__(self, dagster: DagsterInstance, say: show.Steps) -> None:
        self.dagster, self.say = dagster, say
        self.before = {record.dagster_run.run_id for record in dagster.get_run_records(limit=1)}
        self.run_id: str | None = None
        self.cursor: str | None = None
        self.begun: dict[str, float] = {}
        self.spoke = 0.0

    def look(self) -> None:
        if self.run_id is None:
            found = [record.dagster_run.run_id for record in self.dagster.get_run_records(limit=1)]
            if not found or found[0] in self.before:
                return
            self.run_id = found[0]
        while True:
            page = self.dagster.get_records_for_run(self.run_id, cursor=self.cursor, limit=1000)
            self.cursor = page.cursor
            for record in page.records:
                self._tell(record.event_log_entry)
            if not page.has_more:
                return

    def _tell(self, entry: EventLogEntry) -> None:
        step, event = entry.step_key, entry.dagster_event
        if event is None:
            # A step's own words: the first at once, then one every few seconds.
            if step and entry.timestamp - self.spoke > QUIET_SECONDS:
                self.spoke = entry.timestamp
                self.say(f"    [dim]{step}: {_one_line(entry.user_message)}[/dim]")
        elif event.is_step_start:
            self.begun[step] = entry.timestamp
        elif event.is_step_success:
            self.say(f"  [green]✓[/green] {step} [dim]({entry.timestamp - self.begun.get(step, entry.timestamp):.1f} s)[/dim]")
        elif event.is_step_failure:
            self.say(f"  [red]✗[/red] {step}: {_one_line(event.step_failure_data.error_display_string, 2000)}")
        elif event.event_type_value == "ASSET_CHECK_EVALUATION" and not event.event_specific_data.passed:
            check = event.event_specific_data
            self.say(f"  [red]✗ check {check.check_name}[/red] on {check.asset_key.to_user_string()}: {check.metadata}")


def _one_line(text: str, length: int = 150) -> str:
    return rich.markup.escape(" ".join(text.split())[:length])


def _report(settings: Settings, window: Window, repeats: int, seconds: float) -> None:
    """The table at the end: what went in, what came out, how well the model ranks, where to look."""
    from assets.counts import rows
    from assets.metrics.client import connect
    from assets.ranking import registry

    lake = settings.lake
    count = {name: rows(lake, name, window) for name in COUNTED}
    feed = connect(settings.clickhouse, read_only=True).query(
        (ROOT / "sql" / "clickhouse" / "queries" / "demo_summary.sql").read_text(),
        parameters={"from": window.start, "to": window.end},
    ).first_row  # fmt: skip
    show.table(
        "From log to labels",
        {
            "hours": len(window.hours),
            "raw rows in": count["raw_events"],
            "events accepted": count["events"],
            "repeats dropped": repeats,
            "quarantined": count["quarantine"],
            "impression sessions (click samples)": count["impression_sessions"],
            "click sessions (engagement samples)": count["click_sessions"],
            "orphan actions": count["orphan_actions"],
            "daily active users, last day": feed[0],
            "displays": feed[1],
            "CTR (displays clicked)": f"{feed[2]:.2%}",
            "seconds, all in all": round(seconds, 1),
        },
    )
    from assets.orders import reconcile

    if settings.orders.is_dir():
        show.table("What the notes sold", show.order_figures(reconcile.summary(lake)))
    _report_spam(settings, window)
    version = registry.latest(lake)
    metrics = registry.read_metrics(lake, version)
    show.table(
        f"The ranker, version {version}: held-out AUC per head",
        [(name, head["positives"], head["auc"], head["truth_auc"]) for name, head in metrics["heads"].items()],
        ("head", "positives", "AUC", "AUC of the truth"),
    )
    serves = registry.serving(lake)
    if serves != version:
        reasons = "; ".join((registry.last_check(lake, version) or {}).get("reasons", []))
        show.console.print(f"\nIt does not serve ({serves or 'no version'} does): {reasons or 'not checked'}")


def _report_spam(settings: Settings, window: Window) -> None:
    """Which accounts the spam rules flag and, where abusers were planted, how many of those they are."""
    from assets import spam

    found = spam.measure(settings.lake, window, settings.truth)
    if found is None:
        accounts = settings.lake.read(spam.TABLE, window, ["user_id"])["user_id"]
        show.table("Spam rules", {"accounts flagged": len(accounts.unique())})
    else:
        show.spam(found)
