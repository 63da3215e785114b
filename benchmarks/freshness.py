"""What freshness is worth on traffic that drifts, how labels that come late are borne, and how soon a version is there.

    .venv/bin/python -m benchmarks.freshness [--parts delay late latency] [--warm 8] [--hours 8]

delay: one model learns minute by minute; copies of it that are as old as `batch` (never renewed), an hour, ten minutes or one minute
predict each minute before it is learned: AUC of click beside the truth's (Monolith, Liu et al. 2022, has such a table).
late: labels that take their time. The model learns each minute: with the true labels at once (an oracle), after waiting for the
window (42 minutes), or at once as negatives that are followed by positives, as they are, weighted, or calibrated (Ktena et al. 2019).
latency: a minute's samples close in the lake, the fresh loop in a process of its own publishes a version: seconds between.

Displays are drawn from the generator's world with `drift` (assets/events/generator.py); features are ids, without counters and
lists, which carry some freshness of their own. Prints tables and writes build/reports/fresh.json.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import multiprocessing
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl

from assets.events.generator import TrafficConfig, displays
from assets.lake import Lake, Window, Write
from assets.ranking import evaluate, features, fresh, registry
from assets.ranking.config import OUTPUTS, TABLES, RankerConfig
from assets.ranking.delayed import calibrated, fake_negative_weights
from assets.ranking.train import train
from benchmarks import drawn

REPORT = Path(__file__).resolve().parent.parent / "build" / "reports" / "fresh.json"
MINUTE_US = 60_000_000
DELAYS = {"batch (never)": None, "hourly": 60, "10 min": 10, "1 min": 1}
WAIT = 42  # minutes: 2 W + delay
SMALL = {**{name: 1009 for name in TABLES}, "user_id": 5003, "note_id": 8009, "author_id": 1009, "user_topic": 60_013}


class Online:
    """The ranker under DistributedModelParallel in this process, trained batch by batch."""

    def __init__(self, schema: features.FeatureSchema, config: RankerConfig, means: tuple[float, ...], lr: float) -> None:
        import torch
        from torchrec.optim.optimizers import in_backward_optimizer_filter

        from assets.ranking import worker
        from assets.ranking.model import RankerModel

        job = worker.Job(SimpleNamespace(train_rows=10**6), schema, config, means, "", "")
        self.config = config
        self.model = worker.sharded(job, torch.device("cpu"))
        self.dense = torch.optim.Adam(dict(in_backward_optimizer_filter(self.model.named_parameters())).values(), lr=lr)
        self.copy = RankerModel(schema, config, torch.device("cpu")).eval()

    def learn(self, batch: features.Encoded, weights: np.ndarray | None = None) -> None:
        """One step. weights: [n], of click in place of the batch's; the other heads are left out then."""
        import torch

        from assets.ranking.model import loss

        masks = batch.weights
        if weights is not None:
            masks = np.zeros_like(masks)
            masks[:, 0] = weights
        given = self.model.module.inputs(batch)
        value = loss(self.model(given), torch.from_numpy(batch.labels), torch.from_numpy(masks), self.config)
        self.dense.zero_grad()
        value.backward()
        self.dense.step()

    def into(self, copy) -> None:
        """Bring a plain RankerModel up to date."""
        import torch

        from assets.ranking import checkpoint

        state = checkpoint.state_of(self.model, self.dense)
        target = copy.state_dict()
        with torch.no_grad():
            for name, value in state["dense"].items():
                target[name].copy_(value)
            for name, parts in state["pieces"].items():
                for row, column, value, _ in parts:
                    target[name][row : row + value.shape[0], column : column + value.shape[1]] = value

    def says(self, batch: features.Encoded) -> np.ndarray:
        """p(click) of the model as it is now."""
        from assets.ranking.model import predict

        self.into(self.copy)
        return predict(self.copy, batch)[:, 0]


