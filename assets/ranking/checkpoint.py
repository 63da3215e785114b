"""A training that can be killed: its folder, its checkpoints, and the optimizer state that a version carries on.

Here: files of `<lake>/_models/ranker/.training-<run>/`, written whole or not at all, and reading them back into a sharded
model. Not here: the loop (worker.py), versions (registry.py). Imports torch inside functions: train.py loads it.

    job.json        what the run was told, the window and table version it reads, the transforms it fitted
    step-<n>/       a checkpoint: rank-<r>.pt of each process (its pieces of the tables with the optimizer's row states,
                    dense weights, Adam's state, random state), meta.json (step, curve), sums.json (checksums of these)
    lock            held by the process that trains
"""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from assets import durable
from assets.ranking.config import RankerError

KEEP_DAYS = 7  # an unfinished training that nothing has touched for so long is removed by the next one
JOB, META, SUMS = "job.json", "meta.json", "sums.json"
# Until November 2026 tables that lists shared lay in a module `list_embeddings`, the others in EmbeddingBagCollections.
_OLDER = re.compile(r"^(?:list_(?=embeddings\.)|)((?:embeddings|wide)\.)(?:embedding_bags|embeddings)\.")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make the folder and hold it against a second process that would train into it. Raises RankerError if it is held."""
    durable.make_folder(folder)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RankerError(f"another process trains in {folder}; wait for it, or end it") from None
        yield


def begun(folder: Path, told: dict) -> dict | None:
    """What the folder's run was begun with (write_down), None where none was. told: what it must have in common.

    Raises RankerError naming what differs.
    """
    if (there := read_job(folder)) is None:
        return None
    told = json.loads(json.dumps(told))
    if there["ranker"] != told["ranker"]:
        differ = {k for k in {*there["ranker"], *told["ranker"]} if there["ranker"].get(k) != told["ranker"].get(k)}
        said = [f"{k}: {there['ranker'].get(k)} then, {told['ranker'].get(k)} now" for k in sorted(differ)]
    else:
        said = [f"{k}: {there[k]} then, {told[k]} now" for k in told if there[k] != told[k]]
    if said:
        raise RankerError(f"the run in {folder} was begun otherwise ({'; '.join(said)}); resume it as it was, or start a new run")
    return there


def read_job(folder: Path) -> dict | None:
    """What was written down, None where nothing was."""
    path = folder / JOB
    try:
        return durable.unsealed(path, JOB)
    except FileNotFoundError:
        if any(folder.glob("step-*")):
            raise RankerError(f"{path} is gone, though there are checkpoints; delete {folder} and start a new run") from None
        return None
    except durable.DamagedError as error:
        raise RankerError(f"{error}; the run cannot go on without it: delete {folder} and start a new run") from error


def write_down(folder: Path, values: dict) -> None:
    write_whole(folder / JOB, values)


def write_whole(path: Path, values: dict) -> None:
    durable.write_durably(path, durable.sealed(path.name, values, indent=2, default=str))


def newest(folder: Path) -> Path | None:
    """The last checkpoint, or None: complete, since its folder got its name when it was; whether it still is says read_meta."""
    found = [path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdigit()]
    return max(found, key=lambda path: int(path.name.removeprefix("step-")), default=None)


def read_meta(checkpoint: Path) -> dict:
    """step, curve, seconds of training so far; all files of the checkpoint are held against their checksums.

    Raises RankerError naming the one that is gone or not what was written.
    """
    advice = f"the run cannot go on from it: delete {checkpoint.parent} and start a new run"
    try:
        sums = durable.unsealed(checkpoint / SUMS, SUMS)["files"] if (checkpoint / SUMS).exists() else {}
        for name, wanted in sums.items():
            if not (checkpoint / name).exists() or durable.digest_of(checkpoint / name) != wanted:
                raise durable.DamagedError(checkpoint / name, "is gone or damaged")
        return durable.unsealed(checkpoint / META, META)
    except (durable.DamagedError, FileNotFoundError) as error:
        raise RankerError(f"{error}; {advice}") from error


def sweep(root: Path) -> None:
    """Remove unfinished trainings that nothing has touched for KEEP_DAYS; one that is held stays."""
    for folder in root.glob(".training-*"):
        if time.time() - max((p.stat().st_mtime for p in folder.iterdir()), default=0) < KEEP_DAYS * 86_400:
            continue
        try:
            with held(folder):
                shutil.rmtree(folder, ignore_errors=True)
        except RankerError:
            continue


def begin(folder: Path, step: int) -> Path:
    """The hidden folder that the processes write checkpoint `step` into; `finish` makes it one."""
    hidden = folder / f".writing-{step}"
    hidden.mkdir(parents=True, exist_ok=True)
    return hidden


def finish(folder: Path, step: int, meta: dict) -> None:
    """Called by one process once all have written. The checkpoint before goes when this one stands."""
    hidden = folder / f".writing-{step}"
    write_whole(hidden / META, {"step": step, **meta})
    done = folder / f"step-{step}"
    sums = {path.name: durable.digest_of(path) for path in hidden.iterdir()}
    durable.write_durably(hidden / SUMS, durable.sealed(SUMS, {"files": sums}))
    durable.sync_tree(hidden)
    if done.exists():  # written by a run that was killed before it could go on
        shutil.rmtree(done)
    durable.rename_durably(hidden, done)  # before the one before goes
    for other in [*folder.glob("step-*"), *folder.glob(".writing-*")]:
        if other != done:
            shutil.rmtree(other, ignore_errors=True)


def read_version(path: Path) -> dict:
    """weights.pt or optimizer.pt of a version; tables that older code kept in other modules under the names they have now."""
    import torch

    found = torch.load(path, weights_only=True, map_location="cpu")
    return {**found, "rows": _renamed(found["rows"])} if "adam" in found else _renamed(found)


def _renamed(tables: dict) -> dict:
    return {_OLDER.sub(r"\1embeddings.", name): values for name, values in tables.items()}


# --- the state of a sharded model ---------------------------------------------------------------------------------


def state_of(model, optimizer) -> dict:
    """This process's whole state. pieces: table -> [(first row, first column, weights, row states of the optimizer)]."""
    import torch

    pieces = {name: [(*offsets, weight.detach().cpu().clone(), state.detach().cpu().clone())
                     for offsets, weight, state in parts] for name, parts in _pieces(model).items()}  # fmt: skip
    dense = {name: value.detach().cpu().clone() for name, value in _dense(model).items()}
    return {"pieces": pieces, "dense": dense, "adam": _on_cpu(optimizer.state_dict()), "rng": torch.get_rng_state()}


