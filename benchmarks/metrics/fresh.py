"""How fresh the pages are: from a file that has landed to the answer of the overview's question that counts its events.

Here: the live labeler as `glasshouse live` runs it, batches of 5 s, and a reader that asks as the page does, each FRAGMENT_S.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from assets.metrics import endpoint
from assets.metrics.client import connect

ROOT = Path(__file__).resolve().parents[2]
FRAGMENT_S = 5.0  # dashboards/frame.py LIVE_S; importing it would start Streamlit
FILES, EVERY_S, EVENTS = 24, 5.0, 10_000
SQL = "SELECT sum(events) FROM events_by_minute"


def run(work: Path) -> dict[str, float]:
    """p50_s and p95_s from landed to answered, over FILES files of EVENTS events, one each EVERY_S."""
    work.mkdir(parents=True)
    with endpoint.started(work / "clickhouse") as url:
        environment = {**os.environ, "GLASSHOUSE_HOME": str(work), "GLASSHOUSE_CLICKHOUSE_URL": url,
                       "GLASSHOUSE_LIVE_INTERVAL": "5s", "PYTHONPATH": str(ROOT)}  # fmt: skip
        command = [sys.executable, "-c", "from dagster_project.cli import main; main()", "live"]
        with open(work / "live.txt", "w") as said:
            labeler = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=subprocess.STDOUT)
            try:
                waits = _watched(work / "landing", url)
            finally:
                labeler.terminate()
                labeler.wait(60)
    return {"p50_s": float(np.quantile(waits, 0.5)), "p95_s": float(np.quantile(waits, 0.95)), "files": len(waits)}


def _watched(landing: Path, url: str) -> list[float]:
    """Seconds from each file's landing until an answer counts it."""
    landed: list[float] = []
    feeder = threading.Thread(target=_feed, args=(landing, landed), daemon=True)
    feeder.start()
    client, waits, end = connect(url), [], time.monotonic() + (FILES + 12) * EVERY_S
    while len(waits) < FILES and time.monotonic() < end:
        time.sleep(FRAGMENT_S)
        try:
            count = client.query(SQL).result_rows[0][0] or 0
        except Exception:  # no tables yet
            continue
        answered = time.time()
        while len(waits) < min(count // EVENTS, len(landed)):
            waits.append(answered - landed[len(waits)])
    if len(waits) < FILES:
        raise RuntimeError(f"{len(waits)} of {FILES} files were counted; see live.txt beside the landing folder")
    return waits[2:]  # the first ones wait for the labeler's start


def _feed(landing: Path, landed: list[float]) -> None:
    landing.mkdir(parents=True, exist_ok=True)
    for number in range(FILES):
        began = time.monotonic()
        now = dt.datetime.now(dt.UTC).timestamp() * 1e6
        lines = [
            json.dumps({"event_id": f"{number}-{i}", "user_id": i % 3000, "note_id": i % 977, "action": "impression",
                        "event_time": int(now) - i, "ingest_time": int(now), "channel": "homefeed", "position": i % 12,
                        "device": "ios"})
            for i in range(EVENTS)
        ]  # fmt: skip
        beside = landing / f".{number:05}.part"
        beside.write_text("\n".join(lines) + "\n")
        beside.rename(landing / f"{number:05}.jsonl")
        landed.append(time.time())
        time.sleep(max(0.0, EVERY_S - (time.monotonic() - began)))
