"""The `glasshouse` command: arguments in, one call into a room, a table out.

Here: names, help and error texts of the commands. Not here: work. Each command imports what it needs when it runs, so
that `glasshouse --help` answers at once and `glasshouse label` starts no Spark.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated, Optional

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Glasshouse: events to labels, metrics and models.")

INT64 = {"min": -(2**63), "max": 2**63 - 1}  # of a user or a note
Mapping = Annotated[Optional[Path], typer.Option(help="TOML file that says how a log that is not ours becomes events; or kuairand, deskdrop, mind, ebnerd.")]


@app.command()
def label(
    logs: Annotated[list[Path], typer.Argument(help="JSON lines, CSV/TSV (plain or .gz) or Parquet.", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Option(help="Folder for the Parquet files.")],
    mapping: Mapping = None,
    window: Annotated[Optional[str], typer.Option(help="Length of a session window, in place of GLASSHOUSE_WINDOW and the rules file's (20m).")] = None,
) -> None:
    """Label a bounded log: sessions, orphans and quarantine as Parquet, and a summary."""
    from assets.attribution.label import label_files
    from assets.attribution.rules import parse_duration
    from dagster_project import show

    rules = _settings().rules
    if window is not None:
        try:
            rules = replace(rules, window=parse_duration(window))
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--window") from None
    with show.working("labeling"):
        summary = label_files(logs, out, _mapping(mapping), rules)
    show.label_summary(summary, out)


@app.command()
def demo(
    log: Annotated[Optional[Path], typer.Option(help="A log of one's own instead of generated traffic.", exists=True)] = None,
    mapping: Mapping = None,
    hours: Annotated[int, typer.Option(help="Hours of traffic to generate.", min=1, max=50_000)] = 48,
    events: Annotated[int, typer.Option(help="Events to generate, about.", min=1, max=10**10)] = 2_000_000,
    seed: Annotated[int, typer.Option(help="Seed of the traffic.", min=0, max=2**63 - 1)] = 7,
) -> None:
    """Run the whole line: events, labels, profiles, samples, model, ClickHouse."""
    from dagster_project import demo as line
    from dagster_project.processes import leaving_nothing, registered

    settings = _settings()
    with registered(settings.home, "demo"), leaving_nothing(settings.home, "demo"):
        line.run(settings, log, mapping, hours, events, seed)


@app.command()
def up() -> None:
    """Keep ClickHouse's endpoint, traffic, the live labeler, orders, Dagster and Streamlit up; Ctrl-C stops all."""
    from dagster_project import services

    raise SystemExit(services.up(_settings()))


@app.command()
def down() -> None:
    """Stop everything that runs in this home, whoever started it: asked to, then killed."""
    from dagster_project import processes, show

    settings = _settings()
    locks = [settings.clickhouse_folder / "endpoint.lock", Path(str(settings.lake.root)) / "_live" / "lock"]
    if not processes.down(settings.home, locks, show.plain):
        show.plain(f"nothing runs in {settings.home}")


@app.command()
def clickhouse(
    url: Annotated[bool, typer.Option("--url", help="Print the endpoint's URL with the writer's password, and end.")] = False,
    reader: Annotated[bool, typer.Option("--reader", help="With --url: the password of a reader.")] = False,
) -> None:
    """Serve the embedded ClickHouse of this home on loopback."""
    from assets.metrics import endpoint
    from dagster_project import processes

    settings = _settings()
    if url:
        user = "reader" if reader else "writer"
        print(endpoint.running(settings.clickhouse_folder, user) or settings.embedded_clickhouse(user))
        return
    reads = [settings.lake.root] if settings.lake.log is not None else []
    with processes.registered(settings.home, "clickhouse"):
        endpoint.serve(
            str(settings.clickhouse_folder), port=settings.clickhouse_port, confined=True, reads=reads,
            writes=[processes._folder(settings.home)],
        )  # fmt: skip


Heartbeat = Annotated[Optional[Path], typer.Option(hidden=True, help="File to touch while all is well; `up` looks at it.")]


@app.command()
def traffic(heartbeat: Heartbeat = None) -> None:
    """Let generated traffic land in real time, until stopped."""
    from dagster_project import services
    from dagster_project.processes import registered

    settings = _settings()
    with registered(settings.home, "traffic"):
        services.traffic(settings, heartbeat)


