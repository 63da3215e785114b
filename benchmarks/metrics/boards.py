"""How long the boards' questions take: of the aggregates, of ClickHouse's rows, and of DuckDB over the Delta files.

Here: timing. The questions are sql/clickhouse/queries/*.sql as the boards ask them; their twins without spam ask rows (nobody is
flagged here, so the answers are the same); DUCKDB_SQL below.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from assets import hours
from assets.lake import Lake, Window
from assets.metrics import ranges
from assets.metrics.inline import inlined

QUERIES = Path(__file__).resolve().parents[2] / "sql" / "clickhouse" / "queries"
TWIN = "_without_spam"
DUCKDB = "1.4.2"  # installed apart, under build/: a yardstick, no part of Glasshouse
DUCKDB_FILES = "DuckDB over Delta's files"
PART_OF = {"rows": "rows", DUCKDB_FILES: "duckdb"}  # what a question was asked of -> the part of the benchmark that does it
LONGEST_S = 12.0  # of asking one question over and over
NO_FILTER = {"channels": [], "devices": [], "bands": []}
SOME = {"channels": ["homefeed"], "devices": ["ios"], "bands": ["0", "1-2"]}

# The same questions for DuckDB; $start and $end as in the others.
DUCKDB_SQL = {
    "totals": """SELECT (SELECT count(DISTINCT user_id) FROM events WHERE event_time >= $start AND event_time < $end),
        (SELECT count(*) FROM events WHERE event_time >= $start AND event_time < $end),
        count(*), count(*) FILTER (clicked) FROM impression_sessions WHERE session_start >= $start AND session_start < $end""",
    "actions_over_time": """SELECT time_bucket(INTERVAL 1 HOUR, event_time) AS t, action, count(*) FROM events
        WHERE event_time >= $start AND event_time < $end GROUP BY ALL ORDER BY ALL""",
    "daily_users": """SELECT date_trunc('day', event_time) AS d, count(DISTINCT user_id) FROM events
        WHERE event_time >= $start AND event_time < $end GROUP BY ALL ORDER BY ALL""",
    "funnel_by_channel": """SELECT channel, count(*), count(*) FILTER (clicked) FROM impression_sessions
        WHERE session_start >= $start AND session_start < $end GROUP BY ALL ORDER BY ALL""",
}


@dataclass(frozen=True)
class Timed:
    """name: question and range. p50_ms, p99_ms: of `runs` askings, one after the other."""

    name: str
    of: str
    runs: int
    p50_ms: float
    p99_ms: float


def aggregates(client, window: Window, runs: int = 100) -> list[Timed]:
    """Every question of a board that reads aggregates, over the last day, the week, and the week with filters."""
    found = []
    for path in sorted(QUERIES.glob("*.sql")):
        text = path.read_text()
        if path.stem.endswith(TWIN) or not re.search(r"(feed|users)_in\(|FROM \w+_totals(_all)?\b", text):
            continue
        for label, parameters in _asked(window, "start:" in text, "{channels:" in text).items():
            found.append(_timed(f"{path.stem}, {label}", "aggregates", client, inlined(text), parameters, runs))
    return found


def raw(client, window: Window, runs: int = 3) -> list[Timed]:
    """The same questions of rows."""
    found = []
    for path in sorted(QUERIES.glob(f"*{TWIN}.sql")):
        text = path.read_text()
        for label, parameters in _asked(window, "start:" in text, "{channels:" in text).items():
            found.append(_timed(f"{path.stem.removesuffix(TWIN)}, {label}", "rows", client, text, parameters, runs))
    return found


def _asked(window: Window, ranged: bool, filtered: bool) -> dict[str, dict]:
    stray = {"stray_after_s": int(hours.STRAY_AFTER.total_seconds()), "stray_events": hours.STRAY_EVENTS}
    more = {"long_view_ms": 10_000, "zone": "Asia/Shanghai", "lengths": [10.0, 60.0, 1200.0], **stray}
    if not ranged:
        return {"all": ranges.bound({**more, **NO_FILTER, "end": window.end})}
    spans = {"day": dt.timedelta(days=1), "week": window.end - window.start}
    found = {
        label: {**more, **NO_FILTER, "start": window.end - span, "end": window.end, "step": 900 if label == "day" else 3600}
        for label, span in spans.items()
    }  # fmt: skip
    if filtered:
        found["week, filtered"] = {**found["week"], **SOME}
    return {label: ranges.bound(parameters) for label, parameters in found.items()}


def _text(time: dt.datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S.%f")


def _timed(name: str, of: str, client, text: str, parameters: dict, runs: int) -> Timed:
    client.query(text, parameters=parameters)  # the first reads the disk
    took, end = [], time.perf_counter() + LONGEST_S
    while len(took) < runs and (not took or time.perf_counter() < end):
        began = time.perf_counter()
        client.query(text, parameters=parameters)
        took.append(1000 * (time.perf_counter() - began))
    return Timed(name, of, len(took), float(np.quantile(took, 0.5)), float(np.quantile(took, 0.99)))


def duckdb(lake: Lake, window: Window, folder: Path, runs: int = 3) -> list[Timed]:
    """DuckDB over the same Delta files, in a process of its own."""
    target = folder / f"duckdb-{DUCKDB}"
    if not target.exists():
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--target", str(target), f"duckdb=={DUCKDB}"], check=True)
    files = {name: lake.open(name).file_uris() for name in ("events", "impression_sessions")}
    asked = {"files": files, "sql": DUCKDB_SQL, "runs": runs, "spans": {
        "day": [_text(window.end - dt.timedelta(days=1)), _text(window.end)],
        "week": [_text(window.start), _text(window.end)],
    }}  # fmt: skip
    done = subprocess.run([sys.executable, "-c", _DUCKDB, str(target)], input=json.dumps(asked), text=True,
                          capture_output=True, check=True)  # fmt: skip
    return [Timed(name, DUCKDB_FILES, runs, float(np.quantile(took, 0.5)), float(np.quantile(took, 0.99)))
            for name, took in json.loads(done.stdout.splitlines()[-1]).items()]  # fmt: skip


_DUCKDB = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
import duckdb
asked = json.load(sys.stdin)
db = duckdb.connect()
db.execute("SET TimeZone = 'UTC'")
db.execute("SET enable_progress_bar = false")
for name, files in asked["files"].items():
    quoted = ", ".join("'" + one.replace("'", "''") + "'" for one in files)
    db.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet([{quoted}], hive_partitioning = false)")
took = {}
for name, sql in asked["sql"].items():
    for label, (start, end) in asked["spans"].items():
        times = []
        for run in range(asked["runs"] + 1):
            began = time.perf_counter()
            db.execute(sql.replace("$start", f"TIMESTAMPTZ '{start}+00'").replace("$end", f"TIMESTAMPTZ '{end}+00'")).fetchall()
            times.append(1000 * (time.perf_counter() - began))
        took[f"{name}, {label}"] = times[1:]
print(json.dumps(took))
"""
