"""A tree of the house in processes of its own, files handed to it, and the judgement of what came back.

Here: the victim process and its end, jobs (a folder of files for one way), the accounts. Not here: what is in the files (files.py), the calls
into the house (worker.py), how many files and the report (__main__.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.files import ORDER_FORMATS, File

OWN = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("worker.py")
HANG_SECONDS = 60  # of work, or of waiting, for a job; only a file that takes so long alone again counts
MEMORY_MB = 4_000
MAPPING = "mapping.toml"
SILENT_TYPES = ("CREATE", "ALTER", "RENAME", "CINDEX", "DINDEX", "ERASE", "TRUNCATE", "QUERY")


# --- the process ------------------------------------------------------------------------------------------------------


class Victim:
    """A process that runs worker.py with the code of a tree; started when asked, again after it died."""

    def __init__(self, root: Path, scratch: Path, hang_s: float = HANG_SECONDS, memory_mb: int = MEMORY_MB) -> None:
        self.root, self.scratch, self.hang_s, self.memory_mb = Path(root).resolve(), Path(scratch), hang_s, memory_mb
        if not (self.root / "assets").is_dir():
            raise FileNotFoundError(f"{root} is no tree of Glasshouse: it has no folder `assets`")
        self.process: subprocess.Popen | None = None

    def __enter__(self) -> Victim:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def ask(self, job: dict) -> dict:
        """The answer to a job; a process that dies or hangs is an exception of that type."""
        if self.process is None or self.process.poll() is not None:
            self._start()
        try:
            self.process.stdin.write(json.dumps(job | {"scratch": str(self.scratch)}).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        begun, worked, line = time.monotonic(), self._worked_s(), b""
        while not line.endswith(b"\n"):
            if select.select([self.answers], [], [], 0.2)[0]:
                piece = os.read(self.answers, 2**20)
                if not piece:
                    return self._died()
                line += piece
            elif self._hangs(time.monotonic() - begun, self._worked_s() - worked):
                self.close()
                return _exception("hang", f"no answer within {self.hang_s:g} s")
            elif self._resident_mb() > self.memory_mb:
                self.close()
                return _exception("memory", f"more than {self.memory_mb:,} MB")
        return json.loads(line)

    def close(self) -> None:
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        os.close(self.answers)
        self.process = None

    def _start(self) -> None:
        self.close()
        self.answers, write = os.pipe()
        self.said = tempfile.TemporaryFile(dir=self.scratch)
        environment = {**os.environ, "PYTHONPATH": str(self.root), "POLARS_MAX_THREADS": "1", "RUST_BACKTRACE": "0"}
        if self.root != OWN:  # another tree is looked at, nothing is written into it
            environment |= {"PYTHONDONTWRITEBYTECODE": "1", "NUMBA_CACHE_DIR": str(Path(tempfile.gettempdir(), "glasshouse-fuzz-numba"))}
        command = [sys.executable, "-P", "-X", "faulthandler", str(WORKER), str(write), str(self.root)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self.said, env=environment, cwd=self.scratch, pass_fds=[write],
            start_new_session=True,
        )  # fmt: skip
        os.close(write)

    def _died(self) -> dict:
        code = self.process.wait()
        self.said.seek(max(0, self.said.seek(0, os.SEEK_END) - 3_000))
        said = self.said.read().decode("utf-8", "replace")
        self.close()
        return _exception(signal.Signals(-code).name if code < 0 else f"exit {code}", ascii(said[-600:]))

    def _hangs(self, passed_s: float, worked_s: float) -> bool:
        """By its own work, since a busy machine is not its fault; or it waits for what does not come."""
        return worked_s > self.hang_s or passed_s > self.hang_s and (worked_s < passed_s / 50 or passed_s > 10 * self.hang_s)

    def _worked_s(self) -> float:
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return 0.0

    def _resident_mb(self) -> float:
        with contextlib.suppress(OSError, ValueError):
            return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
        return 0.0


def _exception(kind: str, message: str) -> dict:
    return {"exception": {"type": kind, "place": "process", "message": message, "frames": []}}


# --- jobs -------------------------------------------------------------------------------------------------------------


@dataclass
class Job:
    """Files that one call of the house gets. tricks: what else lies in the folder, see lay_tricks."""

    way: str
    format: str
    files: list[File]
    tricks: tuple[str, ...] = ()


@dataclass
class Verdict:
    """exception: as worker.py tells it. unaccounted: rows, by what is wrong with them. refused: files taken as one row, or refused with words.

    spoiled: those of them that had nothing wrong but rows. unforeseen: types of exceptions that a reason names: nobody thought of it.
    """

    exception: dict | None = None
    unaccounted: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    spoiled: int = 0
    unforeseen: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.exception is not None or bool(self.unaccounted) or self.spoiled > 0 or bool(self.unforeseen)

    def places(self, job: Job) -> list[str]:
        """What is told apart: type and place of an exception; how a process ended, the kind of an account that is wrong, by way and format."""
        family = job.format.removesuffix(".gz")
        found = [f"{what} ({job.way}, {family})" for what in self.unaccounted]
        found += [f"a whole file refused for its rows ({job.way}, {family})"] if self.spoiled else []
        found += [f"unforeseen: {name} ({job.way}, {family})" for name in self.unforeseen]
        if self.exception:
            inside = self.exception["place"] != "process"
            found.append(f"{self.exception['type']} {self.exception['place']}" if inside else f"{self.exception['type']} of the process ({job.way}, {family})")
        return found


def play(victim: Victim, job: Job) -> Verdict:
    """Hand the files over and judge what comes back."""
    folder = Path(tempfile.mkdtemp(dir=victim.scratch))
    try:
        for file in job.files:
            Path(folder, file.name).write_bytes(file.data())
        mapping = job.files[0].form.mapping if job.files[0].form else None
        if mapping:
            (folder / MAPPING).write_text(mapping)
        names = [file.name for file in job.files] + lay_tricks(folder, job)
        answer = victim.ask({
            "way": job.way, "folder": str(folder), "files": names, "mapping": str(folder / MAPPING) if mapping else None,
            "vanish": [name for name in names if name.startswith("vanish")],
        })  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if "exception" in answer:
        return Verdict(exception=answer["exception"])
    judge = _judged_orders if job.way == "orders" else _judged_label if job.way == "label" else _judged_lake
    unaccounted = {what: rows for what, rows in judge(job, answer).items() if rows}
    return Verdict(None, unaccounted, *_refused(job, answer))


def _refused(job: Job, answer: dict) -> tuple[int, int, tuple[str, ...]]:
    """(files refused, those with nothing wrong but rows, types of exceptions that the reasons name)."""
    words = {**answer.get("refused", {})}
    whole = answer.get("whole_files") or []
    reasons = [*words.values(), *answer.get("reasons", ()), *(whole if isinstance(whole, list) else ())]
    refused = [file for file in job.files if file.name in words or any(file.name in reason for reason in reasons)]
    refused = job.files if whole and len(job.files) == 1 and not job.tricks else refused
    spoiled = 0 if job.tricks and job.way == "label" else sum(file.fault is None and file.is_readable() for file in refused)
    return len(refused), spoiled, tuple(sorted({name for reason in reasons for name in _UNFORESEEN.findall(reason)}))


TRICKS = {"label": ("folder", "broken link", "loop", "missing"), "batch": ("folder", "broken link", "loop", "missing"),
          "live": ("folder", "pipe", "broken link", "loop", "vanish", "link"), "orders": ("folder", "pipe", "broken link", "loop", "link")}  # fmt: skip


def lay_tricks(folder: Path, job: Job) -> list[str]:
    """What is named like a log and is none; the names, which a way that takes names is given too."""
    suffix = ".jsonl" if job.format in ORDER_FORMATS else "." + job.format.removesuffix(".gz")
    found = []
    for trick in job.tricks:
        path = folder / f"{trick.replace(' ', '-')}{suffix}"
        if trick == "folder":
            path.mkdir()
        elif trick == "pipe":
            os.mkfifo(path)
        elif trick == "broken link":
            path.symlink_to(folder / "nowhere")
        elif trick == "loop":
            path.symlink_to(path)
        elif trick in ("vanish", "link"):
            target = path if trick == "vanish" else folder.with_suffix(".target")
            target.write_bytes(b'{"event_id":"trick","user_id":1,"note_id":1,"action":"click","event_time":1704067200000000}\n')
            if trick == "link":
                path.symlink_to(target)
        found.append(path.name)
    return found


# --- accounts ---------------------------------------------------------------------------------------------------------

_UNFORESEEN = re.compile(r"\((\w*(?:Error|Exception|Panic\w*|Interrupt|Exit))\b")
LOST, MORE, VALID, BYTES = "rows lost", "rows too many", "valid rows that are no events", "bytes in quarantine that are no row"


def _between(least: int, most: int, found: int) -> dict[str, int]:
    return {LOST: max(0, least - found), MORE: max(0, found - most)}


def _missing_valid(file: File, ids: set[str]) -> int:
    """Valid rows that the file holds as records of their own and that are not among the events."""
    rows = file.rows()
    if rows is None or file.fault or file.form is None or file.form.name != "native":
        return 0
    if file.table is not None:
        return 0 if file.kinds else len(set(file.table["event_id"].to_pylist()) - ids)
    records = set(rows.records)
    return sum(row.event_id is not None and row.data in records and row.event_id not in ids for row, _ in file.parts)


def _strange_bytes(job: Job, answer: dict) -> int:
    """Bodies in quarantine that no row of the files has. Of Parquet the body is another form of the row."""
    known = set()
    for file in job.files:
        if file.table is not None or job.tricks or (rows := file.rows()) is None:
            return 0
        known |= {hashlib.blake2b(record.rstrip(b"\r"), digest_size=8).hexdigest() for record in rows.records}
    return len(set(answer["bodies"]) - known)


def _judged_label(job: Job, answer: dict) -> dict[str, int]:
    file = job.files[0]
    if "refused" in answer or answer["whole_files"] or (rows := file.rows()) is None:
        return {}
    one = file.form.one_event
    found = _between(rows.least, rows.most, answer["events"] + answer["repeats"] + answer["quarantine"] if one else answer["rows"])
    if answer["ids"] is not None:
        found[VALID], found[BYTES] = _missing_valid(file, set(answer["ids"])), _strange_bytes(job, answer)
    return found


def _judged_lake(job: Job, answer: dict) -> dict[str, int]:
    found = {LOST: 0, MORE: 0, VALID: 0}
    alone, ids = len(job.files) == 1, set(answer["ids"])
    for file in job.files:
        rows = file.rows()
        if rows is None or file.name in answer.get("refused", {}):
            continue
        taken = answer["rows"] if alone and not job.tricks else answer["by_name"].get(file.name, 0)
        if taken == 0 and any(alone or file.name in reason for reason in answer["whole_files"]):
            continue
        for what, count in _between(rows.least, rows.most, taken).items():
            found[what] += count
        found[VALID] += _missing_valid(file, ids)
    found[BYTES] = _strange_bytes(job, answer)
    raw, rows = answer["raw"] + answer["cut"], answer["rows"]
    found["raw " + LOST], found["raw " + MORE] = max(0, rows - raw), max(0, raw - rows)
    if job.files[0].form.one_event:
        known = answer["events"] + answer["repeats"] + answer["quarantine"]
        found[LOST + " after landing"], found[MORE + " after landing"] = max(0, rows - known), max(0, known - rows)
    return found


def _judged_orders(job: Job, answer: dict) -> dict[str, int]:
    """A line is a change, in quarantine, a repeat, or announces nothing; a catalogue's lines are only counted."""
    taken = {tuple(one) for one in (*answer["changes"], *answer["quarantine"])}
    missing = lost = more = 0
    for file in job.files:
        # A name that no table can hold is written otherwise: such a file is alone.
        name = file.name if file.name in answer["lines"] or len(answer["lines"]) != 1 or len(job.files) > 1 else next(iter(answer["lines"]))
        if not file.certain or file.name in answer["whole_files"] or (len(job.files) == 1 and answer["whole_files"]):
            continue
        lines = {number: body for number, body in enumerate(file.text().split(b"\n"), 1) if body.strip()}
        if name not in answer["lines"]:
            lost += len(lines)
            continue
        counted = _between(len(lines), len(lines), answer["lines"][name])
        lost, more = lost + counted[LOST], more + counted[MORE]
        if not file.name.startswith("note_products"):
            missing += sum((name, number) not in taken and not _silent(body) for number, body in lines.items())
    return {LOST: lost, MORE: more, "lines that are nothing": max(0, missing - answer["repeats"]), "taken again": answer["again"],
            BYTES: _strange_bytes(job, answer)}  # fmt: skip


def _silent(body: bytes) -> bool:
    """Whether a line may announce nothing: a tombstone, or a change of some table's schema."""
    try:
        record = json.loads(body)
    except (ValueError, RecursionError):
        return False
    record = record["payload"] if isinstance(record, dict) and "payload" in record else record
    if not isinstance(record, dict):
        return record is None
    return "ddl" in record or "tableChanges" in record or str(record.get("type")).upper() in SILENT_TYPES or bool(record.get("isDdl"))
