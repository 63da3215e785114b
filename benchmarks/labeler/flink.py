"""The peer: a Flink job in Java (flink/*.java), RocksDB with incremental checkpoints, or its state on the heap.

Here: Flink fetched from PyPI apart from .venv, the job compiled and run, its measurements and rows read.
Not here: the job itself; the log's rows for it (log.py, whose docstring says what they leave out).

What a Flink expert would look for: blind appends to one list a key, one timer a session (SessionFunction.java), own
serializers, object reuse, managed memory, exactly-once files, and checkpoints that are seen to complete: a run in which
none did fails. (checkpoints_failed are triggers that found tasks not yet, or no longer, running.) SETTINGS were chosen
by trying on the first 32 minutes of the log.

Time counts from the first record read to the last one processed. The start of the JVM and of the job is left out, and
so is the end of the input, which closes 2.8 million sessions at once. A batch is the time between the watermark's
passing of two successive minutes: Flink has no batches, but this is what a minute of events takes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl

from assets.attribution.convert import microseconds
from assets.attribution.rules import Rules
from assets.attribution.tables import FLAGS
from assets.events.contract import ACTIONS
from assets.events.generator import CHANNELS
from benchmarks.labeler.compare import Rows, differences
from benchmarks.labeler.log import READERS, Log
from benchmarks.labeler.measure import watch
from benchmarks.labeler.table import Row

FLINK = "apache-flink-libraries==2.3.0"  # the jars of PyPI's apache-flink, without its Python half
SOURCES = Path(__file__).with_name("flink")

# As in SessionFunction.row. `other`: first click, the display's start, or an orphan's seq.
ROW = np.dtype(
    [("user", "<i8"), ("note", "<i8"), ("start", "<i8"), ("other", "<i8"), ("dwell", "<i8"), ("count", "<i4"),
     ("position", "<i2"), ("channel", "i1"), ("flags", "u1"), ("kind", "i1"), ("action", "i1")]
)  # fmt: skip
NONE = np.iinfo(np.int64).min

SETTINGS = {
    "parallelism.default": str(READERS),
    "pipeline.object-reuse": "true",
    "pipeline.generic-types": "false",  # a Kryo fallback would fail the job
    "restart-strategy.type": "none",
    # 30 s of catching up is ten minutes of the log and more, where Glasshouse commits each minute.
    "execution.checkpointing.interval": "30 s",
    "execution.checkpointing.mode": "EXACTLY_ONCE",
    "execution.checkpointing.storage": "filesystem",
    "taskmanager.memory.network.min": "128m",
    "taskmanager.memory.network.max": "128m",
    "web.checkpoints.history": "1000",
}
BACKENDS = {
    "rocksdb": {
        "state.backend.type": "rocksdb",
        "execution.checkpointing.incremental": "true",
        "taskmanager.memory.managed.size": "2g",
        "state.backend.rocksdb.memory.managed": "true",
        "state.backend.rocksdb.memory.partitioned-index-filters": "true",
        # They fit; a job with its timers in RocksDB did not come to its end in the time that we gave it.
        "state.backend.rocksdb.timer-service.factory": "HEAP",
        "state.backend.rocksdb.use-bloom-filter": "true",
        "state.backend.rocksdb.predefined-options": "FLASH_SSD_OPTIMIZED",
    },
    "hashmap": {"state.backend.type": "hashmap", "taskmanager.memory.managed.size": "16m"},
}
OPENED = ("lang", "net", "io", "nio", "util", "util.concurrent", "util.concurrent.atomic")  # as Flink's own scripts do
HEAP = {"rocksdb": "4g", "hashmap": "9g"}


def rocksdb(log: Log, work: Path) -> Row:
    return _run("rocksdb", log, work)


def hashmap(log: Log, work: Path) -> Row:
    return _run("hashmap", log, work)


def _run(backend: str, log: Log, work: Path) -> Row:
    libraries = install(log.folder.parent)
    command = _command(backend, log, work, libraries, compile_job(libraries, log.folder.parent))
    watched = watch(command, work / "flink.log")
    found = json.loads((work / "results.json").read_text())
    if not found["checkpoints"]:
        raise RuntimeError(f"no checkpoint completed, so nothing was durable; see {work / 'flink.log'}")
    if found["events"] != log.events or found["late"]:
        raise RuntimeError(f"{found['events']} of {log.events} events, {found['late']} of them late")
    wrong = differences(log, rows(work / "rows"))
    p50, p95 = np.percentile(_minutes(found.pop("watermark_passed")), (50, 95))
    taken, written, size = np.array(found.pop("checkpoints")).T
    found |= {
        "wall_s": watched.wall_s, "checkpoints": len(taken), "checkpoint_p50_s": float(np.median(taken)),
        "checkpoint_max_s": taken.max(), "checkpointed_bytes": written.sum(), "state_max_bytes": size.max(),
        "differences": wrong, "heap": HEAP[backend], "settings": SETTINGS | BACKENDS[backend],
    }  # fmt: skip
    note = f"{len(taken)} checkpoints completed, p50 {np.median(taken):.1f} s, state {size.max() / 2**20:.0f} MiB"
    exact = not any(wrong.values())
    return Row(
        f"flink_{backend}", log.events, log.events / found["seconds"], p50, p95, watched.peak_gib, exact, note, found
    )


def _minutes(passed: list[list[float]]) -> np.ndarray:
    """Seconds between the watermark's passing of successive minutes; it may pass two at once."""
    minutes, seconds = np.array(passed).T
    return np.diff(np.interp(np.arange(minutes[0], minutes[-1] + 1), minutes, seconds))


