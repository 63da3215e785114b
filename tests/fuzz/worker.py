"""The victim: reads files by one way of the tree that PYTHONPATH names, and says what came of it. Run as a script, see drive.py.

Here: the calls into the house, of entry points that every version of it has. Not here: what is in the files, what should come.
A line of JSON on stdin is a job, a line on the descriptor named in the first argument its answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
import threading
import traceback
from collections import Counter
from pathlib import Path

REFUSALS = ("SourceError", "MappingError", "LabelError")  # an error that says what to do: right for a file that a person named

HEAD_BYTES = 65_536


def main() -> None:
    answers = os.fdopen(int(sys.argv[1]), "w")
    root = os.path.realpath(sys.argv[2])
    for line in sys.stdin:
        job = json.loads(line)
        with tempfile.TemporaryDirectory(dir=job["scratch"]) as scratch:
            try:
                found = WAYS[job["way"]](job, Path(scratch))
            except BaseException as error:  # polars' PanicException is no Exception
                if isinstance(error, KeyboardInterrupt):
                    raise
                found = {"exception": _told(error, root)}
        answers.write(json.dumps(found) + "\n")
        answers.flush()


def _told(error: BaseException, root: str) -> dict:
    """Type, place in the tree's own code, message. A SystemExit is an exception too: nothing is to end the process."""
    frames = traceback.extract_tb(error.__traceback__)
    mine = [frame for frame in frames if os.path.realpath(frame.filename).startswith(root + os.sep) and "/.venv/" not in frame.filename
            and frame.filename != __file__]  # fmt: skip
    place = f"{os.path.relpath(os.path.realpath(mine[-1].filename), root)}:{mine[-1].lineno}" if mine else "outside"
    return {"type": type(error).__name__, "place": place, "message": ascii(str(error))[:500],
            "frames": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames][-12:]}  # fmt: skip


def _refused(error: Exception) -> str | None:
    """The message of an error that a person can act on; None for any other."""
    ours = any(kind.__module__.split(".")[0] == "assets" and kind.__name__ in REFUSALS for kind in type(error).__mro__)
    return str(error).encode("utf-8", "backslashreplace").decode() or None if ours or isinstance(error, (FileNotFoundError, PermissionError)) else None


def _bodies(rows: list[dict]) -> list[str]:
    """What quarantine keeps of the rows (row, body), as hashes of the bytes without the line end; of a huge row that is only its beginning."""
    bodies = {row["body"].rstrip(b"\r\n") for row in rows if row["row"] != 0 and len(row["body"]) < HEAD_BYTES}
    return sorted(hashlib.blake2b(body, digest_size=8).hexdigest() for body in bodies)


def _mapping(job: dict):
    if not job["mapping"]:
        return None
    from assets.events.mapping import load_mapping

    return load_mapping(Path(job["mapping"]))


# --- label ------------------------------------------------------------------------------------------------------------


def label(job: dict, scratch: Path) -> dict:
    from assets.attribution.label import label_files
    from assets.attribution.rules import load_rules
    from assets.events import intake

    kept: list = []
    whole, intake.read_log = intake.read_log, lambda *given, **named: kept.append(whole(*given, **named)) or kept[-1]
    try:
        paths = [Path(job["folder"], name) for name in job["files"]]
        summary = label_files(paths, scratch / "out", _mapping(job), load_rules())
    except Exception as error:
        if (words := _refused(error)) is None:
            raise
        return {"refused": {name: words for name in job["files"]}}
    finally:
        intake.read_log = whole
    ids = kept[-1].events["event_id"].to_pylist() if kept else None
    whole_files = sum(row == 0 for one in kept for row in one.quarantine["row"].to_pylist())
    return {"rows": summary["rows"], "events": summary["events"], "repeats": summary["repeats"], "quarantine": summary["quarantined"] - whole_files,
            "whole_files": whole_files, "ids": ids, "bodies": _bodies([row for one in kept for row in one.quarantine.select(["row", "body"]).to_pylist()])}  # fmt: skip


