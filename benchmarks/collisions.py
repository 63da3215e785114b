"""Collision-free embeddings beside hashing into the same memory: collisions, AUC, samples a second.

    .venv/bin/python -m benchmarks.collisions [--hours 12] [--per-hour 25000] [--seeds 3] [--shares 1 0.25 0.1]

Displays drawn from the generator's world with many more notes than a table has rows. `share`: rows of the four id tables over the
ids that there are. Each share is trained with hashing ("hash"), with hashing into as many more rows as the map's memory would buy ("hash
+ map"), and with maps ("managed"): same samples, same network, --seeds seeds, in turns. AUC is of the newest fifth, beside that of the
truth on the same rows. Speed is that of the training loop; on a shared machine read the ratio. Prints a table, writes
build/reports/collisions.json.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from assets.events.generator import TrafficConfig, displays
from assets.lake import Lake, Window
from assets.ranking import features
from assets.ranking.collisions import MANAGED, IdMap
from assets.ranking.config import TABLES, RankerConfig
from assets.ranking.train import train
from benchmarks import drawn

REPORT = Path(__file__).resolve().parent.parent / "build" / "reports" / "collisions.json"
SHOWN = ("click", "like", "long_view")


def plant(lake: Lake, truth: Path, traffic: TrafficConfig) -> tuple[Window, dict[str, np.ndarray]]:
    """Write the samples and their truth; returns the window and, by feature, the key of each display."""
    frame = pl.concat(displays(traffic))
    frame = frame.filter(pl.col("time") < (traffic.start_us + traffic.hours * 3_600_000_000))
    rows = drawn.samples(frame)
    window = Window(traffic.start, traffic.start + dt.timedelta(hours=traffic.hours))
    lake.replace_window(drawn.SAMPLES, rows, window)
    truth.mkdir()
    pq.write_table(drawn.truth(frame), truth / "truth-0.parquet")
    return window, features.observed_keys(rows, MANAGED)


def tables(keys: dict[str, np.ndarray], share: float, more: bool) -> dict[str, int]:
    """Rows by table; more: with the map's memory spent on rows as well (a row is 16 floats and its optimizer's state)."""
    found = dict(TABLES)
    for name, key in keys.items():
        rows = max(16, int(len(np.unique(key)) * share))
        found[name] = rows + 1 + (int(IdMap.empty(rows).bytes / (17 * 4)) if more else 0)
    return found


def hashed_together(keys: dict[str, np.ndarray], sizes: dict[str, int]) -> tuple[float, float]:
    """Shares of ids, and of displays' ids, that have to share a row with another id, over the four tables."""
    ids = shared = looked = touched = 0
    for name, key in keys.items():
        unique, counts = np.unique(key, return_counts=True)
        rows = features.hashed_rows(unique, np.zeros(len(unique), bool), sizes[name])
        together = np.bincount(rows, minlength=sizes[name])[rows] > 1
        ids, shared = ids + len(unique), shared + int(together.sum())
        looked, touched = looked + int(counts.sum()), touched + int(counts[together].sum())
    return shared / ids, touched / looked


def without_row(lake: Lake, version: str, keys: dict[str, np.ndarray]) -> tuple[float, float, float]:
    """Of managed ids: the share that shares a row with another one, and shares of ids and of displays' ids without a row."""
    from assets.ranking import registry

    maps = registry.load(lake, version).schema.ids
    ids = shared = alone = looked = missed = 0
    for name, key in keys.items():
        unique, counts = np.unique(key, return_counts=True)
        rows = maps.rows(name, unique, np.zeros(len(unique), bool))
        of = np.bincount(rows[rows > 0], minlength=1)
        ids, shared = ids + len(unique), shared + int(of[of > 1].sum())
        alone, looked, missed = alone + int((rows == 0).sum()), looked + int(counts.sum()), missed + int(counts[rows == 0].sum())
    return shared / ids, alone / ids, missed / looked