def _command(backend: str, log: Log, work: Path, libraries: str, classes: Path) -> list[str]:
    rules = Rules()
    (work / "files.txt").write_text("".join(f"{path.resolve()}\n" for path in log.binary))
    settings = SETTINGS | BACKENDS[backend] | {
        "execution.checkpointing.dir": (work / "checkpoints").resolve().as_uri(),
        "state.backend.rocksdb.localdir": str((work / "rocksdb").resolve()),
        "io.tmp.dirs": str((work / "tmp").resolve()),
    }  # fmt: skip
    logging = (SOURCES / "log4j2.properties").as_uri()
    return [
        _java("java"), f"-Xmx{HEAP[backend]}", f"-Dlog4j2.configurationFile={logging}",
        *(f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in OPENED),
        "-cp", f"{classes}:{libraries}", "glasshouse.bench.LabelerJob",
        str(work / "results.json"), str((work / "rows").resolve()), str(work / "files.txt"),
        str(microseconds(rules.window)), str(microseconds(rules.delay)),
        *(f"{key}={value}" for key, value in settings.items()),
    ]  # fmt: skip


def rows(folder: Path) -> Rows:
    """The job's rows as columns of the labeler's tables, as far as the job has them."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    if unfinished := [path.name for path in files if path.name.startswith(".")]:
        raise RuntimeError(f"Flink left rows that no checkpoint committed: {unfinished[:3]}")
    found = np.concatenate([np.fromfile(path, ROW) for path in files])
    impressions, clicks, orphans = (found[found["kind"] == kind] for kind in range(3))
    window = microseconds(Rules().window)
    return Rows(
        _sessions(impressions, window).with_columns(
            impressions=impressions["count"], clicked=impressions["other"] != NONE,
            first_click_time=_or_null(impressions["other"]),
        ),
        _sessions(clicks, window).with_columns(
            clicks=clicks["count"], attributed=clicks["other"] != NONE,
            impression_session_start=_or_null(clicks["other"]),
        ),
        pl.DataFrame(
            {"event_id": orphans["other"], "user_id": orphans["user"], "note_id": orphans["note"],
             "action": pl.Series(ACTIONS)[orphans["action"]], "event_time": orphans["start"]}
        ),
    )  # fmt: skip


def _sessions(rows: np.ndarray, window: int) -> pl.DataFrame:
    flags = {flag: (rows["flags"] >> bit & 1).astype(bool) for bit, flag in enumerate(FLAGS)}
    return pl.DataFrame(
        {"user_id": rows["user"], "note_id": rows["note"], "session_start": rows["start"],
         "session_end": rows["start"] + window, "dwell_ms": rows["dwell"], **flags,
         "channel": pl.Series(CHANNELS)[rows["channel"]], "position": rows["position"].astype(np.int32)}
    )  # fmt: skip


def _or_null(times: np.ndarray) -> pl.Series:
    return pl.Series(times).replace(NONE, None)


# --- Flink and its compiler ------------------------------------------------------------------------------------------


def install(folder: Path) -> str:
    """Flink's class path; fetched by pip into `folder` the first time (330 MB), never into .venv."""
    target = folder / FLINK.replace("==", "-")
    if not target.exists():
        beside = target.with_suffix(".part")
        shutil.rmtree(beside, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile"]
        subprocess.run([*pip, "--target", str(beside), FLINK], check=True)
        beside.rename(target)
    return str(target.resolve() / "pyflink" / "lib" / "*")


def compile_job(libraries: str, folder: Path) -> Path:
    classes = (folder / "flink-classes").resolve()
    sources = sorted(map(str, SOURCES.glob("*.java")))
    shutil.rmtree(classes, ignore_errors=True)
    javac = [_java("javac"), "--release", "17", "-nowarn", "-cp", libraries, "-d", str(classes)]
    subprocess.run([*javac, *sources], check=True)
    return classes


def _java(name: str) -> str:
    """The JDK's tool: JAVA_HOME's, else that on the PATH, installed by apt where we are root."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which(name, path=str(Path(home) / "bin")) if home else shutil.which(name)
    if found:
        return found
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "openjdk-17-jdk-headless"]
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise RuntimeError(f"no `{name}`, and the job is compiled here; install a JDK:\n    sudo {' '.join(install)}")
    subprocess.run(["apt-get", "update", "-qq"], check=True)
    subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
    if not (found := shutil.which(name)):
        raise RuntimeError(f"still no `{name}` after {' '.join(install)}")
    return found
