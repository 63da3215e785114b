"""How long a feed request takes: 500 notes scored for a user on one core, all heads and the value.

    .venv/bin/python -m benchmarks.ranker_serving [--home build/demo] [--notes 500] [--requests 1000]

On a home with profiles and a version of the ranker (`make demo` makes one). The process is bound to one core, torch has one
thread. Users and notes are drawn from those that the lake knows, others every tenth time; each request has users and notes of
its own. Measured are wall time and this process's CPU time: the difference is what other processes took on a shared machine.
Prints p50, p95, p99 of the whole and of its steps, and writes build/reports/ranker_serving.json.
"""

from __future__ import annotations

import argparse
import datetime as dt
import gc
import json
import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from assets.lake import Lake
from assets.ranking import registry
from assets.ranking.config import RankerError
from assets.ranking.serving import REQUEST, Ranker

ROOT = Path(__file__).resolve().parent.parent
REPORT = ROOT / "build" / "reports" / "ranker_serving.json"
WARM_UP = 50
CHANNELS, DEVICES = ("homefeed", "search", None), ("ios", "android", None)


def requests(lake: Lake, hour: dt.datetime, notes: int, count: int):
    """Users, notes and contexts, drawn by a fixed seed."""
    rng = np.random.default_rng(7)
    known = {name: lake.read(f"{name}_profiles", columns=[f"{name}_id"])[f"{name}_id"].unique().to_numpy() for name in ("user", "note")}
    for i in range(count):
        drawn = rng.choice(known["note"], notes, replace=len(known["note"]) < notes)
        user = int(rng.choice(known["user"])) if i % 10 else int(rng.integers(2**62))
        context = {"channel": CHANNELS[i % 3], "device": DEVICES[i // 3 % 3], "time": hour + dt.timedelta(seconds=i % 3600)}
        yield user, drawn, context


def measure(ranker: Ranker, asked: list) -> dict[str, np.ndarray]:
    """Milliseconds of each request, by what was measured; the steps are measured apart from the whole."""
    found: dict[str, list[float]] = {name: [] for name in ("request", "request, CPU", "features", "network")}
    for i, (user, notes, context) in enumerate(asked):
        wall, cpu = time.perf_counter(), time.process_time()
        ranker.score(user, notes, context)
        times = [time.perf_counter() - wall, time.process_time() - cpu]
        request = dict(zip(REQUEST, (context["channel"], context["device"], None, context["time"].hour), strict=True))
        table = pa.table({"note_id": notes})
        begun = time.perf_counter()
        rows, _ = ranker.store.encode(user, table, request)
        encoded = time.perf_counter()
        ranker.model.score_encoded(rows)
        times += [encoded - begun, time.perf_counter() - encoded]
        if i >= WARM_UP:
            for name, value in zip(found, times, strict=True):
                found[name].append(value * 1e3)
    return {name: np.array(values) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, default=ROOT / "build" / "demo")
    parser.add_argument("--version", help="default: the one that serves, else the newest")
    parser.add_argument("--notes", type=int, default=500)
    parser.add_argument("--requests", type=int, default=1000)
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

    import torch

    torch.set_num_threads(1)
    lake = Lake(str(options.home / "lake"))
    if not lake.exists("note_profiles"):
        raise SystemExit(f"{options.home} has no profiles: run `make demo`, or name another home by --home")
    hour = lake.hours("note_profiles")[-1] + dt.timedelta(hours=1)
    begun = time.perf_counter()
    try:
        ranker = Ranker.load(lake, options.version or registry.serving(lake), now=hour)
    except RankerError as error:
        raise SystemExit(f"{options.home}: {error}") from None
    loaded = time.perf_counter() - begun
    asked = list(requests(lake, hour, options.notes, WARM_UP + options.requests))
    gc.collect()
    gc.freeze()  # what stays is not looked through again and again
    found = measure(ranker, asked)
    rows = [{"name": name, **{f"p{p}_ms": round(float(np.percentile(values, p)), 2) for p in (50, 95, 99)},
             "max_ms": round(float(values.max()), 2)} for name, values in found.items()]  # fmt: skip
    print(f"{options.notes} notes a request, {options.requests} requests, one core; version {ranker.version}, "
          f"{len(ranker.heads)} heads; loaded in {loaded:.1f} s; load of the machine {os.getloadavg()[0]:.1f}")  # fmt: skip
    print(f"{'ms':18}{'p50':>8}{'p95':>8}{'p99':>8}{'max':>8}")
    for row in rows:
        print(f"{row['name']:18}" + "".join(f"{row[key]:>8.2f}" for key in ("p50_ms", "p95_ms", "p99_ms", "max_ms")))
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    body = {"notes": options.notes, "requests": options.requests, "version": ranker.version, "heads": len(ranker.heads),
            "load_s": round(loaded, 2), "machine_load": os.getloadavg()[0], "rows": rows}  # fmt: skip
    REPORT.write_text(json.dumps(body, indent=2) + "\n")


if __name__ == "__main__":
    main()