def _on_cpu(value):
    """Dicts and lists of tensors, the tensors on the CPU: what a GPU has trained is read where there is none."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: _on_cpu(one) for key, one in value.items()}
    return type(value)(_on_cpu(one) for one in value) if isinstance(value, (list, tuple)) else value


def put_back(model, optimizer, state: dict) -> None:
    """Copy what `state_of` gave in a process of the same rank into model and optimizer, bit for bit."""
    import torch

    with torch.no_grad():
        for name, parts in _pieces(model).items():
            saved = {piece[:2]: piece[2:] for piece in state["pieces"].get(name, ())}
            for offsets, weight, rows in parts:
                if offsets not in saved or saved[offsets][0].shape != weight.shape:
                    raise RankerError(f"the checkpoint holds other pieces of {name}; start a new run")
                weight.copy_(saved[offsets][0])
                rows.copy_(saved[offsets][1])
        for name, value in _dense(model).items():
            value.copy_(state["dense"][name])
    optimizer.load_state_dict(state["adam"])
    torch.set_rng_state(state["rng"])


def start_at(model, optimizer, weights: dict, state: dict | None) -> None:
    """Begin at a version's weights (a plain state_dict) and, where it has any, its optimizer state (`merge`)."""
    import torch

    with torch.no_grad():
        for name, parts in _pieces(model).items():
            for (row, column), weight, rows in parts:
                weight.copy_(weights[name][row : row + weight.shape[0], column : column + weight.shape[1]])
                if state is not None:
                    rows.copy_(state["rows"][name][row : row + weight.shape[0]].view_as(rows))
        for name, value in _dense(model).items():
            value.copy_(weights[name])
    if state is not None:
        optimizer.load_state_dict(state["adam"])


