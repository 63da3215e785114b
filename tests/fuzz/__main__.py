"""Files that nobody sends on purpose, a million rows of them, read by every way in: `make fuzz` prints the table and writes the report.

Here: how many of which, in what order, the findings and the report (build/reports/fuzz.json). Not here: the files (files.py), the judgement
(drive.py), assertions (test_fuzz.py). docs/fuzz.md says what is counted and how to look at a finding.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

from tests.fuzz.drive import HANG_SECONDS, MEMORY_MB, OWN, TRICKS, Job, Verdict, Victim, play
from tests.fuzz.files import FORMATS, ODD_NAMES, ORDER_FORMATS, File, draw
from tests.fuzz.shrink import smallest

COMBINATIONS = [(way, format) for way in ("label", "live", "batch") for format in FORMATS] + [("orders", format) for format in ORDER_FORMATS]
FILES_A_TURN = 8
TRICKY = 0.15  # share of jobs with something else in the folder
PROCESSES = 2
PROGRESS_SECONDS = 30


@dataclass
class Line:
    """A row of the report. places: what was found, how often."""

    way: str
    format: str
    files: int = 0
    inputs: int = 0
    malformed: int = 0
    exceptions: int = 0
    unaccounted: int = 0
    refused: int = 0
    spoiled: int = 0
    unforeseen: int = 0
    places: Counter = field(default_factory=Counter)


@dataclass
class Finding:
    """A place, and the first file that led there."""

    place: str
    way: str
    format: str
    number: int
    kinds: tuple[str, ...]
    fault: str | None
    message: str
    frames: list[str]
    count: int = 0
    example: str | None = None


class Fuzz:
    """One run on one tree. inputs: rows in all, in equal parts for every way and format."""

    def __init__(self, root: Path, inputs: int, seed: int, out: Path, only: str = "", hang_s: float = HANG_SECONDS, memory_mb: int = MEMORY_MB,
                 shrink: bool = True, say=partial(print, flush=True), seconds: float | None = None, files_a_turn: int = FILES_A_TURN) -> None:  # fmt: skip
        chosen = [one for one in COMBINATIONS if "/".join(one).startswith(only)]
        self.root, self.seed, self.out, self.hang_s, self.memory_mb, self.shrinks, self.say = root, seed, out, hang_s, memory_mb, shrink, say
        self.lines = {one: Line(*one) for one in chosen}
        self.target, self.files_a_turn = -(-inputs // len(chosen)), files_a_turn
        self.findings: dict[str, Finding] = {}
        self.next_number = Counter()
        self.lock = threading.Lock()
        self.ends_at = time.monotonic() + seconds if seconds else None
        self.failed: list[BaseException] = []

    def run(self, processes: int = PROCESSES) -> float:
        """Seconds that it took."""
        begun = time.monotonic()
        self.out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
            threads = [threading.Thread(target=self._lane, args=(Path(scratch, str(lane)),), daemon=True) for lane in range(processes)]
            for thread in threads:
                thread.start()
            while alive := [thread for thread in threads if thread.is_alive()]:
                alive[0].join(PROGRESS_SECONDS)
                self._tell(time.monotonic() - begun)
        if self.failed:
            raise self.failed[0]
        return time.monotonic() - begun

    def _tell(self, seconds: float) -> None:
        with self.lock:
            done, places = sum(line.inputs for line in self.lines.values()), len(self.findings)
        self.say(f"{seconds:,.0f} s: {done:,} of {self.target * len(self.lines):,} inputs, {places} places")

    def _lane(self, scratch: Path) -> None:
        scratch.mkdir()
        try:
            with Victim(self.root, scratch, self.hang_s, self.memory_mb) as victim:
                while turn := self._turn():
                    for job in jobs(self.seed, *turn):
                        self._try(victim, job)
        except BaseException as error:
            self.failed.append(error)

    def _turn(self) -> tuple[str, str, range] | None:
        """Way, format and numbers of the next files: of the line that is furthest behind."""
        with self.lock:
            waiting = [line for line in self.lines.values() if line.inputs < self.target]
            if not waiting or self.failed or (self.ends_at and time.monotonic() > self.ends_at):
                return None
            line = min(waiting, key=lambda line: (line.inputs, self.next_number[line.way, line.format]))
            first = self.next_number[line.way, line.format]
            self.next_number[line.way, line.format] += self.files_a_turn
            return line.way, line.format, range(first, first + self.files_a_turn)

    def _try(self, victim: Victim, job: Job) -> None:
        verdict = play(victim, job)
        with self.lock:
            line = self.lines[job.way, job.format]
            line.files += len(job.files)
            line.inputs += sum(file.inputs for file in job.files)
            line.malformed += sum(file.malformed for file in job.files)
            line.refused += verdict.refused
        if not verdict:
            return
        found = [(job, verdict)]
        if len(job.files) > 1 or verdict.exception and verdict.exception["type"] == "hang":
            # Which file it was, and whether a file that hung does so alone.
            ones = [Job(job.way, job.format, [file]) for file in job.files] + ([Job(job.way, job.format, job.files[:1], job.tricks)] if job.tricks else [])
            found = [(one, alone) for one in ones if (alone := play(victim, one))]
            if not found and verdict.exception and verdict.exception["type"] in ("hang", "memory"):
                return
            found = found or [(job, verdict)]
        for one, alone in found:
            self._note(victim, one, alone)

    def _note(self, victim: Victim, job: Job, verdict: Verdict) -> None:
        new = []
        with self.lock:
            line = self.lines[job.way, job.format]
            line.exceptions += verdict.exception is not None
            line.unaccounted += sum(verdict.unaccounted.values())
            line.spoiled += verdict.spoiled
            line.unforeseen += bool(verdict.unforeseen)
            for place in verdict.places(job):
                line.places[place] += 1
                if place not in self.findings:
                    file, told = job.files[0], verdict.exception or {"message": str(vars(verdict)), "frames": []}
                    number = int(file.name.removeprefix("note_products-")[1:7])
                    self.findings[place] = Finding(place, job.way, job.format, number, (*file.kinds, *job.tricks), file.fault, told["message"], told["frames"])
                    new.append(place)
                self.findings[place].count += 1
        for place in new:
            found = self.findings[place]
            self.say(f"{place}\n    --seed {self.seed} --only {job.way}/{job.format} --number {found.number}: {found.message[:200]}")
            if self.shrinks:
                self._keep(victim, job, place)

    def _keep(self, victim: Victim, job: Job, place: str) -> None:
        """Write the smallest files that lead to the place."""
        folder = self.out / f"{len(list(self.out.iterdir())):03d}-{''.join(c if c.isalnum() else '-' for c in place)[:80]}"
        folder.mkdir(exist_ok=True)
        file = job.files[0]
        if len(job.files) == 1:
            file = smallest(file, lambda candidate: place in play(victim, j := Job(job.way, job.format, [candidate], job.tricks)).places(j))
        for one in [file] if len(job.files) == 1 else job.files:
            (folder / one.name).write_bytes(one.data())
        if file.form and file.form.mapping:
            (folder / "mapping.toml").write_text(file.form.mapping)
        found = self.findings[place]
        found.example = str(folder)
        (folder / "README.txt").write_text("\n".join([place, f"{job.way} {job.format} {job.tricks}", str(found.kinds), str(found.fault), found.message, *found.frames, ""]))

    def report(self, seconds: float) -> dict:
        lines = [vars(line) | {"places": sorted(line.places), "share_malformed": round(line.malformed / max(1, line.inputs), 3)} for line in self.lines.values()]
        total = {name: sum(line[name] for line in lines) for name in ("files", "inputs", "malformed", "exceptions", "unaccounted", "refused", "spoiled", "unforeseen")}
        return {
            "seed": self.seed, "root": str(self.root.name), **total, "places": len(self.findings), "seconds": round(seconds, 1),
            "inputs_per_s": round(total["inputs"] / seconds), "rows": lines,
            "findings": [vars(one) for one in sorted(self.findings.values(), key=lambda one: -one.count)],
        }  # fmt: skip


def jobs(seed: int, way: str, format: str, numbers: range) -> list[Job]:
    """The jobs of a turn: one file a call for `label`; else files of one form together, one of an odd name alone."""
    rng = Random(f"{seed}/{way}/{format}/{numbers.start}/jobs")
    groups: dict[str, list[File]] = {}
    for number in numbers:
        file = draw(seed, way, format, number)
        odd_name = any(name in file.name for name in ODD_NAMES)
        group = f"odd {number}" if odd_name else f"{number}" if way == "label" else file.form.name if file.form else ""
        groups.setdefault(group, []).append(file)
    # Tables may write an odd name otherwise: nothing else is in its folder.
    return [
        Job(way, format, files, (rng.choice(TRICKS[way]),) if rng.random() < TRICKY and not group.startswith("odd") else ())
        for group, files in groups.items()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=OWN, help="the tree whose code reads the files; this one if not given")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="rows in all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="WAY, or WAY/FORMAT")
    parser.add_argument("--number", type=int, help="with --only WAY/FORMAT: this one file, once")
    parser.add_argument("--seconds", type=float, help="stop after so many")
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--hang", type=float, default=HANG_SECONDS, help="seconds for a job")
    parser.add_argument("--no-shrink", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"), help="where the smallest files go that lead to a finding")
    parser.add_argument("--report", type=Path, default=Path("build/reports/fuzz.json"))
    options = parser.parse_args()
    fuzz = Fuzz(options.root, options.inputs, options.seed, options.out, options.only, options.hang, shrink=not options.no_shrink, seconds=options.seconds)
    if options.number is not None:
        return one_file(fuzz, *options.only.split("/"), options.number)
    report = fuzz.report(fuzz.run(options.processes))
    show(report)
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text(json.dumps(report, indent=1) + "\n")
    return int(bool(report["exceptions"] or report["unaccounted"]))


def one_file(fuzz: Fuzz, way: str, format: str, number: int) -> int:
    file = draw(fuzz.seed, way, format, number)
    print(f"{ascii(file.name)}: {file.inputs} rows, form {file.form and file.form.name}, kinds {file.kinds}, fault {file.fault}")
    with tempfile.TemporaryDirectory() as scratch, Victim(fuzz.root, Path(scratch), fuzz.hang_s) as victim:
        verdict = play(victim, Job(way, format, [file]))
        print(json.dumps(vars(verdict), indent=1))
        if verdict:
            fuzz.out.mkdir(parents=True, exist_ok=True)
            fuzz._note(victim, Job(way, format, [file]), verdict)
    return int(bool(verdict))


def show(report: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("way", "format", "inputs", "malformed", "exceptions", "unaccounted", "places", title="Fuzz", title_justify="left")
    for line in report["rows"]:
        figures = (f"{line['inputs']:,}", f"{line['share_malformed']:.0%}", *(str(line[name]) for name in ("exceptions", "unaccounted")), str(len(line["places"])))
        table.add_row(line["way"], line["format"], *figures)
    table.add_row("all", "", f"{report['inputs']:,}", f"{report['malformed'] / max(1, report['inputs']):.0%}", str(report["exceptions"]), str(report["unaccounted"]), str(report["places"]))
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    console.print(f"seed {report['seed']}, {report['seconds']:,} s, {report['inputs_per_s']:,} inputs/s")


if __name__ == "__main__":
    sys.exit(main())
