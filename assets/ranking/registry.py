"""Model versions in the lake: written whole or not at all, found, loaded, scored; and which of them serves.

Here: the folder `<lake root>/_models/ranker/<version>/` with weights.pt, config.json (configuration, table and version
read, window, rules, code version), features.json (the feature schema), metrics.json and lineage.json (the Delta versions
behind it, the rules of its labels). Not here: training (train.py), whether a version is good enough (promotion.py).

A version is written under a name that begins with a dot, made durable and renamed at the end: a killed training leaves no
version, a power cut neither. sums.json holds the checksums of its files, which are looked at when it is read.

Which version serves is said by `.serving/`, one file an entry, numbered and never changed: promote, rollback, and what the
gate found (checked). The newest promote or rollback is the pointer, so there is no second file that could say otherwise;
an entry appears whole under its number or not at all, and of two writers at once one is told to look again. `.serving/head.json`
only holds the number up to which there were entries, so that a lost one is noticed.
"""

from __future__ import annotations

import datetime as dt
import getpass
import json
import os
import re
import shutil
import subprocess
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from assets import durable
from assets.lake import Lake, LakeError, Window
from assets.ranking import collisions, features
from assets.ranking.config import DWELL, HEADS, OUTPUTS, RankerConfig, RankerError

FILES = ("weights.pt", "config.json", "features.json", "metrics.json")
HEAD, SUMS = "head.json", "sums.json"
LINEAGE = "lineage.json"  # apart from FILES: versions that were written before there was one stay readable
SERVING = "serving"  # in place of a version's name: the one that serves
SCORE_ROWS = 16_384


def folder(lake: Lake) -> Path:
    """Where the versions lie. Raises RankerError for a lake on object storage, where a folder cannot be renamed."""
    if "://" in str(lake.root):
        raise RankerError(f"model versions need a lake in a folder, not {lake.root}; train with a local lake root")
    return Path(lake.root) / "_models" / "ranker"


def versions(lake: Lake) -> list[str]:
    """Versions, oldest first (names ascend, see `publish`). A folder without what makes a version is none; a version that
    has lost another file is refused by name when it is read."""
    if not folder(lake).is_dir():
        return []
    return sorted(p.name for p in folder(lake).iterdir() if not p.name.startswith(".") and _was_complete(p))


def _was_complete(place: Path) -> bool:
    return (place / SUMS).is_file() or (place / "config.json").is_file()


def latest(lake: Lake) -> str | None:
    """The newest version's name, or None."""
    return next(reversed(versions(lake)), None)


def publish(lake: Lake, write: Callable[[Path], None]) -> str:
    """Let `write` fill a hidden folder, then make it a version under its final name; returns the name.

    Raises RankerError where a file of FILES is missing afterwards. A failure leaves no version behind.
    """
    root = folder(lake)
    name = _next_name(root)
    hidden = root / f".writing-{name}"
    durable.make_folder(root)
    hidden.mkdir()
    try:
        write(hidden)
        if missing := [file for file in FILES if not (hidden / file).exists()]:
            raise RankerError(f"the version {name} lacks {', '.join(missing)}")
        write_json(hidden / LINEAGE, lineage(lake, _json(hidden / "config.json")))
        write_sums(hidden)
        durable.sync_tree(hidden)
        durable.rename_durably(hidden, root / name)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise
    return name


def _next_name(root: Path) -> str:
    """The time, or where the clock was set back since the newest version: a microsecond after that one."""
    taken = [found[1] for path in root.glob("*") if (found := _NAME.fullmatch(path.name.removeprefix(".writing-")))]
    now = dt.datetime.now(dt.UTC)
    if taken:
        now = max(now, dt.datetime.strptime(max(taken) + "+0000", f"{_NAME_TIME}%z") + dt.timedelta(microseconds=1))
    return now.strftime(_NAME_TIME)


_NAME, _NAME_TIME = re.compile(r"(\d{8}T\d{12})"), "%Y%m%dT%H%M%S%f"


def write_json(path: Path, values: dict) -> None:
    with durable.writing(path):
        path.write_text(json.dumps(values, indent=2, default=str) + "\n")


def write_sums(place: Path) -> None:
    """Write the checksums of a folder's files beside them."""
    sums = {file.name: durable.digest_of(file) for file in sorted(place.iterdir()) if file.is_file() and file.name != SUMS}
    durable.write_durably(place / SUMS, durable.sealed(SUMS, {"files": sums}))


