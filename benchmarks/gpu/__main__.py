"""`make bench-gpu`: the ranker and a Criteo-like model on a GPU beside the CPU of the same machine, in at most five minutes.

    make bench-gpu                                  where the project is set up (GPU=1: with CUDA builds)
    make bench-gpu GPU_WHEELS=FOLDER PYTHON=python3 on a machine with PyTorch and no network: the wheels of FOLDER (`make gpu-wheels`)
                                                    are installed apart, into build/gpu-site

Parts, each in a process of its own and under a time limit, so that one that fails costs the others nothing:
- card: what the machine is, and what a plain copy moves in its memory;
- lookups: embedding lookups a second and their bytes against that (lookups.py);
- criteo: DLRM on a Criteo-like set, TorchRec and plain nn.EmbeddingBag, GPU and CPU, and where the time goes (criteo.py);
- criteo-auc: the same on tables that CPU and GPU both train quickly: AUC of both;
- feed-auc: the ranker on the demo's samples: AUC, CPU and GPU (feed.py); --lake: of a lake that `make demo` wrote;
- feed: the same, on more samples: its speed, and where the time goes.

Without a GPU the same parts run small on the CPU and say so. Prints tables, writes build/reports/gpu.json (gpu: null without one): a key a part,
with `failed` where it did not end; it is written anew after each part.

Here: the parts, their sizes and the report. Not here: the measuring (beside this file), assertions on time.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
REPORT = ROOT / "build" / "reports" / "gpu.json"
SITE = ROOT / "build" / "gpu-site"
SHOWN_VERSIONS = ("torch", "torchrec", "fbgemm-gpu", "fbgemm-gpu-cpu", "numpy", "pandas", "pyarrow", "numba", "polars", "deltalake", "scikit-learn")
LEFT = 5.0  # seconds kept for the report
FOLDER = "GLASSHOUSE_BENCH_FOLDER"  # in the environment of the parts' process: where drawn lakes go

# Sizes with a GPU, and of the dry run without one.
SIZES = {
    "gpu": {
        "rows": 40_000_000, "dim": 64, "batch": 16_384, "samples": 2_000_000, "rounds": 40, "seconds": 3.0, "copy": 2**30,
        "auc_rows": 2_000_000, "auc_dim": 16, "auc_samples": 1_200_000, "auc_batch": 4_096,
        "feed": 600_000, "feed_batch": 16_384, "feed_auc": 400_000, "feed_auc_batch": 1_024, "processes": (1, 8),
    },
    "dry": {
        "rows": 50_000, "dim": 8, "batch": 256, "samples": 8_192, "rounds": 3, "seconds": 0.2, "copy": 2**22,
        "auc_rows": 20_000, "auc_dim": 8, "auc_samples": 20_480, "auc_batch": 256,
        "feed": 4_000, "feed_batch": 256, "feed_auc": 4_000, "feed_auc_batch": 256, "processes": (1,),
    },
}  # fmt: skip


# --- parts: each gets sizes and a say(name, value) that keeps what is known so far; each runs in a process of its own -----------------------


def card(size: dict, say: Callable[[str, object], None], lake: Path | None) -> None:
    import platform

    import torch

    from assets.ranking.config import cores
    from benchmarks.gpu import timing

    say("python", platform.python_version())
    say("versions", {name: version for name in SHOWN_VERSIONS if (version := _version(name))})
    say("cores", cores())
    say("cpu_copy_bytes_per_s", timing.copy_bytes_per_s(torch.device("cpu"), size["copy"]))
    if not torch.cuda.is_available():
        return say("gpu", None)
    about = torch.cuda.get_device_properties(0)
    say("gpu", about.name)
    say("memory_bytes", about.total_memory)
    say("capability", f"{about.major}.{about.minor}")
    say("driver", subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True).stdout.strip())
    say("copy_bytes_per_s", timing.copy_bytes_per_s(torch.device("cuda"), size["copy"]))


def lookups(size: dict, say: Callable[[str, object], None], lake: Path | None) -> None:
    import fbgemm_gpu  # noqa: F401  (registers torch's operators)
    import torch

    from benchmarks.gpu import criteo
    from benchmarks.gpu import lookups as of

    rows = criteo.table_rows(size["rows"])
    say("rows", sum(rows))
    if torch.cuda.is_available():
        say("gpu", of.measure(rows, size["dim"], size["batch"], torch.device("cuda"), size["rounds"]))
    say("cpu", of.measure(rows, size["dim"], size["batch"], torch.device("cpu"), 5, lengths=(1,)))


def criteo(size: dict, say: Callable[[str, object], None], lake: Path | None) -> None:
    import torch

    from benchmarks.gpu import criteo as of

    rows = of.table_rows(size["rows"])
    data = of.make(rows, size["samples"])
    say("rows", sum(rows))
    say("table_bytes", sum(rows) * size["dim"] * 4)
    speeds: dict = {}
    gpu = torch.cuda.is_available()
    runs = [("TorchRec, GPU", "torchrec", "cuda", False), ("TorchRec, GPU, dense part bfloat16", "torchrec", "cuda", True),
            ("plain nn.EmbeddingBag, GPU", "plain", "cuda", False)] if gpu else []  # fmt: skip
    for name, kind, device, bf16 in [*runs, ("TorchRec, CPU", "torchrec", "cpu", False), ("plain nn.EmbeddingBag, CPU", "plain", "cpu", False)]:
        run = None
        try:
            run = of.Run(kind, rows, size["dim"], size["batch"], torch.device(device), bf16)
            speeds[name] = of.speed(run, data, size["seconds"])
            if device == "cuda":
                speeds[f"{name}, samples held on the card"] = of.speed(run, data.to(run.device), size["seconds"], ahead=False)
            if kind == "torchrec":
                say(f"shares, {name}", _shares(run, data))
        except Exception as error:  # one contestant that fails leaves the others to run
            speeds[name] = {"failed": f"{type(error).__name__}: {error}"[:500]}
        finally:
            say("speed", speeds)
            _ended(run)


def _ended(run) -> None:
    import torch

    if run is not None:
        run.close()
        run.model, run.optimizers = None, []
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _shares(run, data) -> dict[str, float]:
    """Seconds a step by kind of operator, under the profiler; loop: of the whole step. On a GPU what is left of it no kernel ran."""
    import itertools

    from torch.profiler import ProfilerActivity, profile

    from benchmarks.gpu import timing
    from benchmarks.ranker import by_kind

    gpu = run.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    steps = list(itertools.islice(run.batches(data, 0, len(data), ahead=False), 30 if gpu else 4))
    timing.synchronize(run.device)
    with profile(activities=activities) as profiler:
        started = time.perf_counter()
        for batch in steps:
            run.step(*batch)
        timing.synchronize(run.device)
        loop = time.perf_counter() - started
    found = {**by_kind(profiler.key_averages(), gpu), "loop": loop}
    return {kind: seconds / len(steps) for kind, seconds in found.items()}


def criteo_auc(size: dict, say: Callable[[str, object], None], lake: Path | None) -> None:
    import torch

    from benchmarks.gpu import criteo as of
    from benchmarks.gpu import feed

    rows = of.table_rows(size["auc_rows"])
    data = of.make(rows, size["auc_samples"])
    held_out = len(data) // 10 // size["auc_batch"] * size["auc_batch"]
    say("rows", sum(rows))
    say("held_out", held_out)
    say("best_auc", data.best_auc)
    found: dict = {}
    runs = [("gpu", "torchrec", "cuda", False), ("gpu, dense part bfloat16", "torchrec", "cuda", True)] if torch.cuda.is_available() else []
    for name, kind, device, bf16 in [*runs, ("cpu", "torchrec", "cpu", False)]:
        run = of.Run(kind, rows, size["auc_dim"], size["auc_batch"], torch.device(device), bf16)
        found[name] = of.fit(run, data, held_out)
        say("runs", found)
        _ended(run)
    if "gpu" in found:
        difference = found["gpu"]["auc"] - found["cpu"]["auc"]
        say("difference", difference)
        say("within", abs(difference) <= feed.TOLERANCE)


def feed(size: dict, say: Callable[[str, object], None], lake: Path | None) -> None:
    from benchmarks import ranker as bench
    from benchmarks.gpu import feed as of

    gpu, known, speeds = _gpu(), _lake(lake, size["feed"]), {}
    lake_, window = known
    device = "cuda" if gpu else "cpu"
    say("lookups_per_sample", bench.lookups_per_sample(lake_, of.config_of(device, size["feed_batch"]), window))
    say("samples", lake_.dataset("training_samples").count_rows())

    def told(name: str, value: object) -> None:
        speeds[name] = value
        say("speed", speeds)

    of.speed(lake_, window, gpu, size["feed_batch"], size["processes"], told)
    say("shares", bench.shares(lake_, of.config_of(device, size["feed_batch"]), window))
    if gpu:
        say("day_hours", bench.DAY / speeds["TorchRec, GPU"] / 3600)


def feed_auc(size: dict, say: Callable[[str, object], None], lake: Path | None) -> None:
    from benchmarks.gpu import feed as of

    lake_, window = _lake(lake, size["feed_auc"])
    say("samples", lake_.dataset("training_samples").count_rows())
    for name, value in of.quality(lake_, window, _gpu(), size["feed_auc_batch"], lambda *_: None).items():
        say(name, value)


PARTS = {"card": card, "lookups": lookups, "criteo": criteo, "criteo-auc": criteo_auc, "feed-auc": feed_auc, "feed": feed}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _lake(given: Path | None, count: int):
    """(lake, window): of the folder that was given, or of drawn samples in a folder that ends with this process."""
    from assets.lake import Lake
    from benchmarks import ranker as bench
    from benchmarks.gpu import feed as of

    if given is not None:
        lake = Lake(str(given))
        return lake, of.window_of(lake)
    lake = Lake(tempfile.mkdtemp(dir=os.environ[FOLDER]))
    of.plant(lake, count)
    return lake, bench.WINDOW


# --- the run ----------------------------------------------------------------------------------------------------------


def run_parts(names: list[str], size: dict, out: Path, lake: Path | None) -> None:
    """In a process of their own: write what the parts say to `out`, by part, anew after each thing that one says."""
    known: dict = {}
    for name in names:
        begun = time.monotonic()
        said = known[name] = {"failed": "did not come to its end"}

        def say(key: str, value: object, said: dict = said) -> None:
            said[key] = value
            part = out.with_suffix(".part")
            part.write_text(json.dumps(known))
            part.rename(out)

        try:
            PARTS[name](size, say, lake)
            del said["failed"]
        except Exception:
            said["failed"] = traceback.format_exc()[-2000:]
        say("part_seconds", time.monotonic() - begun)


def install(wheels: Path, site: Path) -> None:
    """The folder's wheels into a folder of their own: what the machine has stays as it is."""
    found = sorted(str(path) for path in wheels.glob("*.whl"))
    if not found:
        sys.exit(f"no wheels in {wheels}; `make gpu-wheels` on a machine with a network makes such a folder")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--upgrade", "--target", str(site),
         *found],
        check=True,
    )  # fmt: skip


