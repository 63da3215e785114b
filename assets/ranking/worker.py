"""One training process: process group, sharded model, the loop, and its part of the checkpoints and weights on disk.

Here: what every process of a run does. Not here: starting processes (train.py), what a checkpoint holds (checkpoint.py).
Imports torch: import inside functions only. The calling process may hold a JVM, so further processes are spawned, never forked.
"""

from __future__ import annotations

import datetime as dt
import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.planner.types import ParameterConstraints
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward
from torchrec.optim.optimizers import in_backward_optimizer_filter
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from assets.ranking import checkpoint, collisions, rows, samples
from assets.ranking.config import BIASES, RankerConfig, RankerError, cores
from assets.ranking.features import FeatureSchema
from assets.ranking.model import Inputs, RankerModel, Routed, loss, set_bias

TABLES = ("embeddings", "wide")  # RankerModel's sharded modules
REPORT_S = 2.0
CLOCK_STEPS = 20  # steps between two looks at the clock, which the processes take together

# What the planner chooses from on the CPU where the configuration says nothing: it would give one process the tables that do
# most of the work, and the others would wait for it.
CPU_SHARDING = ["row_wise"]
# On GPUs. Data-parallel tables would train outside of the fused optimizer; by columns only where the configuration says so.
GPU_SHARDING = ["table_wise", "row_wise"]


@dataclass(frozen=True)
class Job:
    """What every process of a run is told. means: mean label by output, to start from.

    rendezvous: a file in an empty folder, through which the processes find each other. folder: of the training
    (checkpoint.py); parts of the finished model go to its `done`. start: folder of a version to go on from.
    """

    where: samples.Split
    schema: FeatureSchema
    config: RankerConfig
    means: tuple[float, ...]
    rendezvous: str
    folder: str
    start: str | None = None
    parent: int = 0


def device_of(config: RankerConfig, rank: int) -> torch.device:
    """cpu, or this process's GPU. Raises RankerError where GPUs are asked for that are not there."""
    wanted = config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cpu":
        return torch.device("cpu")
    found = torch.cuda.device_count()
    if found < config.processes:
        raise RankerError(f"{config.processes} processes need a GPU each, {found} found; use device='cpu' or fewer")
    return torch.device("cuda", rank)


def run(rank: int, job: Job, report: Callable[[dict], None]) -> None:
    """Train, and leave `done/rank-<rank>.pt` in job.folder. The last report has phase "trained"; only rank 0 reports."""
    config = job.config
    device = device_of(config, rank)
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads or _threads(config.processes))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend, init_method=f"file://{job.rendezvous}", rank=rank, world_size=config.processes,
        timeout=dt.timedelta(minutes=30),
    )  # fmt: skip
    try:
        model = sharded(job, device)
        training = Training(model, job, rank, device, report if rank == 0 else lambda _: None)
        outcome = training.run()
        done = Path(job.folder) / "done"
        done.mkdir(exist_ok=True)
        torch.save(checkpoint.state_of(model, training.optimizer), done / f"rank-{rank}.pt")
        if rank == 0 and training.ids is not None:
            training.ids.save(done / collisions.FILE)
            outcome["ids"] = training.ids.report()
        dist.barrier()
        if rank == 0:
            report({"phase": "trained", **outcome, "backend": backend, "device": device.type, "sharding": _plan(model)})
    finally:
        dist.destroy_process_group()
        torch.set_num_threads(before)