def checked(place: Path, *names: str) -> Path:
    """The folder again, its files (all, or those named) held against their checksums; older code has written none.

    Raises RankerError naming the file that is gone or not what was written.
    """
    try:
        sums = durable.unsealed(place / SUMS, SUMS)["files"]
    except FileNotFoundError:
        sums = {}
    except (durable.DamagedError, TypeError, KeyError) as error:
        raise RankerError(f"{place / SUMS} {getattr(error, 'why', 'is damaged')}; {_advice(place)}") from error
    for name in names or tuple(sums):
        path = place / name
        if not path.exists():
            if name in sums or name in FILES:
                raise RankerError(f"{path} is gone; {_advice(place)}")
        elif name in sums and durable.digest_of(path) != sums[name]:
            raise RankerError(f"{path} is damaged: its checksum is another; {_advice(place)}")
    return place


def _advice(place: Path) -> str:
    return f"put it back from a copy of the lake, or delete {place} and train anew"


def _json(path: Path, advice: str | None = None) -> dict:
    """Raises RankerError where the file is gone or no JSON object."""
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError("no JSON object")
        return found
    except FileNotFoundError:
        raise RankerError(f"{path} is gone; {advice or _advice(path.parent)}") from None
    except ValueError as error:
        raise RankerError(f"{path} is damaged ({error}); {advice or _advice(path.parent)}") from None