def world(options) -> tuple[features.FeatureSchema, tuple, list[features.Encoded], list[tuple[features.Encoded, pl.DataFrame]], RankerConfig]:
    """Schema, mean labels, batches to warm up on in mixed order, and then a batch and its frame for each minute."""
    hours = options.warm + options.hours
    traffic = TrafficConfig(
        seed=options.seed, users=4000, notes=6000, hours=hours, events_per_hour=options.per_hour, drift=options.drift,
    )  # fmt: skip
    frame = pl.concat(displays(traffic)).sort("time", maintain_order=True)
    frame = frame.with_columns(minute=(pl.col("time") - traffic.start_us) // MINUTE_US).filter(pl.col("minute") < hours * 60)
    config = RankerConfig(
        tables=SMALL, hidden=(64, 32), sequences=(), seed=options.seed, device="cpu", threads=1, checkpoint_s=0,
    )  # fmt: skip
    before = frame.filter(pl.col("minute") < options.warm * 60)
    rows = drawn.samples(before)
    schema, means = features.fit(rows, config), features.positive_rates(rows)
    warm = features.encode(rows, schema)
    order = np.random.default_rng(options.seed).permutation(len(before))
    batches = [warm.rows(order[i : i + 512]) for i in range(0, len(order), 512)]
    minutes = [(features.encode(drawn.samples(part), schema), part)
               for part in frame.filter(pl.col("minute") >= options.warm * 60).partition_by("minute", maintain_order=True)]  # fmt: skip
    print(f"{len(before):,} displays to warm up on, {sum(len(part) for _, part in minutes):,} in {len(minutes)} minutes after, drift {options.drift}")
    return schema, means, batches, minutes, config


def warmed(schema, means, batches, config, options) -> Online:
    online = Online(schema, config, means, 2e-3)
    for batch in batches:
        online.learn(batch)
    for group in online.dense.param_groups:
        group["lr"] = options.lr
    return online


def by_delay(given, options) -> list[dict]:
    from assets.ranking.model import RankerModel, predict

    schema, means, batches, minutes, config = given
    online = warmed(schema, means, batches, config, options)
    copies = {name: RankerModel(schema, config, online.model.device).eval() for name in DELAYS}
    for copy in copies.values():
        online.into(copy)
    said = {name: [] for name in DELAYS}
    for number, (batch, _) in enumerate(minutes):
        for name, delay in DELAYS.items():
            if delay and number % delay == 0:
                online.into(copies[name])
            said[name].append(predict(copies[name], batch)[:, 0])
        online.learn(batch)
    labels = np.concatenate([batch.labels[:, 0] for batch, _ in minutes])
    truth = np.concatenate([part["p_click"].to_numpy() for _, part in minutes])
    parts = {**{name: np.concatenate(one) for name, one in said.items()}, "truth": truth}
    half = len(labels) // 2
    return [
        {"name": name, **figures(one, labels), "auc_second_half": evaluate.auc(one[half:], labels[half:])} for name, one in parts.items()
    ]


def figures(scores: np.ndarray, labels: np.ndarray) -> dict:
    return {"auc": evaluate.auc(scores, labels), "log_loss": evaluate.log_loss(scores, labels), "calibration": evaluate.calibration(scores, labels)}


def by_label(given, options, mean_s: float) -> list[dict]:
    """mean_s: of the exponential time from display to click, cut at the window of 20 minutes."""
    schema, means, batches, minutes, config = given
    models = {name: warmed(schema, means, batches, config, options) for name in ("true labels at once", f"wait {WAIT} min", "early", "early, weighted")}
    oracle, waiting, early, weighted = models.values()
    said: dict[str, list] = {name: [] for name in (*models, "early, calibrated")}
    rng = np.random.default_rng(options.seed)
    begin = minutes[0][1]["minute"][0]
    late: dict[int, list[features.Encoded]] = {}
    for number, (batch, part) in enumerate(minutes):
        seen = {name: model.says(batch) for name, model in models.items()}
        for name, scores in seen.items():
            said[name].append(scores)
        said["early, calibrated"].append(calibrated(seen["early"]))
        oracle.learn(batch, np.ones(len(part), np.float32))
        if number >= WAIT:
            waiting.learn(minutes[number - WAIT][0], np.ones(len(minutes[number - WAIT][1]), np.float32))
        came = (part["time"].to_numpy() + rng.exponential(mean_s, len(part)).clip(0, 1190) * 1e6).astype(np.int64)
        clicked = np.flatnonzero(batch.labels[:, 0] > 0)
        for row in clicked:
            minute = int((came[row] - part["time"][0]) // MINUTE_US) + number
            late.setdefault(max(number, minute), []).append(batch.rows(slice(row, row + 1)))
        negatives = batch._replace(labels=np.zeros_like(batch.labels))
        step = features.concat([negatives, *late.pop(number, [])])
        early.learn(step, np.ones(len(step.ids), np.float32))
        weighted.learn(step, fake_negative_weights(step.labels[:, 0], weighted.says(step)))
    labels = np.concatenate([batch.labels[:, 0] for batch, _ in minutes])
    assert begin == options.warm * 60
    return [{"name": name, "click_delay_s": mean_s, **figures(np.concatenate(one), labels)} for name, one in said.items()]


# --- from closed samples to a version ---------------------------------------------------------------------------------


def _loop(root: str, every_s: float, stop) -> None:
    fresh.follow(Lake(root), every_s, stop)


def latency(options) -> dict:
    """Seconds from the commit of a minute's closed samples to the first version that has learned them."""
    hours = 4
    traffic = TrafficConfig(seed=options.seed, hours=hours, events_per_hour=42_000)
    frame = pl.concat(displays(traffic)).filter(pl.col("time") < traffic.start_us + hours * 3_600_000_000)
    rows = drawn.samples(frame.sort("time", maintain_order=True))
    times = frame["time"].sort().to_numpy()
    base = traffic.start + dt.timedelta(hours=hours - 1)

    def put(lake: Lake, until: dt.datetime) -> float:
        count = int(np.searchsorted(times, int(until.timestamp() * 1e6)))
        hour = (until - dt.timedelta(microseconds=1)).replace(minute=0, second=0, microsecond=0)
        first = int(np.searchsorted(times, int(hour.timestamp() * 1e6)))
        write = Write(drawn.SAMPLES, rows.slice(first, count - first), Window(hour, hour + dt.timedelta(hours=1)))
        lake.commit([lake.stage(write)], by="bench", note={fresh.NOTE: until.isoformat()})
        return time.time()

    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(folder)
        for hour in range(1, hours):
            put(lake, traffic.start + dt.timedelta(hours=hour))
        config = RankerConfig(sequences=(), holdout=0, device="cpu")
        train(lake, None, Window(traffic.start, base), config)
        context = multiprocessing.get_context("spawn")
        stop = context.Event()
        loop = context.Process(target=_loop, args=(folder, options.every, stop))
        loop.start()
        closed, published = {}, {}
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.05):
                for version in registry.versions(lake):
                    if version not in published:
                        said = json.loads((registry.folder(lake) / version / "config.json").read_text())
                        published[version] = (time.time(), fresh.seen_until(lake, version), said.get("fresh", {}).get("rows"))

        watcher = threading.Thread(target=watch)
        watcher.start()
        for minute in range(1, options.minutes + 1):
            until = base + dt.timedelta(minutes=minute)
            closed[until] = put(lake, until)
            time.sleep(options.feed)
        deadline = time.time() + 180
        while time.time() < deadline and max(one[1] for one in list(published.values())) < base + dt.timedelta(minutes=options.minutes):
            time.sleep(0.1)
        stop.set()
        loop.join()
        done.set()
        watcher.join()
    waited = [min(when for when, until, _ in published.values() if until >= minute) - at for minute, at in closed.items()]
    return {
        "stretches": len(waited), "versions": len(published) - 1, "every_s": options.every, "feed_s": options.feed,
        "p50_s": float(np.percentile(waited, 50)), "p95_s": float(np.percentile(waited, 95)), "max_s": max(waited),
        "rows": [rows for _, _, rows in published.values() if rows],
    }  # fmt: skip


def show(title: str, rows: list[dict], names: tuple[str, ...]) -> None:
    print(f"\n{title}\n{'':22}" + "".join(f"{name:>18}" for name in names))
    for row in rows:
        print(f"{row['name']:22}" + "".join(f"{row[name]:>18.4f}" for name in names))


def experiments(options, report: dict) -> None:
    import torch.distributed as dist

    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=0, world_size=1)
        try:
            given = world(options)
            assert len(given[1]) == len(OUTPUTS)
            if "delay" in options.parts:
                report["delay"] = by_delay(given, options)
                show("AUC of click by the age of the model", report["delay"], ("auc", "auc_second_half", "log_loss", "calibration"))
            if "late" in options.parts:
                for mean_s in options.click_delay:
                    found = by_label(given, options, mean_s)
                    report.setdefault("late", []).extend(found)
                    show(f"clicks that come {mean_s:g} s after the display, in the mean", found, ("auc", "log_loss", "calibration"))
        finally:
            dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=["delay", "late", "latency"], choices=["delay", "late", "latency"])
    parser.add_argument("--warm", type=int, default=8, help="hours")
    parser.add_argument("--hours", type=int, default=8, help="after these, minute by minute")
    parser.add_argument("--per-hour", type=float, default=20_000, help="events")
    parser.add_argument("--drift", type=float, default=2.0, help="quarter turns of taste a day")
    parser.add_argument("--lr", type=float, default=5e-4, help="of the dense weights, minute by minute")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--click-delay", type=float, nargs="+", default=[4, 300], help="mean seconds; the generator's own is 4")
    parser.add_argument("--minutes", type=int, default=12, help="of samples that close, in `latency`")
    parser.add_argument("--feed", type=float, default=15.0, help="seconds between them")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two looks of the fresh loop")
    options = parser.parse_args()
    report: dict = {"options": vars(options)}
    if {"delay", "late"} & set(options.parts):
        experiments(options, report)
    if "latency" in options.parts:
        report["latency"] = latency(options)
        print("\nclosed -> published:", {name: round(value, 2) for name, value in report["latency"].items() if name != "rows"})
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