def _threads(processes: int) -> int:
    """This process's share of the cores, less one where there are several: the samples' thread needs it too."""
    return max(1, cores() // processes - 1)


def sharded(job: Job, device: torch.device) -> DistributedModelParallel:
    """The model under DistributedModelParallel: tables placed by TorchRec's planner, updated in the backward pass."""
    config = job.config
    torch.manual_seed(config.seed)
    model = RankerModel(job.schema, config, device, tables_device=torch.device("meta"))
    set_bias(model, job.means)
    sharders = [EmbeddingCollectionSharder()]
    for name in TABLES:
        if (tables := getattr(model, name)) is not None:
            apply_optimizer_in_backward(RowWiseAdagrad, tables.parameters(), {"lr": config.lr_embedding})
    planner = EmbeddingShardingPlanner(
        topology=Topology(world_size=config.processes, compute_device=device.type),
        batch_size=samples.batch_size(job.where.train_rows, config),
        constraints=_constraints(job, device),
    )
    plan = planner.collective_plan(model, sharders, dist.group.WORLD)
    several = config.processes > 1  # alone there is nothing to average
    made = DistributedModelParallel(model, device=device, plan=plan, sharders=sharders, init_data_parallel=several)
    for name in TABLES:
        if (tables := getattr(made.module, name)) is not None:
            rows.install(tables)
    return made


def _constraints(job: Job, device: torch.device) -> dict[str, ParameterConstraints]:
    """What the planner may choose from, by table. A table that is cut by columns gives each process some."""
    config = job.config
    names = [name for name in job.schema.tables if name not in BIASES]
    free = {name: GPU_SHARDING if device.type == "cuda" else CPU_SHARDING for name in names}
    kinds = free | {name: [kind] for name, kind in config.sharding.items()}
    least = max(4, config.dim // config.processes // 4 * 4)
    found = {}
    for name, allowed in kinds.items():
        cut = {"min_partition": least} if "column_wise" in config.sharding.get(name, "") else {}
        found[name] = found[f"wide_{name}"] = ParameterConstraints(sharding_types=allowed, **cut)
        if cut:  # twelve columns do not cut evenly
            found[f"wide_{name}"] = ParameterConstraints(sharding_types=allowed, min_partition=4)
    return found


class Training:
    """The loop of one process, and where it stands: step, of `total`, and what has been said of the loss."""

    def __init__(
        self, model: DistributedModelParallel, job: Job, rank: int, device: torch.device, report: Callable[[dict], None]
    ) -> None:
        self.model, self.job, self.rank, self.device, self.report = model, job, rank, device, report
        config, rows = job.config, job.where.train_rows
        dense = dict(in_backward_optimizer_filter(model.named_parameters()))
        self.optimizer = torch.optim.Adam(dense.values(), lr=config.lr_dense, fused=True)
        self.size = samples.batch_size(rows, config)
        self.an_epoch = samples.steps(rows, self.size, config.processes)
        self.total = self.an_epoch * config.epochs
        self.step, self.curve, self.before = 0, [], 0.0
        self.summed, self.count = torch.zeros((), device=device, dtype=torch.float64), 0
        self.resumed_at = None
        self.ids = collisions.IdMaps.empty(config) if config.collisions == "managed" else None
        self._begin()

    def _begin(self) -> None:
        folder = checkpoint.newest(Path(self.job.folder))
        if folder is not None:
            meta = checkpoint.read_meta(folder)
            state = torch.load(folder / f"rank-{self.rank}.pt", weights_only=True, map_location="cpu")
            checkpoint.put_back(self.model, self.optimizer, state)
            self.step, self.curve, self.before = meta["step"], meta["curve"], meta["seconds"]
            self.summed, self.count = state["summed"].to(self.device), state["count"]
            self.resumed_at = self.step
            if self.ids is not None:
                self.ids = collisions.IdMaps.load(folder / collisions.FILE, self.job.config)
        elif self.job.start is not None:
            start = Path(self.job.start)
            known = (start / "optimizer.pt").exists()
            state = checkpoint.read_version(start / "optimizer.pt") if known else None
            weights = checkpoint.read_version(start / "weights.pt")
            checkpoint.start_at(self.model, self.optimizer, weights, state)
            if self.ids is not None:
                self.ids = collisions.IdMaps.load(start / collisions.FILE, self.job.config)
                self.ids.mark = collisions.NO_MARK

    def run(self) -> dict:
        """Train to the end; returns loss_curve, batch, steps, train_seconds, resumed_at (None: from the start)."""
        self.model.train()
        self.started = self.said = self.saved = time.perf_counter()
        for epoch in range(self.step // self.an_epoch, self.job.config.epochs):
            for batch in self._batches(epoch, self.step - epoch * self.an_epoch):
                *given, moved = batch
                if moved is not None:
                    checkpoint.renew(self.model, moved.changed, self.job.config.init, moved.seed)
                    self.ids = moved.ids
                self._one(*given)
                self._after_step()
        seconds = time.perf_counter() - self.started
        return {
            "loss_curve": self.curve, "batch": self.size, "steps": self.total, "train_seconds": self.before + seconds,
            "resumed_at": self.resumed_at,
        }  # fmt: skip

    def _batches(self, epoch: int, start: int):
        """Tensors of the epoch's batches, their ids where the rows are."""
        made = self._made(epoch, start)
        return made if self.job.config.processes == 1 else routed(self.model.module, made)

    def _made(self, epoch: int, start: int):
        """Tensors of the epoch's batches, made in a thread of their own."""
        job, make = self.job, self.model.module.inputs
        ids = None if self.ids is None else self.ids.copy()  # reading is ahead of training

        def made():
            for batch, moved in samples.training_steps(job.where, job.schema, job.config, epoch, self.rank, start, ids):
                labels, weights = (torch.from_numpy(a).to(self.device) for a in (batch.labels, batch.weights))
                yield make(batch, self.device), labels, weights, moved

        return samples.prefetched(made())

    def _one(self, given: Inputs, labels: torch.Tensor, weights: torch.Tensor) -> None:
        config = self.job.config
        done = self.step / self.total
        for group in self.optimizer.param_groups:  # linear decay: the last steps average out the noise of the first
            group["lr"] = config.lr_dense * max(config.lr_final, 1 - done)
        value = loss(self.model(given), labels, weights, config)
        self.optimizer.zero_grad()
        value.backward()
        self.optimizer.step()
        self.summed += value.detach()
        self.count += 1
        self.step += 1

    def _after_step(self) -> None:
        now = time.perf_counter()
        if now - self.said >= REPORT_S or self.step == self.total:
            self._say(now)
        if self.step < self.total and self._is_time():
            self._save()

    def _say(self, now: float) -> None:
        mean = float(self.summed) / self.count
        if mean != mean or abs(mean) == float("inf"):
            raise RankerError("the loss is not finite; lower lr_dense or lr_embedding")
        config, rows = self.job.config, self.job.where.train_rows
        seen = min(self.step * self.size * config.processes, rows * config.epochs)
        elapsed = self.before + now - self.started
        point = {"step": self.step, "steps": self.total, "samples": seen, "loss": mean,
                 "samples_per_s": seen / elapsed, "elapsed_s": elapsed}  # fmt: skip
        self.curve.append(point)
        self.report({"phase": "train", **point})
        self.said = now
        self.summed, self.count = torch.zeros_like(self.summed), 0

    def _is_time(self) -> bool:
        """Whether all processes save now: by the step, or by the clock of rank 0."""
        config = self.job.config
        if config.checkpoint_steps and self.step % config.checkpoint_steps == 0:
            return True
        if not config.checkpoint_s or self.step % CLOCK_STEPS:
            return False
        due = torch.tensor([int(time.perf_counter() - self.saved >= config.checkpoint_s)], device=self.device)
        if config.processes > 1:
            dist.broadcast(due, 0)
        return bool(due.item())

    def _save(self) -> None:
        folder = Path(self.job.folder)
        hidden = checkpoint.begin(folder, self.step)
        state = checkpoint.state_of(self.model, self.optimizer)
        state |= {"summed": self.summed.cpu(), "count": self.count}
        torch.save(state, hidden / f"rank-{self.rank}.pt")
        if self.rank == 0 and self.ids is not None:
            self.ids.save(hidden / collisions.FILE)
        dist.barrier()
        if self.rank == 0 and not self._orphan():
            seconds = self.before + time.perf_counter() - self.started
            checkpoint.finish(folder, self.step, {"curve": self.curve, "seconds": seconds})
        dist.barrier()
        self.saved = time.perf_counter()

    def _orphan(self) -> bool:
        """Whether the process that started this one is gone: its run may be going on elsewhere by now."""
        return bool(self.job.parent) and os.getppid() != self.job.parent


class _Trip:
    """A batch, (Inputs, ...), whose ids go to the processes that hold the rows. First it is told how many go where."""

    def __init__(self, model: RankerModel, batch: tuple) -> None:
        self.batch = batch
        self.contexts = {name: getattr(model, name).create_context() for name in batch[0].ids}
        self.ids = {name: getattr(model, name).input_dist(self.contexts[name], ids) for name, ids in batch[0].ids.items()}

    def wait(self) -> _Trip:
        """Once all have been told, send the ids; once these were sent, take what came."""
        self.ids = {name: one.wait() for name, one in self.ids.items()}
        return self

    def done(self) -> tuple:
        given, *rest = self.batch
        return given._replace(ids={name: Routed(self.contexts[name], ids) for name, ids in self.ids.items()}), *rest


def routed(model: RankerModel, batches: Iterable[tuple]) -> Iterator[tuple]:
    """The batches with their ids where the rows are. All told two steps ahead, all sent one step ahead: no step waits for it."""
    told = sent = None
    for batch in itertools.chain(batches, (None, None)):
        if sent is not None:
            yield sent.wait().done()
        sent = None if told is None else told.wait()
        told = None if batch is None else _Trip(model, batch)


def _plan(model: DistributedModelParallel) -> dict[str, str]:
    return {name: where.sharding_type for name, where in model.plan.plan["embeddings"].items()}


def merge(folder: Path, out: Path, schema: FeatureSchema, config: RankerConfig) -> None:
    """Put the parts in `folder` together: weights.pt, a plain state_dict of RankerModel, optimizer.pt and ids.npz, in `out`."""
    whole = RankerModel(schema, config, torch.device("cpu")).state_dict()
    weights, state = checkpoint.merge(folder, whole)
    torch.save(weights, out / "weights.pt")
    torch.save(state, out / "optimizer.pt")
    if (folder / collisions.FILE).exists():
        shutil.copyfile(folder / collisions.FILE, out / collisions.FILE)


def spawned(rank: int, job: Job, reports) -> None:
    """Entry of a spawned process; reports: a multiprocessing queue that only rank 0 writes to."""
    run(rank, job, reports.put)