@app.command()
def live(
    take_over: Annotated[bool, typer.Option(help="of a labeler that hangs: it can no longer commit")] = False,
    reset_watermark: Annotated[bool, typer.Option(help="set a watermark back that a wrong clock has moved ahead of this machine's")] = False,
    heartbeat: Heartbeat = None,
) -> None:
    """Label what lands, in micro-batches, until stopped (after the batch in hand)."""
    from dagster_project import services
    from dagster_project.processes import registered

    settings = _settings()
    with registered(settings.home, "live"):
        services.live(settings, take_over, reset_watermark, heartbeat)


@app.command()
def orders(
    follow: Annotated[bool, typer.Option(help="go on until stopped, every GLASSHOUSE_ORDERS_INTERVAL")] = False,
    heartbeat: Heartbeat = None,
) -> None:
    """Take the shop's changes that have landed, attribute the orders to notes, and show the totals."""
    from assets.orders import reconcile, rules, take
    from dagster_project import services, show
    from dagster_project.processes import registered

    settings = _settings()
    if follow:
        with registered(settings.home, "orders"):
            services.orders(settings, heartbeat)
        return
    chosen = rules.load_rules(settings.order_rules)
    with show.working("taking orders"):
        taken = take.take(settings.lake, settings.orders, chosen)
    show.orders(reconcile.summary(settings.lake), reconcile.reconcile(settings.lake, chosen), taken)


@app.command()
def check() -> None:
    """Read every file of the lake and list those that are damaged or gone; nothing is changed. Exits with 1 where there are any."""
    from assets import check
    from dagster_project import show

    lake = _settings().lake
    with show.working("reading the lake"):
        found = check.check(lake)
    if not show.checked(lake.root, found):
        raise typer.Exit(1)


backfill = typer.Typer(no_args_is_help=True, help="Recompute hours: look at what would change, swap it in everywhere, take it back.")
app.add_typer(backfill, name="backfill")
PlanId = Annotated[str, typer.Argument(metavar="PLAN", help="As `backfill plan` and `backfill list` name it.")]


@backfill.command("plan")
def backfill_plan(
    start: Annotated[str, typer.Option("--from", help="First hour, like 2026-01-31T05:00 (UTC).")],
    end: Annotated[str, typer.Option("--to", help="The hour after the last.")],
    rules: Annotated[Optional[Path], typer.Option(help="Rules file; default: those in force.", exists=True, dir_okay=False)] = None,
) -> None:
    """Recompute the hours beside the tables and show what would change; nothing is written to them."""
    from assets.attribution.rules import load_rules
    from assets.backfill.plan import plan
    from dagster_project import show

    settings = _settings()
    chosen = load_rules(rules) if rules else settings.rules
    with show.progressing() as progress:
        found = plan(settings.lake, _range(start, end), chosen, progress=progress)
    show.backfill_report({**found, "status": "planned"})


@backfill.command("apply")
def backfill_apply(plan: PlanId) -> None:
    """Swap a plan's rows in, in Delta at one moment and then in ClickHouse; again after a crash, it finishes."""
    from assets.backfill.swap import apply

    _swap(apply, plan)


@backfill.command("undo")
def backfill_undo(plan: PlanId) -> None:
    """Put the rows back that were there before the plan was applied."""
    from assets.backfill.swap import undo

    _swap(undo, plan)


def _swap(verb, plan: str) -> None:
    from assets.metrics.client import masked
    from dagster_project import show

    settings = _settings()
    client = _clickhouse(settings)
    with show.progressing() as progress:
        done = verb(settings.lake, plan, client, progress=progress)
    show.backfill_done(done, masked(settings.clickhouse) if client is None else None)


@backfill.command("list")
def backfill_list() -> None:
    """Plans that are kept, oldest first."""
    from assets.backfill import store
    from dagster_project import show

    show.backfills(store.listed(_settings().lake))


@backfill.command("show")
def backfill_show(plan: PlanId) -> None:
    """A plan's report once more."""
    from assets.backfill import store
    from dagster_project import show

    show.backfill_report(store.shown(_settings().lake, plan))