def renew(model, changed: dict, init: float, seed: tuple[int, ...]) -> None:
    """Rows that have a new owner (feature -> rows) begin anew: weights as at the start, row states of the optimizer 0.

    The weights are drawn from `seed`, the same however the table is cut.
    """
    import numpy as np
    import torch

    widths = {name: value.metadata().size[1] for name, value in model.state_dict().items() if hasattr(value, "local_shards")}
    with torch.no_grad():
        for name, parts in _pieces(model).items():
            table = name.split(".")[-2]
            rows = changed.get(table.removeprefix("wide_"), ())
            if not len(rows):
                continue
            of = sum(table.encode())  # tables of the same ids do not begin alike
            spread = 0.0 if table.startswith("wide_") else init
            drawn = np.random.default_rng((*seed, of)).uniform(-spread, spread, (len(rows), widths[name]))
            for (row, column), weight, state in parts:
                inside = (rows >= row) & (rows < row + weight.shape[0])
                at = torch.from_numpy(rows[inside] - row).to(weight.device)
                weight[at] = torch.from_numpy(drawn[inside, column : column + weight.shape[1]]).to(weight)
                state.view(-1)[at] = 0


def merge(folder: Path, whole: dict) -> tuple[dict, dict]:
    """Put the processes' parts (rank-*.pt) together: the weights as a plain state_dict, and the optimizer's state.

    whole: a state_dict of the right shapes, filled in place. Of a table cut by columns each piece has row states of its own;
    a row's state is their mean. Raises RankerError where a part of a table is missing.
    """
    import torch

    seen = {name: 0 for name in whole}
    rows = {name: torch.zeros(len(value)) for name, value in whole.items()}
    state = None
    for path in sorted(folder.glob("rank-*.pt")):
        part = torch.load(path, weights_only=True, map_location="cpu")
        if state is None:
            state = part["adam"]
            for name, value in part["dense"].items():
                whole[name].copy_(value)
                seen[name] += value.numel()
        for name, pieces in part["pieces"].items():
            width = whole[name].shape[1]
            for row, column, value, own in pieces:
                whole[name][row : row + value.shape[0], column : column + value.shape[1]] = value
                rows[name][row : row + value.shape[0]] += own.view(-1) * (value.shape[1] / width)
                seen[name] += value.numel()
    if wrong := [name for name, count in seen.items() if count != whole[name].numel()]:
        raise RankerError(f"the processes did not hand in all weights of {', '.join(wrong)}")
    tables = {name for name in rows if _is_table(name)}
    return whole, {"rows": {name: rows[name] for name in tables}, "adam": state}


def _is_table(name: str) -> bool:
    return ".embeddings." in name


def _pieces(model) -> dict[str, list[tuple[tuple[int, int], object, object]]]:
    """Table -> [((first row, first column), weights, row states)] of this process; tensors that share the model's memory."""
    states = model.fused_optimizer.state_dict()["state"]
    found = {}
    for name, value in model.state_dict().items():
        if not hasattr(value, "local_shards") or not value.local_shards():
            continue  # no table, or one that lies in other processes
        (rows,) = (state for key, state in states[name].items() if key.endswith("momentum1"))
        pairs = zip(value.local_shards(), rows.local_shards(), strict=True)
        found[name] = [(tuple(w.metadata.shard_offsets), w.tensor, r.tensor) for w, r in pairs]
    return found


def _dense(model) -> dict:
    return {name: value for name, value in model.state_dict().items() if not hasattr(value, "local_shards")}
