"""The ranker on the demo's samples, on the GPU beside the CPU of the same machine. Imports torch inside functions.

The samples are those of a lake (--lake: one that `make demo` wrote), or are drawn: displays of the demo's world (assets/events/generator.py), with
the columns of `training_samples`; counters and lists are noise there. The whole way is measured: Delta, hashing, scaling, shuffling, training.

Here: which runs, and their AUC. Not here: how each is measured (benchmarks/ranker.py).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
import pyarrow as pa
from deltalake import write_deltalake

from assets.events.generator import TrafficConfig, displays
from assets.lake import Lake, Window
from assets.ranking import samples
from assets.ranking.config import RankerConfig, load
from assets.ranking.train import train
from benchmarks import drawn
from benchmarks import ranker as bench

TOLERANCE = 0.005  # of an AUC: what the gate lets a version lose (assets/ranking/promotion.toml)
DISPLAYS = 0.7  # of the world's events, about


def plant(lake: Lake, count: int) -> None:
    """About `count` samples of bench.WINDOW: displays of the demo's world, counters and lists as bench.noise draws them."""
    traffic = TrafficConfig(start=bench.START, hours=bench.HOURS, events_per_hour=count / bench.HOURS / DISPLAYS)
    frame = pl.concat(displays(traffic)).filter(pl.col("time") < traffic.start_us + bench.HOURS * 3_600_000_000)
    real = drawn.samples(frame.sort("time", maintain_order=True))
    table = bench.noise(real.num_rows)
    for name in real.column_names:
        table = table.set_column(table.column_names.index(name), name, real[name])
    write_deltalake(lake.path(samples.TABLE), table, partition_by=["hour"])


def window_of(lake: Lake) -> Window:
    """All hours of the lake's samples."""
    hours = lake.dataset(samples.TABLE).to_table(columns=["hour"])["hour"].cast(pa.timestamp("us", "UTC"))
    found = np.unique(hours.to_numpy())
    first, last = (dt.datetime.fromtimestamp(int(h.astype("datetime64[s]").astype(int)), dt.UTC) for h in (found[0], found[-1]))
    return Window(first, last + dt.timedelta(hours=1))


def config_of(device: str, batch: int, **changes) -> RankerConfig:
    threads = 1 if device == "cuda" else 0
    return load("shared_bottom", **{"device": device, "batch": batch, "min_steps": 1, "checkpoint_s": 0.0, "threads": threads, **changes})


def trained(lake: Lake, window: Window, config: RankerConfig, start_from: str | None = None) -> dict:
    """One training and evaluation; samples/s of its loop, AUC of heads on the held-out samples."""
    found = train(lake, None, window, config, start_from=start_from)
    heads = {name: one["auc"] for name, one in found["heads"].items()}
    return {"samples_per_s": found["samples_per_s"], "seconds": found["seconds"], "steps": found["steps"], "batch": found["batch"], "auc": heads,
            "evaluated": found["evaluated_samples"], "version": found["version"], "backend": found["backend"], "sharding": found["sharding"]}  # fmt: skip


def quality(lake: Lake, window: Window, gpu: bool, batch: int, say: Callable[[str, object], None]) -> dict:
    """AUC of the same samples and seed on CPU and GPU; and on the CPU, of another seed (what chance alone makes of it), and of a training that
    goes on with the version that the GPU made.
    """
    found = {"cpu": trained(lake, window, config_of("cpu", batch)), "cpu, another seed": trained(lake, window, config_of("cpu", batch, seed=8))}
    if gpu:
        found["gpu"] = trained(lake, window, config_of("cuda", batch))
        found["cpu, from there on"] = trained(lake, window, config_of("cpu", batch), found["gpu"]["version"])
    for name, one in found.items():
        say(f"{name}, batch {batch}", one)
    return {"runs": found, **agreement(found)} if gpu else {"runs": found}


def agreement(runs: dict) -> dict:
    """The GPU's click AUC minus the CPU's, and whether that lies within TOLERANCE."""
    difference = runs["gpu"]["auc"]["click"] - runs["cpu"]["auc"]["click"]
    return {"difference": difference, "tolerance": TOLERANCE, "within": abs(difference) <= TOLERANCE}


def speed(lake: Lake, window: Window, gpu: bool, batch: int, processes: tuple[int, ...], say: Callable[[str, object], None]) -> dict[str, float]:
    """Samples/s by contestant."""
    found: dict[str, float] = {}

    def told(name: str, work: Callable[[], float]) -> None:
        found[name] = work()
        say(name, found[name])

    plain = (True, "Adagrad", 0, True)
    if gpu:
        config = config_of("cuda", batch)
        told("input only: read, hash, scale, shuffle", lambda: bench.input_only(lake, config, window))
        bench.torchrec(lake, config, window)  # warms up: kernels are loaded when first called
        told("TorchRec, GPU", lambda: bench.torchrec(lake, config, window))
        told("TorchRec, GPU, input held in memory", lambda: bench.from_memory(lake, config, window))
        told("plain nn.EmbeddingBag, GPU", lambda: bench.plain_pytorch(lake, config, *plain, window))
    on_cpu = config_of("cpu", batch)
    if not gpu:
        told("input only: read, hash, scale, shuffle", lambda: bench.input_only(lake, on_cpu, window))
    for count in processes:
        config = replace(on_cpu, processes=count, batch=max(64, batch // count))
        told(f"TorchRec, CPU, {count} process{'es' if count > 1 else ''}", lambda: bench.torchrec(lake, config, window))
    told("plain nn.EmbeddingBag, CPU", lambda: bench.plain_pytorch(lake, on_cpu, *plain, window))
    return found