ranker = typer.Typer(no_args_is_help=True, help="Versions of the ranker: compare, let one serve, take it back.")
app.add_typer(ranker, name="ranker")
Version = Annotated[str, typer.Argument(metavar="VERSION", help="As `ranker versions` names it.")]
Why = Annotated[str, typer.Option(help="Kept in the history.")]


@ranker.command("train")
def ranker_train(
    start: Annotated[Optional[str], typer.Option("--from", help="First hour, like 2026-01-31T05:00 (UTC); default: the lake's first.")] = None,
    end: Annotated[Optional[str], typer.Option("--to", help="The hour after the last; default: all there are.")] = None,
    model: Annotated[Optional[str], typer.Option(help="shared_bottom, mmoe, ple, wide_deep, or a .toml of one's own.")] = None,
    resume: Annotated[Optional[str], typer.Option(metavar="RUN", help="Go on with a run that was killed, as it was begun.")] = None,
    start_from: Annotated[Optional[str], typer.Option(metavar="VERSION", help="Go on from a version's weights.")] = None,
) -> None:
    """Train a version on the samples of a range. Ctrl-C leaves the run to be resumed."""
    from assets.ranking import config, train
    from dagster_project import show

    settings = _settings()
    truth = settings.truth if settings.truth.is_dir() else None
    if resume:
        told = {"--from": start, "--to": end, "--model": model, "--start-from": start_from}
        if given := [name for name, value in told.items() if value]:
            raise typer.BadParameter(f"it goes on as it was begun; leave out {', '.join(given)}", param_hint="--resume")
        with show.training() as progress:
            metrics = train.resume(settings.lake, truth, resume, progress, settings.rules)
    else:
        window = _training_window(settings.lake, start, end)
        chosen = None
        if model or not start_from:  # a version to go on from brings its configuration along
            defaults = {"processes": settings.ranker_processes, "epochs": settings.ranker_epochs}
            chosen = config.load(model or config.DEFAULT_MODEL, **defaults)
        with show.training() as progress:
            metrics = train.train(settings.lake, truth, window, chosen, progress, settings.rules, start_from=start_from)
    show.trained(metrics)


def _training_window(lake, start: str | None, end: str | None):
    """The range, its open ends those of the samples there are."""
    from assets.hours import of
    from assets.ranking.config import RankerError

    hours = of(lake, "training_samples").regular if lake.exists("training_samples") else []
    if not hours:
        raise RankerError("`training_samples` is empty: materialize it, and what is upstream, for some hours first")
    return _range(start or f"{hours[0]:%Y-%m-%dT%H:%M}", end or f"{hours[-1] + timedelta(hours=1):%Y-%m-%dT%H:%M}")


@ranker.command("versions")
def ranker_versions() -> None:
    """The versions, oldest first: how good, of what, which one serves."""
    from assets.ranking import registry
    from dagster_project import show

    lake = _settings().lake
    found = [{"version": name, "config": registry.read_config(lake, name), "metrics": registry.read_metrics(lake, name),
              "check": registry.last_check(lake, name)} for name in registry.versions(lake)]  # fmt: skip
    show.ranker_versions(found, registry.serving(lake))


@ranker.command("show")
def ranker_show(version: Annotated[str, typer.Argument(help="A version; default: the one that serves.")] = "serving") -> None:
    """One version: heads, what it was made of, its verdict; and the history of what served."""
    from assets.ranking import registry
    from dagster_project import show

    lake = _settings().lake
    name = registry.exact(lake, version)
    show.ranker_version(name, registry.read_config(lake, name), registry.read_metrics(lake, name), registry.last_check(lake, name))
    show.ranker_history(registry.history(lake))


@ranker.command("check")
def ranker_check(version: Version) -> None:
    """Compare a version with the one that serves, on samples that neither was trained on; the verdict is kept."""
    from dagster_project import show

    if not show.ranker_verdict(_checked(version)):
        raise typer.Exit(1)


