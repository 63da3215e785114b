"""What the command line prints: tables, progress and one-line errors.

Here: layout and wording on a terminal. Not here: numbers (the rooms compute them).
"""

from __future__ import annotations

import datetime as dt
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from assets.metrics.client import masked

if TYPE_CHECKING:
    from assets.ranking.serving import Scores
    from assets.spam import Found

# Width is fixed where the output is a file or a pipe, so that a table is not folded at 80 columns.
console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
errors = Console(stderr=True, highlight=False)
NAMED = 5  # of many files, by name


def number(value: Any) -> str:
    """Whole numbers and thousands with separators, others with four digits, below 1 with three decimals; None as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool) or isinstance(value, str):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 1 else f"{value:.3f}"


def fresh(report: Mapping[str, Any]) -> None:
    """One line for each version that the fresh loop publishes."""
    if report["phase"] == "published":
        console.print(f"version {report['version']}: {report['rows']:,} samples of [{report['from']}, {report['until']}), from {report['parent']}")


def table(title: str, rows: Mapping[str, Any] | list[tuple], columns: tuple[str, ...] = ("", "")) -> None:
    """Print rows under a title; the first column is a name, the others are right-aligned figures."""
    console.print(f"\n[bold]{title}[/bold]")  # not the sheet's own title: that is folded to the sheet's width
    sheet = Table(show_header=any(columns))
    for position, name in enumerate(columns):
        sheet.add_column(name, justify="right" if position else "left")
    for row in rows.items() if isinstance(rows, Mapping) else rows:
        sheet.add_row(*(number(cell) for cell in row))
    console.print(sheet)


@contextmanager
def working(what: str) -> Iterator[None]:
    """A spinner on a terminal, nothing on a pipe."""
    if not sys.stderr.isatty():
        yield
        return
    with errors.status(what):
        yield


class Steps:
    """Progress of long work, a line a step, with the seconds since the start."""

    def __init__(self) -> None:
        self.started = time.monotonic()

    def __call__(self, text: str) -> None:
        console.print(f"[dim]{time.monotonic() - self.started:6.1f} s[/dim]  {text}", soft_wrap=True)  # a command in it can be copied


@contextmanager
def expected_errors() -> Iterator[None]:
    """Print an error that a person can act on as one line and exit with 1; let a bug keep its traceback."""
    try:
        yield
    except Exception as error:
        if not is_expected(error):
            raise
        errors.print("[red]error:[/red]", end=" ")
        errors.print(masked(str(error)), markup=False, soft_wrap=True)
        raise SystemExit(1) from None


def is_expected(error: Exception) -> bool:
    """Whether the error is one of ours (their messages say what to do) or names a bad argument or a missing file."""
    ours = type(error).__module__.split(".")[0] in ("assets", "dagster_project", "dashboards")
    return ours or isinstance(error, (FileNotFoundError, PermissionError))


@contextmanager
def progressing() -> Iterator[Any]:
    """A bar a stage on a terminal, a line a stage on a pipe; yields what takes stage=, hours_done=, hours_total=."""
    from rich.progress import Progress

    if not sys.stderr.isatty():
        steps, seen = Steps(), set()

        def tell(stage: str, **_: Any) -> None:
            if stage not in seen:
                seen.add(stage)
                steps(stage)

        yield tell
        return
    with Progress(console=errors, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def move(stage: str, hours_done: int = 0, hours_total: int = 1) -> None:
            task = tasks.setdefault(stage, None) or tasks.update({stage: bars.add_task(stage, total=hours_total)}) or tasks[stage]
            bars.update(task, completed=hours_done, total=hours_total)

        yield move


def label_summary(summary: Mapping[str, Any], out: Path) -> None:
    """What `glasshouse label` made of a log."""
    share = "–" if summary["ctr"] is None else f"{summary['ctr']:.2%}"
    table(
        f"Labels in {out}",
        {
            "rows read": summary["rows"],
            **({"  with a key twice (the last counts)": summary["repeated_keys"]} if summary["repeated_keys"] else {}),
            "events": summary["events"],
            "repeats dropped": summary["repeats"],
            "quarantined": summary["quarantined"],
            "impression sessions": summary["impression_sessions"],
            "  displays in them": summary["impressions"],
            "  clicked": summary["clicked"],
            "  clicked, share": share,
            "click sessions": summary["click_sessions"],
            "  clicks in them": summary["clicks"],
            "  attributed to a display": summary["attributed"],
            "orphan actions": summary["orphan_actions"],
            "seconds (read, label, write)": " + ".join(f"{summary['seconds'][n]:.1f}" for n in ("read", "label", "write")),
        },
    )
    flags = [(name, summary["flags"][name], summary["flags_without_click"][name]) for name in summary["flags"]]
    table("Behaviours", flags, ("label", "after a click", "without one"))
    if summary["quarantine"]:
        table("Quarantine, by reason", summary["quarantine"])
    if summary["rows"] and summary["quarantined"] == summary["rows"]:
        plain("No row was taken. Is the file what its name says (one JSON object a line, UTF-8), and does a mapping name its columns?")
    if summary["stray_hours"]:
        table("Stray hours: far from the others and with few events; labeled too", summary["stray_hours"])


def checked(root: Any, found: Any) -> bool:
    """What `glasshouse check` found in a lake; returns whether all was well."""
    console.print(f"{root}: {found.files:,} files looked at, {found.checksums:,} data files held against their checksums", markup=False)
    for one in found.damages:
        console.print(f"{one.part}: {one.path}: {one.why}", markup=False, soft_wrap=True)
    if found.damages:
        console.print(
            f"{len(found.damages)} damaged. Put each back from a copy of the lake; a snapshot, a cursor, a Delta checkpoint and the stream's "
            "name are made anew by whoever needs them", soft_wrap=True,
        )  # fmt: skip
    return not found.damages


def plain(text: str) -> None:
    """A line as it is: a path in it is no markup, and is not folded."""
    console.print(text, markup=False, soft_wrap=True)


def processes(running: list[Any], services: list[Mapping[str, Any]]) -> None:
    """What runs in a home: who has told of itself (processes.Registered), and the services of `up`."""
    up = next((one for one in running if one.name == "up"), None)
    if services:
        def ago(beat: float | None) -> str:
            return "–" if beat is None else f"{max(0.0, time.monotonic() - beat):.0f} s ago"

        rows = [(one["name"], one["state"], str(one["pid"] or "–"), str(one["restarts"]), ago(one["beat_at"]), one["said"] or "–") for one in services]
        table(f"Processes of `up` (pid {up.pid})", rows, ("process", "state", "pid", "restarts", "sign of life", "last end"))
    elif up:
        console.print(f"`up` (pid {up.pid}) is starting or stopping")
    known = {one["pid"] for one in services}
    for one in running:
        if one is not up and one.pid not in known:
            console.print(f"{one} runs beside `up`" if up else f"{one} runs")
    if not running:
        console.print("nothing runs in this home")


def live_status(found: Mapping[str, Any] | None) -> None:
    """The last batch of the live labeler."""
    if found is None:
        console.print("no live batch yet; start one with `glasshouse live`, or everything with `make up`")
        return
    rows, seconds = found["rows"], found["seconds"]
    warnings(found.get("warnings", ()))
    table(
        f"Live labeler, batch {found['batch']}",
        {
            "watermark": found["watermark"],
            "newest event": found.get("moved") or found["greatest"],
            "behind the wall clock, s": found.get("lag_s"),
            "behind the input": f"{found.get('waiting_files', 0):,} files, {found.get('waiting_bytes', 0) / 2**20:,.1f} MB",
            "events a second, in the batch": found["events_per_s"],
            "events in the batch": rows["events"],
            "late, repeats, quarantined": f"{rows['late_events']:,}, {found['repeats']:,}, {rows['quarantine']:,}",
            "  of them of wrong clocks": found.get("wrong_clocks", 0),
            "sessions closed": rows["impression_sessions"] + rows["click_sessions"],
            "sessions open": found["open_impressions"] + found["open_clicks"],
            "events above the watermark": found["pending"],
            "state in memory, MB": found["state_bytes"] / 2**20,
            "state on disk, MB": found["disk_bytes"] / 2**20,
            "memory at its most, MB": (found["peak_bytes"] or 0) / 2**20,
            "memory allowed, MB": (found["memory_limit"] or 0) / 2**20,
            **{f"  {stage}, s": value for stage, value in seconds.items()},
        },
    )


def repeated_keys(rows: int) -> None:
    if rows:
        console.print(f"{rows:,} rows of the logs taken so far hold a key twice; the last value counts (the table `sources` says which)")


def not_taken(folder: Any, left: Sequence[Any]) -> None:
    """What lies in a folder and is not taken, by the reason, with the names of some."""
    if not left:
        return
    by_why: dict[str, list[str]] = {}
    for one in left:
        by_why.setdefault(one.why, []).append(escape("".join(c if c.isprintable() else ascii(c)[1:-1] for c in one.name)))
    rows = [(why, len(names), ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")) for why, names in sorted(by_why.items())]
    table(f"Not taken, in {escape(str(folder))}", rows, ("why", "files", "which"))


def warnings(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        console.print(f"[bold red]![/bold red] {escape(sentence)}")


def money(cents: int) -> str:
    """Cents as units with two decimals; the shop's currency is its own."""
    return f"{'-' if cents < 0 else ''}{abs(cents) // 100:,}.{abs(cents) % 100:02d}"