def one(lake: Lake, truth: Path, window: Window, keys: dict, share: float, way: str, seed: int, options) -> dict:
    config = RankerConfig(
        tables=tables(keys, share, way == "hash + map"), collisions="managed" if way == "managed" else "hash", sequences=(),
        seed=seed, device="cpu", threads=1, checkpoint_s=0, admit_after=options.admit_after, evict=options.evict,
        shuffle_rows=options.chunk,
    )  # fmt: skip
    metrics = train(lake, truth, window, config)
    if way == "managed":
        shared, alone, missed = without_row(lake, metrics["version"], keys)
        said = {"ids_sharing": shared, "ids_without_row": alone, "displays_without_row": missed,
                "evicted": sum(m["evicted"] for m in metrics["ids"].values())}  # fmt: skip
    else:
        ids, looked = hashed_together(keys, config.tables)
        said = {"ids_sharing": ids, "displays_sharing": looked}
    heads = {head: {"auc": metrics["heads"][head]["auc"], "truth_auc": metrics["heads"][head]["truth_auc"]} for head in SHOWN}
    return {"share": share, "way": way, "seed": seed, "samples_per_s": metrics["samples_per_s"], "heads": heads,
            "log_loss": metrics["heads"]["click"]["log_loss"], **said}  # fmt: skip


def summed(runs: list[dict]) -> list[dict]:
    rows = []
    for share in dict.fromkeys(run["share"] for run in runs):
        of_share = [run for run in runs if run["share"] == share]
        base = max(run["samples_per_s"] for run in of_share if run["way"] == "hash")
        for way in dict.fromkeys(run["way"] for run in of_share):
            mine = [run for run in of_share if run["way"] == way]
            auc = {head: [run["heads"][head]["auc"] for run in mine] for head in SHOWN}
            rows.append(
                {
                    "share": share, "way": way, "ids_sharing": mine[0]["ids_sharing"],
                    "ids_without_row": mine[0].get("ids_without_row", 0.0),
                    "displays_without_row": mine[0].get("displays_without_row", 0.0),
                    **{f"auc_{head}": float(np.mean(v)) for head, v in auc.items()},
                    **{f"auc_{head}_sd": float(np.std(v, ddof=1)) if len(v) > 1 else None for head, v in auc.items()},
                    "truth_auc_click": mine[0]["heads"]["click"]["truth_auc"],
                    "samples_per_s": max(run["samples_per_s"] for run in mine),
                    "speed": max(run["samples_per_s"] for run in mine) / base,
                }
            )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=int, default=12)
    parser.add_argument("--per-hour", type=float, default=60_000, help="events; a display is about two thirds of one")
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--notes", type=int, default=40_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shares", type=float, nargs="+", default=[1.0, 0.25, 0.1])
    parser.add_argument("--admit-after", type=int, default=2)
    parser.add_argument("--evict", default="distance_lfu")
    parser.add_argument("--chunk", type=int, default=32_768, help="samples between two moves of the maps")
    options = parser.parse_args()
    traffic = TrafficConfig(users=options.users, notes=options.notes, hours=options.hours, events_per_hour=options.per_hour)
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        lake, truth = Lake(f"{folder}/lake"), Path(folder) / "truth"
        window, keys = plant(lake, truth, traffic)
        found = {name: {"ids": len(np.unique(key)), "displays": len(key)} for name, key in keys.items()}
        print(", ".join(f"{name}: {one['ids']:,} ids" for name, one in found.items()), f"in {len(keys['user_id']):,} displays")
        for share in options.shares:
            for seed in range(options.seeds):
                for way in ("hash", "hash + map", "managed"):  # in turns: a load beside it meets all
                    runs.append(one(lake, truth, window, keys, share, way, seed + 1, options))
    rows = summed(runs)
    print(f"{'share':>6} {'way':12}{'ids sharing':>12}{'no row':>8}{'AUC click':>12}{'sd':>8}{'like':>8}{'long_view':>10}{'truth':>8}{'speed':>7}")
    for row in rows:
        print(
            f"{row['share']:>6} {row['way']:12}{row['ids_sharing']:>12.1%}{row['ids_without_row']:>8.1%}{row['auc_click']:>12.4f}"
            f"{row['auc_click_sd'] or 0:>8.4f}{row['auc_like']:>8.3f}{row['auc_long_view']:>10.3f}{row['truth_auc_click']:>8.4f}{row['speed']:>7.2f}"
        )
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps({"options": vars(options), "ids": found, "rows": rows, "runs": runs}, indent=2) + "\n")


if __name__ == "__main__":
    main()