def main() -> int:
    options = _options()
    if options.out:
        run_parts(options.parts, SIZES[options.size], options.out, options.lake)
        return 0
    started = time.monotonic()
    if options.wheels:
        install(options.wheels, SITE)
    where = [str(ROOT), *([str(SITE)] if options.wheels else []), *filter(None, [os.environ.get("PYTHONPATH")])]
    gpu = _gpu_there(env := {**os.environ, "PYTHONPATH": os.pathsep.join(where)})
    size = options.size or ("gpu" if gpu else "dry")
    print(f"GPU: {gpu}" if gpu else "no GPU: dry run on the CPU", flush=True)
    known: dict = {"gpu": gpu, "size": size, "sizes": SIZES[size], "seconds": None}
    # A GPU's error spoils its process: a process a part. Without a GPU one for all, which starts once.
    for names in [[name] for name in options.parts] if gpu or options.apart else [options.parts]:
        left = options.limit - LEFT - (time.monotonic() - started)
        known.update(_ran(names, size, left, env, options.lake))
        known["seconds"] = time.monotonic() - started
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(json.dumps(known, indent=1) + "\n")
        for name in names:
            print(f"{known['seconds']:5.0f} s  {name}: {known[name].get('failed', 'done')}", flush=True)
    _print(known)
    return 1 if any("failed" in known[name] for name in options.parts) else 0