def share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2%}"


def order_figures(found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "orders": found["orders"],
        "gross revenue": money(found["gross_cents"]),
        "refunds": money(found["refunded_cents"]),
        "net revenue": money(found["net_cents"]),
        "orders attributed to a note": share(found["attributed_orders"]),
        "net revenue attributed to a note": share(found["attributed_net"]),
    }


def orders(found: Mapping[str, Any], totals: Mapping[str, Any], taken: Mapping[str, int]) -> None:
    """What `glasshouse orders` took, what there is, and whether the totals agree."""
    agree = "yes" if totals["agree"] else f"NO: {len(totals['wrong_hours'])} of {totals['hours']} hours differ"
    if totals["refused"]:
        unread = f", {totals['refused_unread']} of them of an amount that cannot be read" if totals["refused_unread"] else ""
        refused = f"{totals['refused']} changes with {money(totals['refused_cents'])} of revenue lie in order_quarantine{unread}"
        agree = f"NO: {refused}" if totals["agree"] else f"{agree}; {refused}"
    table(
        "Orders",
        {
            "files taken now": taken["files"],
            "changes taken now": taken["changes"],
            "changes in all": found["changes"],
            "lines quarantined": found["quarantined"],
            **order_figures(found),
            "deleted orders": found["deleted"],
            "totals agree with `orders`": agree,
        },
    )