def code_version() -> str | None:
    """The commit of this code, with "+changes" where files differ from it; None where there is no git."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


@dataclass
class Ranker:
    """A model version in memory, on one CPU process. config and metrics: what its files say."""

    version: str
    schema: features.FeatureSchema
    config: dict
    metrics: dict
    model: object

    def score(self, samples: pa.Table) -> pa.Table:
        """Probabilities of the nine heads: p_click given the display, the others given a click; and dwell_s, the reading time
        in seconds given a click. float32, rows as in. As if each note were shown in the first slot: position is left out.

        samples: the columns of `schema.columns`, as in `training_samples`; labels are not read.
        Raises RankerError where a column is missing.
        """
        parts = [self.score_encoded(features.encode(samples.slice(start, SCORE_ROWS), self.schema, labelled=False))
                 for start in range(0, samples.num_rows, SCORE_ROWS)]  # fmt: skip
        scores = np.concatenate(parts) if parts else np.empty((0, len(OUTPUTS)), np.float32)
        names = [*(f"p_{head}" for head in HEADS), f"{DWELL}_s"]
        return pa.table({name: scores[:, i] for i, name in enumerate(names)})

    def score_encoded(self, batch: features.Encoded) -> np.ndarray:
        """The same for arrays: float32 [n, outputs], the last the seconds read; position is left out."""
        from assets.ranking.model import predict

        if not len(batch.ids):  # TorchRec cannot look up nothing
            return np.empty((0, len(OUTPUTS)), np.float32)
        return predict(self.model, batch, bias=False)


def load(lake: Lake, version: str | None = None) -> Ranker:
    """A version, the newest by default; "serving" for the one that serves. RankerError where there is none, naming those that exist."""
    path = _existing(lake, version)
    return read(path, path.name)


def _existing(lake: Lake, version: str | None) -> Path:
    found = versions(lake)
    if version == SERVING:
        version = serving(lake)
        if version is None:
            raise RankerError("no version of the ranker serves yet; `glasshouse ranker promote VERSION` lets one")
    name = version or latest(lake)
    if name not in found:
        have = ", ".join(found) if found else "none yet; materialize the asset `ranker`"
        raise RankerError(f"the lake at {lake.root} has no ranker version {version or 'at all'}; there are: {have}")
    return folder(lake) / name


def read(path: Path, name: str) -> Ranker:
    """The version in a folder, its metrics empty while it is being written."""
    import torch

    from assets.ranking import checkpoint
    from assets.ranking.model import RankerModel

    checked(path)
    config = _json(path / "config.json")
    schema = features.FeatureSchema.from_dict(_json(path / "features.json"))
    settings = RankerConfig.from_dict(config["ranker"])
    if settings.collisions == "managed":
        schema = replace(schema, ids=collisions.IdMaps.load(path / collisions.FILE, settings))
    metrics = _json(path / "metrics.json") if (path / "metrics.json").exists() else {}
    model = RankerModel(schema, settings, torch.device("cpu"))
    try:
        model.load_state_dict(checkpoint.read_version(path / "weights.pt"))
    except RuntimeError as error:
        raise RankerError(f"the weights of version {name} do not fit this code's network; train the ranker anew ({error})") from error
    return Ranker(name, schema, config, metrics, model.eval())


def read_metrics(lake: Lake, version: str | None = None) -> dict:
    """The metrics of a version, the newest by default, without loading torch. RankerError where there is none."""
    return _json(checked(_existing(lake, version), "metrics.json") / "metrics.json")


def read_config(lake: Lake, version: str | None = None) -> dict:
    """What a version was made with and read, the newest by default; `lineage` added (empty for one from before there was any)."""
    path = checked(_existing(lake, version), "config.json", LINEAGE)
    found = path / LINEAGE
    return {**_json(path / "config.json"), "lineage": _json(found) if found.exists() else {}}


def exact(lake: Lake, version: str | None = None) -> str:
    """The name of a version given as None (the newest), "serving" or a name. RankerError where there is none."""
    return _existing(lake, version).name


# --- what a version was made of ---------------------------------------------------------------------------------------


def lineage(lake: Lake, config: dict) -> dict:
    """The Delta versions and the rules behind a version.

    read: table to version, as training read it. made_from: the lake's moment in which that version of the table was written
    (its number, time, and every table's version then): what the samples were computed from. rules: those of the window's
    labels at that moment (fingerprint, name, hours). label_code: the labeler's code versions. Empty where nothing is known:
    a lake without a commit log, a moment tidied away, labels that were not made here.
    """
    table, version = config.get("table"), config.get("table_version")
    if table is None or version is None:
        return {}
    found: dict = {"read": {table: version}, "made_from": {}, "rules": [], "label_code": []}
    if lake.log is None or not (numbers := lake.log.numbers()):
        return found
    place = bisect_left(numbers, version, key=lambda number: lake.log.moment(number).tables.get(table, -1))
    moment = lake.log.moment(numbers[place]) if place < len(numbers) else None
    if moment is None or moment.tables.get(table) != version:  # tidied away
        return found
    found["made_from"] = {"moment": moment.number, "at": moment.at, "tables": dict(sorted(moment.tables.items()))}
    return {**found, **_labels(lake, Window(*map(dt.datetime.fromisoformat, config["window"])), moment.tables)}


def _labels(lake: Lake, window: Window, tables: dict[str, int]) -> dict:
    from assets.attribution import provenance
    from assets.attribution.tables import LABELED_HOURS

    if LABELED_HOURS.name not in tables:
        return {}
    try:
        book = lake.read(LABELED_HOURS.name, window, version=tables[LABELED_HOURS.name]).to_pylist()
    except (LakeError, OSError):  # vacuumed since
        return {}
    known = provenance.known(lake)
    hours: dict[str, int] = {}
    for row in book:
        for rules in filter(None, (row.get("rules") or "").split(",")):
            hours[rules] = hours.get(rules, 0) + 1
    rules = [{"rules": one, "version": known[one].version if one in known else None, "hours": count} for one, count in hours.items()]
    return {"rules": rules, "label_code": sorted({row["code"] for row in book if row.get("code")})}


# --- which version serves ---------------------------------------------------------------------------------------------

MOVES = ("promote", "rollback")  # the entries that change which version serves


def history(lake: Lake) -> list[dict]:
    """Every entry, oldest first: number, action (promote, rollback, checked), version, before (which served until then),
    at (RFC 3339), by, why; of `checked` also what promotion.Verdict.as_dict gives."""
    place = _serving_folder(lake)
    head = _head(place)  # read first: the entries that it counts are there, whoever writes meanwhile
    found = {int(path.stem): _entry(path) for path in place.glob("[0-9]*.json")} if place.is_dir() else {}
    for number in range(1, max([head, *found], default=0) + 1):
        # Of two entries written while the folder was listed the later may be in the list and the earlier not.
        if number not in found:
            path = place / f"{number:08}.json"
            if not path.exists():
                raise RankerError(f"{path} is gone, so which version serves is not known; put it back from a copy of the lake")
            found[number] = _entry(path)
    return [found[number] for number in sorted(found)]


def _entry(path: Path) -> dict:
    try:
        found = durable.unsealed(path, path.name)
        if not isinstance(found, dict) or found.get("number") != int(path.stem) or not {"action", "version"} <= found.keys():
            raise durable.DamagedError(path, "is damaged: it is not the entry of its number")
        return found
    except durable.DamagedError as error:
        raise RankerError(f"{error}; which version serves is not known without it: put it back from a copy of the lake") from error


def _head(place: Path) -> int:
    """The number up to which there were entries; told and done without where it is damaged, 0 where older code wrote none."""
    try:
        return int(durable.unsealed(place / HEAD, HEAD)["number"])
    except FileNotFoundError:
        return 0
    except (durable.DamagedError, TypeError, KeyError, ValueError) as error:
        durable.tell(f"{place / HEAD} is damaged ({error}); it is written anew with the next entry")
        return 0


def serving(lake: Lake) -> str | None:
    """The version that serves, or None."""
    return _served(history(lake))


ANY = "any"  # promote in place of whichever version serves


def promote(lake: Lake, version: str, *, why: str, by: str | None = None, instead_of: str | None = ANY) -> dict:
    """Let a version serve; returns the entry of the history. Whether it is good enough is promotion.py's to say.

    by: who, the user of this process by default. instead_of: the version that must still serve; None: none does.
    Raises RankerError for a version that is not there, serves already, or where something else was written meanwhile.
    """
    version, entries = exact(lake, version), history(lake)
    before = _served(entries)
    if version == before:
        raise RankerError(f"the version {version} serves already")
    if instead_of not in (ANY, before):
        raise RankerError(f"{before or 'no version'} serves by now, not {instead_of or 'none'}; compare with it and promote again")
    return _append(lake, entries, {"action": "promote", "version": version, "before": before, "why": why, "by": by or _user()})


def rollback(lake: Lake, *, why: str, by: str | None = None) -> dict:
    """Let the version serve again that served before the present one was promoted; twice: the one before that.

    Raises RankerError where there is none, or it is gone from the lake.
    """
    entries = history(lake)
    line = _line(entries)
    if len(line) < 2:
        raise RankerError("there is nothing to roll back to: " + (f"{line[0]} was the first to serve" if line else "no version serves"))
    version = exact(lake, line[-2])
    return _append(lake, entries, {"action": "rollback", "version": version, "before": line[-1], "why": why, "by": by or _user()})


def record_check(lake: Lake, version: str, found: dict, *, by: str | None = None) -> dict:
    """Write down what the gate found of a version; which one serves stays as it is."""
    entries = history(lake)
    entry = {"action": "checked", "version": exact(lake, version), "before": _served(entries), "by": by or _user(), "why": "", **found}
    return _append(lake, entries, entry)


def last_check(lake: Lake, version: str) -> dict | None:
    """What the gate found last of a version, or None."""
    return next((one for one in reversed(history(lake)) if one["action"] == "checked" and one["version"] == version), None)


def rolled_back(lake: Lake) -> set[str]:
    """The versions that somebody took back, and did not promote since: no automation promotes them again."""
    found: set[str] = set()
    for entry in history(lake):
        if entry["action"] == "rollback":
            found.add(entry["before"])
        elif entry["action"] == "promote":
            found.discard(entry["version"])
    return found


def _served(entries: list[dict]) -> str | None:
    return next((entry["version"] for entry in reversed(entries) if entry["action"] in MOVES), None)


def _line(entries: list[dict]) -> list[str]:
    """The versions that a rollback would go through, the one that serves last."""
    line: list[str] = []
    for entry in entries:
        if entry["action"] == "promote":
            line.append(entry["version"])
        elif entry["action"] == "rollback":
            line.pop()
    return line


def _append(lake: Lake, entries: list[dict], entry: dict) -> dict:
    """Write the next entry: whole under a name of its own, then linked to its number, which fails where that is taken."""
    place = durable.make_folder(_serving_folder(lake))
    number = entries[-1]["number"] + 1 if entries else 1
    entry = {"number": number, "at": dt.datetime.now(dt.UTC).isoformat(), **entry}
    path = place / f"{number:08}.json"
    if not durable.create_durably(path, durable.sealed(path.name, entry, indent=2, default=str)):
        raise RankerError("another promote, rollback or check was written just now; look at it and try again")
    durable.write_durably(place / HEAD, durable.sealed(HEAD, {"number": number}))
    return entry


def _serving_folder(lake: Lake) -> Path:
    return folder(lake) / ".serving"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return f"user {os.getuid()}"