@ranker.command("promote")
def ranker_promote(
    version: Version,
    why: Why = "",
    anyway: Annotated[bool, typer.Option(help="Without asking the gate; say why.")] = False,
) -> None:
    """Let a version serve, if it is good enough (it is compared first). For notebooks' cells see `glasshouse promote`."""
    from assets.ranking import registry
    from dagster_project import show

    lake = _settings().lake
    if anyway and not why:
        raise typer.BadParameter("say why it shall serve without a check: --why TEXT", param_hint="--anyway")
    serves = registry.serving(lake)
    if registry.exact(lake, version) != serves and not anyway and not show.ranker_verdict(_checked(version)):
        show.console.print("\nIt does not serve; --anyway --why TEXT if it shall all the same")
        raise typer.Exit(1)
    show.ranker_moved(registry.promote(lake, version, why=why or "good enough", instead_of=serves))


@ranker.command("rollback")
def ranker_rollback(why: Why = "") -> None:
    """Let the version serve again that served before the present one was promoted."""
    from assets.ranking import registry
    from dagster_project import show

    show.ranker_moved(registry.rollback(_settings().lake, why=why or "not given"))


@ranker.command("score")
def ranker_score(
    notes: Annotated[list[int], typer.Argument(metavar="NOTE...", help="Ids of the notes.", **INT64)],
    user: Annotated[Optional[int], typer.Option(help="Id of the user; default: nobody is logged in.", **INT64)] = None,
    channel: Annotated[Optional[str], typer.Option(help="The surface.")] = None,
    device: Annotated[Optional[str], typer.Option(help="As the logs spell it.")] = None,
    version: Annotated[str, typer.Option(help="A version; default: the one that serves.")] = "serving",
) -> None:
    """Score notes for a user as of this hour: their value, and what each head adds to it."""
    from assets.ranking.serving import Ranker
    from dagster_project import show

    settings = _settings()
    with show.working("loading the features"):
        loaded = Ranker.load(settings.lake, version, weights=settings.ranker_value)
    show.ranker_scores(loaded.version, loaded.score(user, notes, {"channel": channel, "device": device}))


def _checked(version: str) -> dict:
    from assets.ranking import promotion
    from dagster_project import show

    settings = _settings()
    with show.working("comparing on held-out samples"):
        return promotion.check(settings.lake, version, promotion.load_limits(settings.ranker_limits)).as_dict()


def _range(start: str, end: str):
    from assets.events.contract import EARLIEST, LATEST
    from assets.lake import Window
    from dagster_project.settings import parse_hour

    bounds = []
    for option, text in (("--from", start), ("--to", end)):
        try:
            bounds.append(parse_hour(text))
        except ValueError:
            raise typer.BadParameter(f"not a full hour: {text!r}; write one like 2026-01-31T05:00 (UTC)", param_hint=option) from None
    if bounds[0] >= bounds[1]:
        raise typer.BadParameter("the range ends before it begins", param_hint="--to")
    # Who writes 1900 and 9999 means all there is.
    start, end = (min(max(bound, EARLIEST), LATEST) for bound in bounds)
    if start == end:
        raise typer.BadParameter(f"events lie in the years {EARLIEST.year} to {LATEST.year - 1}; write a range within them", param_hint="--from")
    return Window(start, end)


def _clickhouse(settings):
    """A client, or None where ClickHouse does not answer: Delta is the truth, and the same command again finishes it."""
    from assets.metrics.client import LOAD_S, ClickHouseDown, OtherHome, connect

    try:
        return connect(settings.clickhouse, timeout_s=LOAD_S, folder=settings.embedded_folder)
    except OtherHome:
        raise
    except ClickHouseDown:
        return None


@ranker.command("fresh")
def ranker_fresh(
    every: Annotated[Optional[str], typer.Option(help="Look again after so long, like 10s, until stopped; without it once.")] = None,
    longest: Annotated[int, typer.Option(help="Minutes of samples that make one version, at most.", min=1, max=60)] = 60,
    keep: Annotated[int, typer.Option(help="Versions of this loop that are kept.", min=2)] = 20,
) -> None:
    """Train the newest version on by every stretch of closed samples that it has not seen; a version each."""
    import datetime as dt

    from assets.attribution.rules import parse_duration
    from assets.ranking import fresh
    from dagster_project import services, show
    from dagster_project.processes import registered

    settings = _settings()
    config = fresh.FreshConfig(longest=dt.timedelta(minutes=longest), keep=keep)
    if every is None:
        done = fresh.once(settings.lake, config, settings.rules, show.fresh)
        if not done:
            show.console.print("no closed samples that the newest version has not seen")
        return
    try:
        seconds = parse_duration(every).total_seconds()
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--every") from None
    with registered(settings.home, "ranker-fresh"):
        fresh.follow(settings.lake, seconds, services.stop_on_signals(), config, settings.rules, show.fresh)


