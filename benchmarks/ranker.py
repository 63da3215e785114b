"""How many samples a second the ranker trains on, and where the time goes: `make bench-ranker`.

    .venv/bin/python -m benchmarks.ranker [--samples 400000] [--rounds 3] [--model shared_bottom]
                                          [--batch 1024] [--dim 16] [--scale 1] [--device auto]

The same samples, the same network and the same batches for all:
- input only: reading the Delta table, hashing, scaling, shuffling, without a model: what a model can at most be fed;
- the same network on nn.EmbeddingBag in one process, for each of PLAIN (how gradients and optimizers are chosen, how many
  threads); the best of them is the base of the ratios;
- TorchRec under DistributedModelParallel, for each of TORCHREC, reading its input; and with the input held in memory.
Times are of the training loop, process start not included. The contestants take turns and the best of the rounds counts: a
shared machine only ever makes a run slower. Then one run of each of TORCHREC under torch.profiler: shares of input, lookup,
dense and comms. On a GPU also lookups a second against the memory's bandwidth, and a day of 500 million samples.

Prints tables and writes build/reports/ranker.json: rows with name, samples_per_s; shares; gpu (null without one).
Here: the measuring, and the plain network. Not here: assertions on time, the ranker (assets/ranking).
"""

from __future__ import annotations

import argparse
import datetime as dt
import itertools
import json
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from assets.lake import Lake, Window
from assets.ranking import samples
from assets.ranking.config import HEADS, SEQUENCES, RankerConfig, load
from assets.ranking.train import train
from dagster_project import show

REPORT = Path(__file__).resolve().parent.parent / "build" / "reports" / "ranker.json"
START = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
HOURS = 8
WINDOW = Window(START, START + dt.timedelta(hours=HOURS))
COUNTERS = ("impressions", "clicks", "likes", "favs", "comments", "shares", "follows", "hides", "views", "dwell_ms")
TOPICS = np.array([f"t{i}" for i in range(24)])
DAY = 500_000_000  # samples
HELD_BATCHES = 32  # where the input is held in memory
PROFILED = 300  # steps; every operator of each is remembered
PLAIN_SECONDS = 20.0  # of one measurement of the plain network: dense gradients take minutes an epoch

# Plain PyTorch: name -> sparse gradients of the tables, their optimizer, threads (0: all cores), each id looked up once a batch.
PLAIN = {
    "sparse gradients, Adagrad, 1 thread": (True, "Adagrad", 1, False),
    "sparse gradients, Adagrad, all cores": (True, "Adagrad", 0, False),
    "sparse gradients, SparseAdam, all cores": (True, "SparseAdam", 0, False),
    "dense gradients, Adagrad, all cores": (False, "Adagrad", 0, False),
    "sparse gradients, Adagrad, 1 thread, an id looked up once": (True, "Adagrad", 1, True),
    "sparse gradients, Adagrad, all cores, an id looked up once": (True, "Adagrad", 0, True),
}
# TorchRec: name -> changes to the configuration. A way of embedding (managed collision, say) is one more line.
TORCHREC = {
    "1 process": {"processes": 1, "threads": 1},
    "2 processes": {"processes": 2, "threads": 1},
}
# What an operator's time is counted as, by its name; the first that fits. The rest of torch's operators is the dense part.
KINDS = {
    "comms": r"c10d|gloo|nccl|all2all|alltoall|all_reduce|allreduce|all_gather|allgather|broadcast|record_param_comms",
    "lookup": r"fbgemm|embedding|jagged|cumsum|bucketize|permute_(1d|2d|sparse)|index_select|segment_sum|^_?(looked|read)(backward)?$",
}


# --- the samples ------------------------------------------------------------------------------------------------------


def write_samples(lake: Lake, rows: int) -> None:
    write_deltalake(lake.path(samples.TABLE), noise(rows), partition_by=["hour"])