# --- the lake ---------------------------------------------------------------------------------------------------------


def _lake(scratch: Path):
    from assets.lake import Lake

    return Lake(str(scratch / "lake"))


def _in_lake(lake) -> dict:
    """Rows by the tables: of each file by `sources`, raw rows, ids of the events, quarantined rows (cut: those that are in no other
    table), and the reasons of those that stand for a whole file."""
    def read(name: str, *columns: str):
        return lake.read(name, columns=list(columns)).to_pylist() if lake.exists(name) else []

    quarantine = read("quarantine", "source", "row", "body", "reason")
    by_name = Counter()
    for row in read("sources", "name", "rows"):
        by_name[row["name"]] += row["rows"]
    return {
        "by_name": dict(by_name), "rows": sum(by_name.values()), "raw": len(read("raw_events", "source")),
        "ids": [row["event_id"] for row in read("events", "event_id")], "quarantine": sum(row["row"] != 0 for row in quarantine),
        "cut": sum(row["row"] != 0 and row["reason"].startswith("line: longer than") for row in quarantine),
        "whole_files": [row["reason"] for row in quarantine if row["row"] == 0], "bodies": _bodies(quarantine),
    }  # fmt: skip


def live(job: dict, scratch: Path) -> dict:
    from assets.attribution import live as labeler
    from assets.attribution.rules import load_rules

    lake, batches = _lake(scratch), []

    def probe(point: str) -> None:
        if point == "planned":
            for name in job["vanish"]:
                with contextlib.suppress(OSError):
                    Path(job["folder"], name).unlink()

    labeler.run(lake, Path(job["folder"]), load_rules(), 0.0, threading.Event(), lambda _, stats: batches.append(stats), once=True,
                say=lambda text: None, probe=probe)  # fmt: skip
    found = _in_lake(lake)
    return {**found, "events": len(found["ids"]), "repeats": sum(one["repeats"] for one in batches)}


def batch(job: dict, scratch: Path) -> dict:
    from assets.events import intake
    from assets.lake import windows

    lake, hours, refused = _lake(scratch), set(), {}
    mapping = _mapping(job)
    for name in job["files"]:
        try:
            hours |= set(intake.land(lake, [Path(job["folder"], name)], mapping).hours)
        except Exception as error:
            if (words := _refused(error)) is None:
                raise
            refused[name] = words
    counts = Counter()
    for window in windows(hours):
        counts.update(intake.accept(lake, window).counts)
    found = _in_lake(lake)
    return {**found, "events": len(found["ids"]), "repeats": counts["repeats"], "refused": refused}


def orders(job: dict, scratch: Path) -> dict:
    from assets.orders import rules, take

    lake = _lake(scratch)
    taken = take.take(lake, Path(job["folder"]), rules.load_rules())
    again = take.take(lake, Path(job["folder"]), rules.load_rules())
    sources = lake.read("order_sources", columns=["source", "name", "rows"]).to_pylist()
    by_source = {row["source"]: row["name"] for row in sources}

    def places(name: str) -> list:
        rows = lake.read(name, columns=["source", "row"]).to_pylist() if lake.exists(name) else []
        return sorted({(by_source.get(row["source"], row["source"]), row["row"]) for row in rows})

    quarantine = places("order_quarantine")
    refused = lake.read("order_quarantine", columns=["row", "body", "reason"]).to_pylist()
    return {
        "lines": {row["name"]: row["rows"] for row in sources}, "changes": places("order_changes"), "repeats": taken["repeats"],
        "quarantine": [one for one in quarantine if one[1] != 0], "whole_files": [one[0] for one in quarantine if one[1] == 0],
        "again": again["files"] + again["changes"], "reasons": sorted({row["reason"] for row in refused if row["reason"].startswith("line: not understood")}),
        "bodies": _bodies(refused),
    }  # fmt: skip


WAYS = {"label": label, "live": live, "batch": batch, "orders": orders}

if __name__ == "__main__":
    main()