@app.command()
def tidy() -> None:
    """Compact small files, delete what no reader can need any more; safe while everything runs."""
    from assets.tidy import tidy as tidy_up
    from dagster_project import show

    settings = _settings()
    show.tidied(tidy_up(settings.lake, settings.keep))


@app.command()
def status() -> None:
    """What runs in this home, what the live labeler did last (watermark, lag, throughput, open sessions), and which files are not taken."""
    from assets import hours
    from assets.attribution import live as labeler
    from assets.events import intake, landing
    from assets.orders import files
    from dagster_project import processes, show

    settings = _settings()
    show.processes(processes.running(settings.home), processes.read_states(settings.home))
    show.live_status(labeler.status(settings.lake, settings.landing))
    show.repeated_keys(intake.repeated_keys(settings.lake))
    show.not_taken(settings.landing, landing.not_taken(settings.landing, settings.settle.total_seconds()))
    if settings.orders != settings.landing:
        show.not_taken(settings.orders, landing.not_taken(settings.orders, takes=files.named_so))
    show.warnings(hours.warnings(hours.of(settings.lake), datetime.now(timezone.utc)))


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="One query in Spark SQL; a table's name is the lake's table. - reads it from the standard input.")],
    moment: Annotated[Optional[int], typer.Option(help="the lake as it was at a moment that is still kept; default: as it is now", min=0)] = None,
    csv: Annotated[bool, typer.Option("--csv", help="all rows as CSV, for a file or a pipe; else the first 100 as a table")] = False,
) -> None:
    """Ask the lake, by the engine that the SQL jobs have (GLASSHOUSE_SQL_ENGINE)."""
    import sys

    from assets.notebook.sql import LakeSql
    from dagster_project import show

    settings = _settings()
    found = LakeSql(settings.lake.pinned(moment), settings.engines, settings.rules).query(sys.stdin.read() if query == "-" else query)
    show.rows(found, csv)


@app.command()
def notebook() -> None:
    """Open JupyterLab on notebooks/, with SQL cells on the lake and on ClickHouse."""
    from dagster_project import services
    from dagster_project.processes import registered

    settings = _settings()
    with registered(settings.home, "notebook"):
        raise SystemExit(services.notebook(settings))


@app.command()
def promote(
    notebook: Annotated[Path, typer.Argument(help="The notebook.", exists=True, dir_okay=False)],
    cell: Annotated[str, typer.Argument(help="The SQL cell: its number as shown, or its tag.")],
    name: Annotated[Optional[str], typer.Option(help="Name of the job and its table; default: the cell's tag.")] = None,
) -> None:
    """Turn a notebook's SQL cell that has proved itself into a job: sql/lake/NAME.sql and a row test begun.

    Versions of the ranker are promoted by `glasshouse ranker promote`.
    """
    from assets.notebook.promote import promote as promote_cell
    from dagster_project import show
    from dagster_project.settings import ROOT

    show.written(promote_cell(notebook, cell, name, ROOT))


@app.command()
def settings() -> None:
    """List the GLASSHOUSE_* variables, their values and what they do."""
    from dagster_project import show
    from dagster_project.settings import listed

    _settings()  # a wrong value is an error here too
    show.settings(listed())


def _settings():
    from dagster_project.settings import load

    return load()


def _mapping(path: Path | None):
    from assets.events.mapping import load_mapping

    return load_mapping(path) if path else None


def main() -> None:
    """Entry point: errors that a person can act on are one line, anything else is a traceback (a bug)."""
    import signal

    from assets.memory import give_back
    from dagster_project.processes import heard
    from dagster_project.show import expected_errors

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    give_back()
    for number in filter(heard, (signal.SIGTERM, signal.SIGHUP)):  # who is asked to end takes back what he has begun; loops have their own way
        signal.signal(number, leave)
    with expected_errors():
        app()