def _gpu_there(env: dict) -> str | None:
    """The GPU's name; asked for in a process of its own, for this one does not import torch."""
    code = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    return subprocess.run([sys.executable, "-c", code], env=env, check=True, stdout=subprocess.PIPE, text=True).stdout.strip() or None


def _ran(names: list[str], size: str, left: float, env: dict, lake: Path | None) -> dict:
    """What the parts said, by part; with "failed" where one did not come to its end."""
    nothing = {name: {"failed": "no time was left"} for name in names}
    if left <= 0:
        return nothing
    with tempfile.TemporaryDirectory(prefix="glasshouse-gpu-") as folder:
        out = Path(folder) / "said.json"
        command = [sys.executable, "-m", "benchmarks.gpu", "--parts", *names, "--size", size, "--out", str(out)]
        command += ["--lake", str(lake.absolute())] if lake else []
        failed = None
        with open(Path(folder) / "log", "w+") as log:
            try:
                subprocess.run(command, env={**env, FOLDER: folder}, cwd=ROOT, timeout=left, stdout=log, stderr=subprocess.STDOUT)
            except subprocess.TimeoutExpired:
                failed = f"stopped after {left:.0f} s: no time was left"
            log.seek(0)
            lines = "\n".join(log.read().strip().splitlines()[-25:])
        found = {**nothing, **(json.loads(out.read_text()) if out.exists() else {})}
    for one in found.values():
        if "failed" in one:
            one["failed"] = failed or one["failed"]
            one["log"] = lines
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--wheels", type=Path, help="a folder of wheels to install apart before the run")
    parser.add_argument("--lake", type=Path, help="a lake that `make demo` wrote, whose samples the ranker trains on")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--size", choices=list(SIZES), help="by default: gpu where there is one, else dry")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for everything")
    parser.add_argument("--report", type=Path, default=REPORT)
    parser.add_argument("--apart", action="store_true", help="a process a part without a GPU too")
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