def tidied(found: Mapping[str, Mapping[str, Any]]) -> None:
    """What the housekeeping did, table by table."""
    moments = found["moments"]["forgotten"]
    rows = [
        (name, one["files_before"], one["files_after"], one["hours_compacted"], one["files_deleted"])
        for name, one in found.items() if name != "moments"
    ]  # fmt: skip
    table("Tidied", rows, ("table", "files before", "files after", "hours compacted", "files deleted"))
    console.print(f"{moments:,} old moments forgotten")


def spam(found: Found) -> None:
    """The spam rules against the planted abusers."""
    table(
        "Spam rules against the planted abusers",
        {
            "accounts flagged": found.flagged,
            "of these abusers": found.right,
            "abusers in the events": found.abusers,
            "precision": found.precision,
            "recall": found.recall,
        },
    )
    rows = [(name, *figures) for name, figures in (found.by_kind | found.by_lookalike).items()]
    table("By kind (binge and fan are honest accounts that look alike)", rows, ("kind", "accounts", "flagged"))
    table("By rule", [(name, *figures) for name, figures in found.by_rule.items()], ("rule", "accounts", "of these abusers"))


def addresses(found: Mapping[str, str], title: str) -> None:
    table(title, dict(found))


SHOWN_ROWS = 100
LONGEST_CELL = 200  # characters


def rows(found: Any, csv: bool) -> None:
    """The rows of a query, a polars data frame. csv: all of them, lists as JSON; else the first as a table."""
    import polars as pl

    lists = pl.col([name for name, kind in found.schema.items() if kind.is_nested()]).map_elements(_json, return_dtype=pl.String)
    if csv:
        bytes_ = pl.col(pl.Binary).bin.encode("base64")
        sys.stdout.write(found.with_columns(lists).with_columns(bytes_).write_csv())
        return
    shown = Table(*map(escape, found.columns))
    for row in found.head(SHOWN_ROWS).iter_rows():
        shown.add_row(*(escape(_cell(value)) for value in row))
    console.print(shown)
    more = f"; the first {SHOWN_ROWS} are shown, --csv gives all" if len(found) > SHOWN_ROWS else ""
    console.print(f"{len(found):,} row{'' if len(found) == 1 else 's'}{more}")