def noise(rows: int) -> pa.Table:
    """Samples with the columns of `training_samples` and ids as skewed as a feed's; the labels are noise."""
    rng = np.random.default_rng(1)
    seconds = np.sort(rng.integers(0, HOURS * 3600, rows))
    clicked = (rng.random(rows) < 0.12).astype(np.int32)
    counters = {f"{who}_{name}": rng.poisson(20, rows) for who in ("user", "note") for name in COUNTERS}
    rates = {f"{who}_ctr": rng.beta(2, 18, rows) for who in ("user", "note")}
    labels = {f"label_{head}": clicked * (rng.random(rows) < 0.1).astype(np.int32) for head in HEADS[1:]}
    start, time_type = int(START.timestamp()), pa.timestamp("us", "UTC")
    return pa.table(
        {
            "hour": pa.array((start + seconds // 3600 * 3600) * 1_000_000, time_type),
            "session_start": pa.array((start + seconds) * 1_000_000, time_type),
            "user_id": rng.zipf(1.2, rows) % 200_000, "note_id": rng.zipf(1.2, rows) % 100_000,
            "author_id": rng.zipf(1.2, rows) % 10_000, "topic": TOPICS[rng.integers(0, 24, rows)],
            "channel": np.array(["homefeed", "search"])[rng.integers(0, 2, rows)], "request_id": np.full(rows, "r"),
            "device": np.array(["ios", "android", "web"])[rng.integers(0, 3, rows)],
            "position": rng.integers(0, 12, rows).astype(np.int32), "hour_of_day": (seconds // 3600).astype(np.int32),
            **counters, **rates, "label_click": clicked, "engaged": clicked, **labels,
            "dwell_ms": clicked * rng.integers(0, 60_000, rows), **_lists(rng, rows),
        }
    )  # fmt: skip


def _lists(rng: np.random.Generator, rows: int) -> dict[str, pa.Array]:
    """Readers' last clicks (6 a sample in the mean, 20 at most) and likes (1)."""
    found = {}
    for mean, columns in zip((6, 1), SEQUENCES.values(), strict=True):
        offsets = np.r_[0, np.minimum(rng.poisson(mean, rows), 20).cumsum()].astype(np.int32)
        n = offsets[-1]
        notes, authors = pa.array(rng.zipf(1.2, n) % 100_000), pa.array(rng.zipf(1.2, n) % 10_000)
        values = (notes, pa.array(TOPICS).take(pa.array(rng.integers(0, 24, n))), authors)
        found |= {name: pa.ListArray.from_arrays(offsets, v) for name, v in zip(columns, values, strict=True)}
    return found


# --- input alone, and plain PyTorch -----------------------------------------------------------------------------------


def input_only(lake: Lake, config: RankerConfig, window: Window = WINDOW) -> float:
    where = samples.split(lake, window, config)
    schema, _ = samples.fit_schema(where, config)
    started = time.perf_counter()
    for _ in samples.training_batches(where, schema, config):
        pass
    return where.train_rows / (time.perf_counter() - started)


def _plain_model(schema, config: RankerConfig, device, sparse: bool, once: bool):
    """The ranker's network with one nn.EmbeddingBag a table (nn.Embedding where lists share it); (model, its tables).

    once: an id of a shared table is looked up once a batch, as the ranker does; else as often as it occurs.
    """
    import torch
    from torch import nn

    from assets.ranking.model import RankerModel

    def made(kind: type, names: list[str], **options) -> nn.ModuleDict:
        return nn.ModuleDict({n: kind(schema.tables[n], config.dim, sparse=sparse, device=device, **options) for n in names})

    class Plain(RankerModel):
        def looked_up(self, given) -> tuple[torch.Tensor, list[torch.Tensor]]:
            bag = given.ids["embeddings"]
            ids = bag.values()
            if once:
                rows = torch.cat([self.look(i, part) for i, part in enumerate(ids.split(bag.lengths().tolist()))])
                read = lambda field, places: rows.index_select(0, places)  # noqa: E731
            else:
                read = lambda field, places: self.look(field, ids[places])  # noqa: E731
            own = torch.stack([read(i, given.places[:, i]) for i in range(len(self.features))], dim=1)
            lists = []
            for i, (name, fields) in enumerate(self.fields.items()):
                entries = torch.cat([read(field, given.entries[i][:, place]) for place, field in enumerate(fields)], dim=1)
                lists.append(self.attention[name].over(self.candidate(own, name), entries, given.lengths[:, i]))
            return own, lists

        def look(self, feature: int, ids: torch.Tensor) -> torch.Tensor:
            table = self.embeddings[self.features[feature]]
            return table(ids.view(-1, 1) if isinstance(table, nn.EmbeddingBag) else ids)

    model = Plain(schema, config, device)
    shared = {model.features[i] for fields in model.fields.values() for i in fields}
    bags = made(nn.EmbeddingBag, [name for name in model.features if name not in shared], mode="sum")
    model.embeddings = nn.ModuleDict({**bags, **made(nn.Embedding, [name for name in model.features if name in shared])})
    return model, list(model.embeddings.parameters())


def plain_pytorch(
    lake: Lake, config: RankerConfig, sparse: bool, optimizer: str, threads: int, once: bool, window: Window = WINDOW
) -> float:
    """Samples/s of the plain network, in this process, over at most PLAIN_SECONDS."""
    import torch

    from assets.ranking.model import loss
    from assets.ranking.worker import device_of

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    device = device_of(config, 0)
    where = samples.split(lake, window, config)
    schema, _ = samples.fit_schema(where, config)
    model, tables = _plain_model(schema, config, device, sparse, once)
    own = {id(p) for p in tables}
    dense = [p for p in model.parameters() if id(p) not in own]
    lr = config.lr_embedding if optimizer == "Adagrad" else config.lr_dense
    optimizers = [getattr(torch.optim, optimizer)(tables, lr=lr), torch.optim.Adam(dense, lr=config.lr_dense)]

    def batches() -> Iterator:
        for batch in samples.training_batches(where, schema, config):
            labels, weights = (torch.from_numpy(a).to(device) for a in (batch.labels, batch.weights))
            yield model.inputs(batch, device), labels, weights

    started, rows = time.perf_counter(), 0
    for given, labels, weights in samples.prefetched(batches()):
        value = loss(model(given), labels, weights, config)
        for each in optimizers:
            each.zero_grad()
        value.backward()
        for each in optimizers:
            each.step()
        rows += len(labels)
        if time.perf_counter() - started > PLAIN_SECONDS:
            break
    if device.type == "cuda":
        torch.cuda.synchronize()
    found = min(rows, where.train_rows) / (time.perf_counter() - started)
    torch.set_num_threads(before)
    return found


# --- TorchRec ---------------------------------------------------------------------------------------------------------


def torchrec(lake: Lake, config: RankerConfig, window: Window = WINDOW) -> float:
    return train(lake, None, window, config)["samples_per_s"]


class Feed:
    """Stands before the batches of the training loop: counts them, and the time that the loop waits for them.

    held: the first HELD_BATCHES are kept and handed out again and again, so that the input costs nothing.
    profiler: runs from the loop's begin for PROFILED steps, which `waited` and `last` then are of.
    """

    def __init__(self, held: bool = False, profiler=None) -> None:
        self.held, self.profiler, self.loop = held, profiler, threading.current_thread()
        self.waited, self.batches, self.first, self.last = 0.0, 0, None, None
        self.prefetched = samples.prefetched

    def __call__(self, items: Iterator, *args, **kwargs) -> Iterator:
        made = self.prefetched(items, *args, **kwargs)
        return self._handed(made) if threading.current_thread() is self.loop else made  # the reader has a queue of its own

    def _handed(self, made: Iterator) -> Iterator:
        if self.held:
            kept = list(itertools.islice(made, HELD_BATCHES))
            left = sum(1 for _ in made)
            made = itertools.chain(kept, itertools.islice(itertools.cycle(kept), left))
        if self.profiler:
            self.profiler.start()
        self.first = time.perf_counter()
        try:
            while True:
                asked = time.perf_counter()
                batch = next(made, None)
                self.waited += time.perf_counter() - asked
                if batch is None:
                    return
                self.batches += 1
                yield batch
                if self.profiler and self.batches == PROFILED:
                    break
            self._ended()
            yield from made
        finally:
            if self.last is None:
                self._ended()

    def _ended(self) -> None:
        self.last = time.perf_counter()
        if self.profiler:
            self.profiler.stop()


def from_memory(lake: Lake, config: RankerConfig, window: Window = WINDOW) -> float:
    """Samples/s of the steps alone, in one process, the input held in memory."""
    feed = Feed(held=True)
    with mock.patch.object(samples, "prefetched", feed):
        metrics = train(lake, None, window, config)
    return feed.batches * metrics["batch"] / (feed.last - feed.first)


# --- where the time goes ----------------------------------------------------------------------------------------------


def shares(lake: Lake, config: RankerConfig, window: Window = WINDOW) -> dict[str, float]:
    """Seconds of the training loop of the first process by KINDS, input and rest, under the profiler."""
    from assets.ranking import worker

    found: dict = {}

    def hear(report: dict) -> None:
        if report["phase"] == "profile":
            found.update(report["seconds"])

    # Processes are spawned: they look the function up in this module.
    with mock.patch.object(worker, "run", watched(worker.run)), mock.patch.object(worker, "spawned", profiled):
        train(lake, None, window, config, progress=hear)
    return found


def profiled(rank: int, job, reports) -> None:
    """Entry of a spawned process, in place of worker.spawned."""
    from assets.ranking import worker

    watched(worker.run)(rank, job, reports.put)


def watched(run: Callable) -> Callable:
    """worker.run under the profiler; it also reports {"phase": "profile", "seconds": by kind}."""

    def watch(rank: int, job, report: Callable[[dict], None]) -> None:
        from torch.profiler import ProfilerActivity, profile

        device = [ProfilerActivity.CUDA] if _gpu(job.config) else []
        profiler = profile(activities=[ProfilerActivity.CPU, *device])
        feed, last = Feed(profiler=profiler), {}

        def hear(said: dict) -> None:
            if said["phase"] == "trained":
                last.update(said)
            else:
                report(said)

        with mock.patch.object(samples, "prefetched", feed):
            run(rank, job, hear)
        if rank == 0:
            seconds = {"input": feed.waited, **by_kind(profiler.key_averages(), bool(device)), "loop": feed.last - feed.first}
            if not device:
                seconds["rest"] = max(0.0, seconds["loop"] - sum(seconds[kind] for kind in ("input", *KINDS, "dense")))
            report({"phase": "profile", "seconds": seconds})
            report(last)

    return watch


def by_kind(events, gpu: bool) -> dict[str, float]:
    """Seconds of operators by KINDS and dense, of a profiler's key_averages(). gpu: of the kernels that they launched, which run beside the loop.

    Of a GPU a kernel is an event of its own too, and so is what the GPU sees of a named range: only operators are counted, for they hold
    what they launched.
    """
    from torch.autograd import DeviceType

    found = {**{kind: 0.0 for kind in KINDS}, "dense": 0.0}
    for event in events:
        if event.device_type != DeviceType.CPU:
            continue
        own = event.self_device_time_total if gpu else event.self_cpu_time_total
        kind = next((kind for kind, names in KINDS.items() if re.search(names, event.key, re.I)), "dense")
        found[kind] += own / 1e6
    return found


# --- a GPU ------------------------------------------------------------------------------------------------------------


def _gpu(config: RankerConfig) -> bool:
    import torch

    return config.device != "cpu" and torch.cuda.is_available()


def gpu_figures(lake: Lake, config: RankerConfig, samples_per_s: float) -> dict:
    """What a rate means on this GPU: lookups a second, the bytes they move, against what the memory was measured to move."""
    import torch

    from benchmarks.gpu import timing

    per_sample = lookups_per_sample(lake, config)
    # A row is read forward; read and written backward; row-wise Adagrad reads and writes one float more.
    moved = 3 * config.dim * 4 + 8
    bandwidth = timing.copy_bytes_per_s(torch.device("cuda"))
    rate = samples_per_s * per_sample
    return {
        "name": torch.cuda.get_device_name(), "lookups_per_sample": per_sample, "lookups_per_s": rate,
        "lookup_bytes_per_s": rate * moved, "copy_bytes_per_s": bandwidth, "share_of_bandwidth": rate * moved / bandwidth,
        "day_hours": DAY / samples_per_s / 3600,
    }  # fmt: skip


def lookups_per_sample(lake: Lake, config: RankerConfig, window: Window = WINDOW) -> float:
    """Rows of embedding tables that a sample reads, in the mean of the first batch."""
    where = samples.split(lake, window, config)
    schema, _ = samples.fit_schema(where, config)
    batch = next(iter(samples.training_batches(where, schema, config)))
    lists = sum(int((batch.lists[:, i] > 0).sum()) for i in range(batch.lists.shape[1])) / len(batch.ids)
    return batch.ids.shape[1] + lists


# --- the run ----------------------------------------------------------------------------------------------------------


def contestants(config: RankerConfig) -> dict[str, tuple[Callable[[Lake, RankerConfig], float], RankerConfig]]:
    found = {"input only: read, hash, scale, shuffle": (input_only, config)}
    for name, kind in PLAIN.items():
        work = lambda lake, config, kind=kind: plain_pytorch(lake, config, *kind)  # noqa: E731
        found[f"plain PyTorch, 1 process: {name}"] = (work, config)
    for name, changes in _torchrec(config).items():
        found[f"TorchRec, DistributedModelParallel, {name}"] = (torchrec, changes)
    one = next(iter(_torchrec(config).values()))
    found["TorchRec, 1 process, input held in memory"] = (from_memory, one)
    return found


def _torchrec(config: RankerConfig) -> dict[str, RankerConfig]:
    """TORCHREC as configurations; on GPUs those with no more processes than there are GPUs."""
    import torch

    most = torch.cuda.device_count() if _gpu(config) else None
    made = {name: RankerConfig.from_dict({**config.as_dict(), **changes}) for name, changes in TORCHREC.items()}
    return {name: one for name, one in made.items() if most is None or one.processes <= most}


def main() -> None:
    options = _options()
    say = show.Steps()
    scaled = {name: max(2, int(rows * options.scale)) for name, rows in load(options.model).tables.items()}
    changes = {"tables": scaled, "dim": options.dim, "device": options.device, "threads": 1, "checkpoint_s": 0.0}
    config = load(options.model, batch=options.batch, min_steps=1, **changes)
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(folder)
        say(f"writing {options.samples:,} samples")
        write_samples(lake, options.samples)
        runs = contestants(config)
        found: dict[str, list[float]] = {name: [] for name in runs}
        for turn, (name, (work, own)) in itertools.product(range(options.rounds), runs.items()):
            found[name].append(work(lake, own))
            say(f"round {turn + 1}: {name}: {found[name][-1]:,.0f} samples/s")
        rows = [{"name": name, "samples_per_s": max(of), "rounds": of} for name, of in found.items()]
        where = {name: shares(lake, own) for name, own in _torchrec(config).items()}
        gpu = gpu_figures(lake, config, max(r["samples_per_s"] for r in rows if r["name"].startswith("TorchRec"))) if _gpu(config) else None
    _print(rows, where, gpu)
    said = {"samples": options.samples, "model": options.model, "batch": options.batch, "dim": options.dim, "scale": options.scale}
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text(json.dumps({**said, "rows": rows, "shares": where, "gpu": gpu}, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.ranker", description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="shared_bottom", help="a configuration of assets/ranking/models")
    parser.add_argument("--batch", type=int, default=1024, help="samples a step and process; a GPU wants 16384 or more")
    parser.add_argument("--dim", type=int, default=16, help="floats an embedding")
    parser.add_argument("--scale", type=float, default=1.0, help="times the rows of every table")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--report", type=Path, default=REPORT)
    return parser.parse_args()


def _print(rows: list[dict], where: dict[str, dict], gpu: dict | None) -> None:
    plain = max(row["samples_per_s"] for row in rows if row["name"].startswith("plain"))
    table = [(row["name"], round(row["samples_per_s"]), f"{row['samples_per_s'] / plain:.2f}") for row in rows]
    show.table("Samples a second", table, ("", "samples/s", "of the best plain PyTorch"))
    kinds = ("input", *KINDS, "dense", "rest")
    shared = [(name, *(f"{of[kind] / of['loop']:.0%}" if kind in of else None for kind in kinds)) for name, of in where.items()]
    show.table("Where the training loop's time goes, under the profiler", shared, ("TorchRec", *kinds))
    if gpu is None:
        show.console.print("No GPU was used: lookups against memory bandwidth and a day of 500 million samples were not measured.")
    else:
        show.table(f"On one {gpu['name']}", {
            "lookups a sample": round(gpu["lookups_per_sample"], 1), "lookups a second": gpu["lookups_per_s"],
            "bytes a second of these": gpu["lookup_bytes_per_s"], "bytes a second of a copy": gpu["copy_bytes_per_s"],
            "share of the bandwidth": f"{gpu['share_of_bandwidth']:.1%}", "hours for a day of 500 million samples": gpu["day_hours"],
        })  # fmt: skip


if __name__ == "__main__":
    with show.expected_errors():
        sys.exit(main())