# --- tables: plain text, for rich may not be there ----------------------------------------------------------------------


def _print(known: dict) -> None:
    about = known.get("card", {})
    copied = {"gpu": about.get("copy_bytes_per_s"), "cpu": about.get("cpu_copy_bytes_per_s")}
    print(f"\n{about.get('gpu') or 'no GPU'}; Python {about.get('python')}; " + ", ".join(f"{k} {v}" for k, v in about.get("versions", {}).items()))
    for device, value in copied.items():
        if value:
            print(f"a plain copy on the {device.upper()} moves {value / 1e9:,.0f} GB/s (read and written)")
    rows = []
    for device in ("gpu", "cpu"):
        for one in known.get("lookups", {}).get(device, []):
            share = one["both_bytes_per_s"] / copied[device] if copied[device] else None
            rows.append((device, one["tables"], one["ids"], one["bag"], _n(one["forward_lookups_per_s"]), _gb(one["forward_bytes_per_s"]),
                         _share(one["forward_bytes_per_s"], copied[device]), _n(one["both_lookups_per_s"]), _gb(one["both_bytes_per_s"]),
                         f"{share:.0%}" if share else "–"))  # fmt: skip
    _table("Embedding lookups", ("", "tables", "ids", "a bag", "forward, 1/s", "GB/s", "of a copy", "+ backward, 1/s", "GB/s", "of a copy"), rows)
    speeds = known.get("criteo", {}).get("speed", {})
    rows = [(name, _n(one.get("samples_per_s")), _n(one.get("lowest")), _n(one.get("highest")), one.get("failed", "")) for name, one in speeds.items()]
    _table("Criteo-like set, samples a second (median of stretches)", ("", "samples/s", "lowest", "highest", ""), rows)
    shares = {name.removeprefix("shares, "): of for name, of in known.get("criteo", {}).items() if name.startswith("shares, ")}
    rows = [(name, *(f"{of[kind] / of['loop']:.0%}" for kind in of if kind != "loop"), f"{of['loop'] * 1e3:.2f}") for name, of in shares.items()]
    _table("Where a step's time goes, under the profiler", ("", "comms", "lookup", "dense", "ms a step"), rows)
    aucs = known.get("criteo-auc", {})
    rows = [(name, f"{one['auc']:.5f}", _n(one["samples_per_s"])) for name, one in aucs.get("runs", {}).items()]
    _table(f"Criteo-like set, AUC of held-out samples (of the logit that drew them: {aucs.get('best_auc')})", ("", "AUC", "samples/s"), rows)
    _table("The ranker, samples a second", ("", "samples/s"), [(name, _n(one)) for name, one in known.get("feed", {}).get("speed", {}).items()])
    shares = known.get("feed", {}).get("shares", {})
    if shares:
        _table("Where its time goes, under the profiler", tuple(shares), [tuple(f"{value:.3f} s" for value in shares.values())])
    of = known.get("feed-auc", {})
    rows = [(name, *(f"{one['auc'][head]:.4f}" if one["auc"].get(head) else "–" for head in ("click", "like", "long_view")), _n(one["samples_per_s"]))
            for name, one in of.get("runs", {}).items()]  # fmt: skip
    _table("The ranker, AUC of held-out samples", ("", "click", "like", "long_view", "samples/s"), rows)
    for part in ("criteo-auc", "feed-auc"):
        if "difference" in known.get(part, {}):
            print(f"{part}: the GPU's AUC minus the CPU's {known[part]['difference']:+.5f}, within tolerance: {known[part]['within']}")


def _table(title: str, head: tuple[str, ...], rows: list[tuple]) -> None:
    if not rows:
        return
    widths = [max(len(str(row[i])) for row in [head, *rows]) for i in range(len(head))]
    print(f"\n{title}")
    for row in [head, *rows]:
        print("  ".join(str(value).ljust(width) if i == 0 else str(value).rjust(width) for i, (value, width) in enumerate(zip(row, widths))))


def _n(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _gb(value: float) -> str:
    return f"{value / 1e9:,.1f}"


def _share(value: float, of: float | None) -> str:
    return f"{value / of:.0%}" if of else "–"


if __name__ == "__main__":
    sys.exit(main())
