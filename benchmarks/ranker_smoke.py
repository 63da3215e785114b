"""How many samples a second the ranker trains on: TorchRec in one and in two processes, beside plain PyTorch.

    .venv/bin/python benchmarks/ranker_smoke.py [--samples 400000] [--rounds 3]

The same samples, the same network and the same batches for all three; the plain model has one nn.EmbeddingBag a feature
(nn.Embedding for the tables that lists share) and Adagrad in place of the sharded tables with their fused optimizer. Times are of the training loop, reading the Delta
table included, process start not. The contestants take turns and the best of the rounds counts: a shared machine only
ever makes a run slower. Prints a table and writes build/reports/ranker_smoke.json (rows with name, samples_per_s).
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from assets.lake import Lake, Window
from assets.ranking import samples
from assets.ranking.config import HEADS, SEQUENCES, RankerConfig
from assets.ranking.train import train

REPORT = Path(__file__).resolve().parent.parent / "build" / "reports" / "ranker_smoke.json"
START = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
HOURS = 8
COUNTERS = ("impressions", "clicks", "likes", "favs", "comments", "shares", "follows", "hides", "views", "dwell_ms")
TOPICS = np.array([f"t{i}" for i in range(24)])


def write_samples(lake: Lake, rows: int) -> None:
    """Samples with the columns of `training_samples` and ids as skewed as a feed's; the labels are noise."""
    rng = np.random.default_rng(1)
    seconds = np.sort(rng.integers(0, HOURS * 3600, rows))
    clicked = (rng.random(rows) < 0.12).astype(np.int32)
    counters = {f"{who}_{name}": rng.poisson(20, rows) for who in ("user", "note") for name in COUNTERS}
    rates = {f"{who}_ctr": rng.beta(2, 18, rows) for who in ("user", "note")}
    labels = {f"label_{head}": clicked * (rng.random(rows) < 0.1).astype(np.int32) for head in HEADS[1:]}
    start, time_type = int(START.timestamp()), pa.timestamp("us", "UTC")
    table = pa.table(
        {
            "hour": pa.array((start + seconds // 3600 * 3600) * 1_000_000, time_type),
            "session_start": pa.array((start + seconds) * 1_000_000, time_type),
            "user_id": rng.zipf(1.2, rows) % 200_000, "note_id": rng.zipf(1.2, rows) % 100_000,
            "author_id": rng.zipf(1.2, rows) % 10_000, "topic": TOPICS[rng.integers(0, 24, rows)],
            "channel": np.array(["homefeed", "search"])[rng.integers(0, 2, rows)], "request_id": np.full(rows, "r"),
            "device": np.array(["ios", "android", "web"])[rng.integers(0, 3, rows)],
            "position": rng.integers(0, 12, rows).astype(np.int32), "hour_of_day": (seconds // 3600).astype(np.int32),
            **counters, **rates, "label_click": clicked, "engaged": clicked, **labels,
            "dwell_ms": clicked * rng.integers(0, 60_000, rows), **lists(rng, rows),
        }
    )  # fmt: skip
    write_deltalake(lake.path(samples.TABLE), table, partition_by=["hour"])


def lists(rng: np.random.Generator, rows: int) -> dict[str, pa.Array]:
    """Readers' last clicks (6 a sample in the mean, 20 at most) and likes (1)."""
    found = {}
    for mean, columns in zip((6, 1), SEQUENCES.values(), strict=True):
        offsets = np.r_[0, np.minimum(rng.poisson(mean, rows), 20).cumsum()].astype(np.int32)
        n = offsets[-1]
        values = (rng.zipf(1.2, n) % 100_000, TOPICS[rng.integers(0, 24, n)], rng.zipf(1.2, n) % 10_000)
        found |= {name: pa.ListArray.from_arrays(offsets, pa.array(v)) for name, v in zip(columns, values, strict=True)}
    return found


class _Values:
    """A lookup's result, read as the one of TorchRec is."""

    def __init__(self, found) -> None:
        self.found = found

    def values(self):
        return self.found


def plain_pytorch(lake: Lake, window: Window, config: RankerConfig) -> float:
    """Samples/s of the same network on nn.EmbeddingBag, in this process."""
    import torch

    from assets.ranking.model import RankerModel, loss

    class Bags(torch.nn.Module):
        def __init__(self, names: list[str], tables: dict[str, int]) -> None:
            super().__init__()
            made = {n: torch.nn.EmbeddingBag(tables[n], config.dim, mode="sum", sparse=True) for n in names}
            self.bags = torch.nn.ModuleDict(made)

        def forward(self, ids) -> dict[str, torch.Tensor]:
            rows = ids.values().view(len(self.bags), -1, 1)
            return {name: bag(rows[i]) for i, (name, bag) in enumerate(self.bags.items())}

    class Lists(torch.nn.Module):
        def __init__(self, reads: dict[str, str], tables: dict[str, int]) -> None:
            super().__init__()
            self.reads = reads
            made = {n: torch.nn.Embedding(tables[n], config.dim, sparse=True) for n in dict.fromkeys(reads.values())}
            self.tables = torch.nn.ModuleDict(made)

        def forward(self, ids) -> dict:
            parts = ids.values().split(ids.length_per_key())
            looked = (self.tables[self.reads[key]](part) for key, part in zip(ids.keys(), parts, strict=True))
            return {key: _Values(found) for key, found in zip(ids.keys(), looked, strict=True)}

    torch.set_num_threads(config.threads)
    where = samples.split(lake, window, config)
    schema, _ = samples.fit_schema(where, config)
    model = RankerModel(schema, config, torch.device("cpu"))
    model.embeddings = Bags(model.pooled, schema.tables)
    reads = schema.list_columns | {table: table for table in model.shared}
    model.list_embeddings = Lists({key: reads[key] for key in model.entry_keys}, schema.tables)
    tables = [*model.embeddings.parameters(), *model.list_embeddings.parameters()]
    own = {id(p) for p in tables}
    dense = [p for p in model.parameters() if id(p) not in own]
    optimizers = [torch.optim.Adagrad(tables, lr=config.lr_embedding), torch.optim.Adam(dense, lr=config.lr_dense)]
    started = time.perf_counter()

    def batches():
        for batch in samples.training_batches(where, schema, config):
            yield model.inputs(batch), torch.from_numpy(batch.labels), torch.from_numpy(batch.weights)

    for given, labels, weights in samples.prefetched(batches()):
        value = loss(model(given), labels, weights, config)
        for optimizer in optimizers:
            optimizer.zero_grad()
        value.backward()
        for optimizer in optimizers:
            optimizer.step()
    return where.train_rows / (time.perf_counter() - started)


def input_only(lake: Lake, window: Window, config: RankerConfig) -> float:
    """Samples/s of reading, encoding and shuffling alone: what the model can at most be fed."""
    where = samples.split(lake, window, config)
    schema, _ = samples.fit_schema(where, config)
    started = time.perf_counter()
    for _ in samples.training_batches(where, schema, config):
        pass
    return where.train_rows / (time.perf_counter() - started)


def torchrec(lake: Lake, window: Window, config: RankerConfig) -> float:
    return train(lake, None, window, config)["samples_per_s"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    window = Window(START, START + dt.timedelta(hours=HOURS))
    one = RankerConfig(threads=1, device="cpu")
    two = RankerConfig(threads=1, device="cpu", processes=2)
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(folder)
        write_samples(lake, options.samples)
        runs = [
            ("input only (read, hash, scale, shuffle)", input_only, one),
            ("plain PyTorch, nn.EmbeddingBag, 1 process", plain_pytorch, one),
            ("TorchRec, DistributedModelParallel, 1 process", torchrec, one),
            ("TorchRec, DistributedModelParallel, 2 processes (gloo)", torchrec, two),
        ]
        found = [[round(work(lake, window, config)) for _, work, config in runs] for _ in range(options.rounds)]
    rows = [{"name": run[0], "samples_per_s": max(of), "rounds": of} for run, of in zip(runs, zip(*found), strict=True)]
    base = rows[1]["samples_per_s"]
    print(f"{'':56}{'samples/s':>12}{'ratio':>8}")
    for row in rows:
        print(f"{row['name']:56}{row['samples_per_s']:>12,}{row['samples_per_s'] / base:>8.2f}")
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps({"samples": options.samples, "batch": one.batch, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