def _json(value: Any) -> str:
    return json.dumps(value.to_list() if hasattr(value, "to_list") else value, default=str, ensure_ascii=False)


def _cell(value: Any) -> str:
    """A value as text of one line that a terminal does not obey."""
    text = "" if value is None else f"{value:%Y-%m-%d %H:%M:%S.%f}".removesuffix(".000000") if isinstance(value, dt.datetime) else str(value)
    text = "".join(one if one.isprintable() else "\ufffd" for one in text)
    return text if len(text) <= LONGEST_CELL else text[:LONGEST_CELL] + "…"


def settings(rows: list[tuple[str, str, str]]) -> None:
    sheet = Table(title="Settings", title_justify="left", title_style="bold")
    for name in ("variable", "value", "what it does"):
        sheet.add_column(name, overflow="fold")
    for row in rows:
        sheet.add_row(*row)
    console.print(sheet)


def short(path: Path) -> str:
    """A path as a person would type it here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def written(paths: list[Path]) -> None:
    for path in paths:
        console.print(f"wrote {path}")


def backfill_report(found: Mapping[str, Any]) -> None:
    """What a plan would change."""
    was = found["rules"]["was"]
    edges = f"{found['edge_before']:,} before the range, {found['edge_after']:,} after it"
    table(
        f"Plan {found['plan']} ({found['status']})",
        {
            "range": " to ".join(found["window"]) if found["window"] == found["swap"] else " to ".join(found["swap"]) + " (with the hours beside it)",
            "rules": f"{found['rules']['version']} ({found['rules']['fingerprint']})",
            **{f"  was {one['version']} ({one['fingerprint']})": ", ".join(
                f"{key} {old} → {new}" for key, (old, new) in one["changes"].items()) or "the same" for one in was},
            "hours that change": len(found["hours_changed"]),
            "late events used": found["late_used"],
            "rows of sessions over the edges that change": edges,
        },
    )  # fmt: skip
    kinds = ("added", "removed", "changed")
    table("Rows", [(name, *(one[kind] for kind in kinds)) for name, one in found["rows"].items()], ("table", *kinds))
    both = [(name, one["before"], one["after"], (one["after"] or 0) - (one["before"] or 0)) for name, one in found["totals"].items()]
    table("Figures", both, ("", "before", "after", "difference"))
    table("Rates", [(name, share(one["before"]), share(one["after"])) for name, one in found["rates"].items()], ("", "before", "after"))
    users = {day: one["before"] for day, one in found["users"]["by_day"].items()}
    table("Active users a day: unchanged, since they are counted in events", users)
    if found["revenue"]:
        net = money(found["revenue"]["net_cents"]["before"])
        table("Net revenue: unchanged, since orders are attributed by events", {"orders": found["revenue"]["orders"], "net": net})
    channels = [(one["channel"], *(one.get(name, {}).get(side) for name in ("clicked_displays", "clicks", "like") for side in ("before", "after")))
                for one in found["by_channel"]]  # fmt: skip
    table("By channel", channels, ("channel", "clicked", "after", "clicks", "after", "likes", "after"))
    hours = [(one["hour"][:16], *(one.get(name, {}).get(side) for name in ("clicked_displays", "clicks", "like") for side in ("before", "after")))
             for one in found["by_hour"] if one["hour"] in set(found["hours_changed"])]  # fmt: skip
    table("By hour, of those that change", hours[:24], ("hour", "clicked", "after", "clicks", "after", "likes", "after"))
    for kind in kinds:
        _examples(kind, found["examples"][kind])
    seen = found["seen_by"]
    table("Who has seen the old rows", {"hours of training_samples": len(seen["training_samples"]), "model versions": ", ".join(seen["models"]) or "none"})
    cost, then = found["cost"], found["apply_cost"]
    table(
        "Cost",
        {
            "seconds": cost["seconds"], "events": cost["events"], "events a second": cost["events_per_s"],
            "rows written": cost["rows"], "MB written": cost["bytes"] / 2**20, "memory at its most, GiB": cost["peak_gib"],
            "apply: files to link": then["files"], "apply: rows for ClickHouse": then["clickhouse_rows"],
            "apply: seconds for them, about": then["clickhouse_s"],
        },
    )  # fmt: skip
    if found["status"] in ("planned", "undone"):
        console.print(f"\nswap it in with `glasshouse backfill apply {found['plan']}`")


def _examples(kind: str, examples: list[Mapping[str, Any]]) -> None:
    if not examples:
        return
    rows = []
    for one in examples:
        row = one["row"]
        start = str(row.get("session_start") or row.get("event_time"))
        changes = ", ".join(f"{key} {old} → {new}" for key, (old, new) in one["changed"].items())
        did = " ".join(f"{event['action']}@{event['event_time'][14:19]}" for event in one["events"][:6])
        rows.append((one["table"], f"{row['user_id']} {row['note_id']} {start[:19]}", changes, did))
    table(f"Examples: {kind}", rows, ("table", "user, note, start", "change", "events"))


def backfill_done(done: Mapping[str, Any], without: str | None) -> None:
    """What apply or undo has done. without: the ClickHouse that did not answer."""
    stale = {f"  {name}": f"{len(hours):,} hours, {hours[0]} to {hours[-1]}" for name, hours in done["stale"].items()}
    table(
        f"Plan {done['plan']}: {done['status']}",
        {"moment of the lake": done["moment"], "hours": len(done["hours"]), "ClickHouse": "swapped" if done["clickhouse"] else "not yet",
         "computed from other rows: launch these in Dagster": "" if stale else "nothing", **stale,
         "models trained on other rows": ", ".join(done["models"]) or "none"},
    )  # fmt: skip
    if without:
        console.print(f"\nClickHouse at {masked(without)} does not answer; start it and run the same command again")


def backfills(found: list[Mapping[str, Any]]) -> None:
    """The plans that are kept."""
    if not found:
        console.print("no plans; make one with `glasshouse backfill plan --from HOUR --to HOUR`")
        return
    rows = [(one["plan"], one["status"], " to ".join(text[:16] for text in one["window"]), one["rules"], one["changed"]) for one in found]
    table("Plans", rows, ("plan", "status", "range", "rules", "rows that change"))


# --- the ranker -------------------------------------------------------------------------------------------------------


@contextmanager
def training() -> Iterator[Any]:
    """Yields what takes a training's reports: a line for the start and the evaluation, one every ten seconds between them."""
    steps, said = Steps(), -10.0

    def tell(report: Mapping[str, Any]) -> None:
        nonlocal said
        if report["phase"] == "prepare":
            steps(f"{report['train_samples']:,} samples to train on, {report['holdout_samples']:,} held out; "
                  f"if it is killed: glasshouse ranker train --resume {report['run']}")  # fmt: skip
        elif report["phase"] == "evaluate":
            steps("evaluating")
        elif report["step"] == report["steps"] or report["elapsed_s"] - said >= 10:
            said = report["elapsed_s"]
            steps(f"step {report['step']:,} of {report['steps']:,}: loss {report['loss']:.4f}, {report['samples_per_s']:,.0f} samples/s")

    yield tell


def trained(metrics: Mapping[str, Any]) -> None:
    """What a training has come to."""
    names = ("positives", "auc", "truth_auc", "log_loss", "calibration")
    rows = [(head, *(one.get(key) for key in names)) for head, one in metrics["heads"].items()]
    if rows:
        table(f"Version {metrics['version']}", rows, ("head", "positives", "AUC", "AUC of the truth", "log loss", "calibration"))
    else:
        console.print(f"version {metrics['version']}; nothing was held out")
    if metrics.get("resumed_at") is not None:
        console.print(f"resumed at step {metrics['resumed_at']:,} of {metrics['steps']:,}")
    console.print(f"`glasshouse ranker promote {metrics['version']}` compares it and lets it serve", markup=False)


def ranker_versions(found: list[Mapping[str, Any]], serving: str | None) -> None:
    """A row a version."""
    if not found:
        console.print("no version yet; materialize the asset `ranker`, or run `make demo`")
        return
    rows = []
    for one in found:
        click = one["metrics"].get("heads", {}).get("click", {})
        verdict = "not checked" if one["check"] is None else "passed" if one["check"]["passed"] else "refused"
        rows.append((one["version"], "serves" if one["version"] == serving else "", one["config"]["window"][1][:16],
                     one["metrics"].get("train_samples"), click.get("auc"), click.get("calibration"), verdict))  # fmt: skip
    table("Versions of the ranker", rows, ("version", "", "samples until", "trained on", "click AUC", "calibration", "gate"))
    if serving is None:
        console.print("none serves; `glasshouse ranker promote VERSION` lets one")


def ranker_version(name: str, config: Mapping[str, Any], metrics: Mapping[str, Any], check: Mapping[str, Any] | None) -> None:
    """What a version is and where it comes from."""
    lineage = config["lineage"]
    rules = [f"{one['version'] or one['rules']} ({one['rules']}): {one['hours']} hours" for one in lineage.get("rules", [])]
    moment = lineage.get("made_from") or {}
    table(
        f"Version {name}",
        {
            "samples": " to ".join(config["window"]), "held out from": config["cutoff"], "trained on": metrics.get("train_samples"),
            "code": config.get("code_version"), "label rules": ", ".join(rules) or "not known",
            "labeler's code": ", ".join(lineage.get("label_code", [])) or "not known",
            **{f"read: {table}": f"version {version}" for table, version in lineage.get("read", {}).items()},
            "its samples were made at": f"moment {moment['moment']}, {moment['at'][:19]}" if moment else "not known",
            **{f"  {table}": f"version {version}" for table, version in (moment.get("tables") or {}).items()},
        },
    )  # fmt: skip
    names = ("positives", "auc", "truth_auc", "log_loss", "calibration")
    rows = [(head, *(one.get(key) for key in names)) for head, one in metrics.get("heads", {}).items()]
    table("Heads, when it was trained", rows, ("head", "positives", "AUC", "AUC of the truth", "log loss", "calibration"))
    if check:
        ranker_verdict(check)


def ranker_verdict(found: Mapping[str, Any]) -> bool:
    """A verdict of the gate; returns whether it passed."""
    names = ("positives", "auc", "auc_serving", "log_loss", "log_loss_serving", "calibration", "calibration_serving", "verdict")
    told = ("good", "too few to judge")  # else it is the reasons, which come below
    rows = [
        (row["head"], *(row[key] for key in names[:-1]), row["verdict"] if row["verdict"] in told else "refused")
        for row in found["heads"]
    ]
    beside = found["compared_with"] or "no other version"
    table(f"{found['version']} beside {beside}, on {found['samples']:,} held-out samples", rows,
          ("head", "positives", "AUC", "serving", "log loss", "serving", "calibration", "serving", "verdict"))  # fmt: skip
    for note in found["notes"]:
        console.print(note, markup=False)
    console.print("good enough to serve" if found["passed"] else "not good enough:\n  " + "\n  ".join(found["reasons"]), markup=False)
    return found["passed"]


def ranker_history(entries: list[Mapping[str, Any]]) -> None:
    rows = []
    for one in reversed(entries[-20:]):
        what = one["action"] if one["action"] != "checked" else "passed the gate" if one["passed"] else "refused by the gate"
        rows.append((one["at"][:19], what, one["version"], one["by"], _first(one.get("reasons", [])) or one["why"]))
    table("History, newest first", rows, ("at (UTC)", "what", "version", "by", "why"))


def _first(reasons: list[str]) -> str:
    return (reasons[0] + (f"; and {len(reasons) - 1} more" if len(reasons) > 1 else "")) if reasons else ""


def ranker_scores(version: str, scores: Scores) -> None:
    """A request's notes, the most valuable first, and what each head adds to their value, the most first."""
    rows = []
    for i in scores.order:
        shares = sorted(zip(scores.shares[i], scores.heads, strict=True), key=lambda share: -abs(share[0]))
        made_of = ", ".join(f"{head} {number(float(share))}" for share, head in shares if share)
        rows.append((f"{scores.notes[i]}{'' if scores.known_notes[i] else ' (no profile)'}", float(scores.value[i]), made_of))
    table(f"By {version}{'' if scores.known_user else '; the user has no profile'}", rows, ("note", "value", "of it"))


def ranker_moved(entry: Mapping[str, Any]) -> None:
    console.print(f"{entry['version']} serves now; before: {entry['before'] or 'none'}")
