"""One training process: process group, sharded model, the loop, and its part of the weights on disk.

Here: what every process of a run does. Not here: starting processes (train.py). Imports torch: import inside functions
only. The calling process may hold a JVM, so further processes are spawned, never forked.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.planner.types import ParameterConstraints
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward
from torchrec.optim.keyed import KeyedOptimizerWrapper
from torchrec.optim.optimizers import in_backward_optimizer_filter
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from assets.ranking import samples
from assets.ranking.config import RankerConfig, RankerError
from assets.ranking.features import Encoded, FeatureSchema
from assets.ranking.model import RankerModel, keyed, loss, set_bias

REPORT_S = 2.0


# Said at every start, about choices that are TorchRec's own or that only hold for tables of gigabytes.
logging.getLogger("torchrec").setLevel(logging.ERROR)
logging.getLogger("torch.fx").setLevel(logging.ERROR)
logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", category=FutureWarning, module=r"torchrec|torch\.distributed")

# What the planner chooses from on the CPU where the configuration says nothing. No row-wise, as TorchRec itself does; and
# no data-parallel, which it would take for the smallest tables: those would train outside of the fused optimizer.
CPU_SHARDING = ["table_wise", "column_wise"]


class _Sharder(EmbeddingBagCollectionSharder):
    """TorchRec offers row-wise sharding of pooled tables for CUDA only; on gloo it works as well (a test does it)."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        offered = super().sharding_types(compute_device_type)
        return offered if "row_wise" in offered else [*offered, "row_wise"]


@dataclass(frozen=True)
class Job:
    """What every process of a run is told. rates: share of positives by head, to start from.

    rendezvous: a file in an empty folder, through which the processes find each other. out: folder of the weights.
    """

    where: samples.Split
    schema: FeatureSchema
    config: RankerConfig
    rates: tuple[float, ...]
    rendezvous: str
    out: str


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
    """Train, and leave `shards-<rank>.pt` in job.out. The last report has phase "trained"; only rank 0 reports."""
    config = job.config
    device = device_of(config, rank)
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads or _threads(config.processes))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend, init_method=f"file://{job.rendezvous}", rank=rank, world_size=config.processes,
        timeout=dt.timedelta(minutes=5),
    )  # fmt: skip
    try:
        model = sharded(job, device)
        outcome = _train(model, job, rank, device, report if rank == 0 else lambda _: None)
        torch.save(_local_weights(model, rank), Path(job.out) / f"shards-{rank}.pt")
        dist.barrier()
        if rank == 0:
            report({"phase": "trained", **outcome, "backend": backend, "device": device.type, "sharding": _plan(model)})
    finally:
        dist.destroy_process_group()
        torch.set_num_threads(before)


def _threads(processes: int) -> int:
    """This process's share of the cores, less one where there are several: the samples' thread needs it too."""
    return max(1, len(os.sched_getaffinity(0)) // processes - 1)


def sharded(job: Job, device: torch.device) -> DistributedModelParallel:
    """The model under DistributedModelParallel: tables placed by TorchRec's planner, updated in the backward pass."""
    config = job.config
    torch.manual_seed(config.seed)
    model = RankerModel(job.schema, config, device, tables_device=torch.device("meta"))
    set_bias(model, job.rates)
    apply_optimizer_in_backward(RowWiseAdagrad, model.embeddings.parameters(), {"lr": config.lr_embedding})
    free = {} if device.type == "cuda" else {name: CPU_SHARDING for name in job.schema.tables}
    kinds = free | {name: [kind] for name, kind in config.sharding.items()}
    constraints = {name: ParameterConstraints(sharding_types=allowed) for name, allowed in kinds.items()}
    planner = EmbeddingShardingPlanner(
        topology=Topology(world_size=config.processes, compute_device=device.type),
        batch_size=samples.batch_size(job.where.train_rows, config),
        constraints=constraints or None,
    )
    plan = planner.collective_plan(model, [_Sharder()], dist.group.WORLD)
    return DistributedModelParallel(model, device=device, plan=plan, sharders=[_Sharder()])


def _train(
    model: DistributedModelParallel, job: Job, rank: int, device: torch.device, report: Callable[[dict], None]
) -> dict:
    config, where = job.config, job.where
    dense = dict(in_backward_optimizer_filter(model.named_parameters()))
    optimizer = KeyedOptimizerWrapper(dense, lambda params: torch.optim.Adam(params, lr=config.lr_dense))
    size = samples.batch_size(where.train_rows, config)
    total = samples.steps(where.train_rows, size, config.processes) * config.epochs
    started = last = time.perf_counter()
    curve, step, summed, count = [], 0, 0.0, 0
    model.train()
    for epoch in range(config.epochs):
        for batch in samples.prefetched(samples.training_batches(where, job.schema, config, epoch, rank)):
            for group in optimizer.param_groups:  # linear decay: the last steps average out the noise of the first
                group["lr"] = config.lr_dense * max(0.05, 1 - step / total)
            summed += _step(model, optimizer, batch, device)
            step, count = step + 1, count + 1
            now = time.perf_counter()
            if now - last >= REPORT_S or step == total:
                rows = min(step * size * config.processes, where.train_rows * config.epochs)
                point = {"step": step, "steps": total, "samples": rows, "loss": summed / count,
                         "samples_per_s": rows / (now - started), "elapsed_s": now - started}  # fmt: skip
                curve.append(point)
                report({"phase": "train", **point})
                last, summed, count = now, 0.0, 0
    return {"loss_curve": curve, "batch": size, "steps": total, "train_seconds": time.perf_counter() - started}


def _step(model, optimizer, batch: Encoded, device: torch.device) -> float:
    ids, dense, labels, weights = (torch.from_numpy(np.ascontiguousarray(a)).to(device) for a in batch)
    value = loss(model(keyed(ids, model.module.features), dense), labels, weights)
    if not torch.isfinite(value):
        raise RankerError("the loss is not finite; lower lr_dense or lr_embedding")
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    return value.item()


def _plan(model: DistributedModelParallel) -> dict[str, str]:
    placed = model.plan.plan.get("embeddings", {})
    return {name: where.sharding_type for name, where in placed.items()}


def _local_weights(model: DistributedModelParallel, rank: int) -> dict:
    """This process's part of the state: pieces of tables with their offsets; dense weights from rank 0 only."""
    pieces, dense = {}, {}
    for name, value in model.state_dict().items():
        if hasattr(value, "local_shards"):
            shards = value.local_shards()
            pieces[name] = [(tuple(s.metadata.shard_offsets), s.tensor.detach().cpu().clone()) for s in shards]
        elif rank == 0:
            dense[name] = value.detach().cpu().clone()
    return {"pieces": pieces, "dense": dense}


def merge(out: Path, schema: FeatureSchema, config: RankerConfig) -> None:
    """Put the processes' parts together into `weights.pt`, a plain state_dict of RankerModel; remove the parts."""
    whole = RankerModel(schema, config, torch.device("cpu")).state_dict()
    seen = {name: 0 for name in whole}
    paths = sorted(out.glob("shards-*.pt"))
    for path in paths:
        part = torch.load(path, weights_only=True)
        for name, value in part["dense"].items():
            whole[name].copy_(value)
            seen[name] += value.numel()
        for name, shards in part["pieces"].items():
            for (row, column), value in shards:
                whole[name][row : row + value.shape[0], column : column + value.shape[1]] = value
                seen[name] += value.numel()
    if wrong := [name for name, count in seen.items() if count != whole[name].numel()]:
        raise RankerError(f"the processes did not hand in all weights of {', '.join(wrong)}")
    torch.save(whole, out / "weights.pt")
    for path in paths:
        path.unlink()


def spawned(rank: int, job: Job, reports) -> None:
    """Entry of a spawned process; reports: a multiprocessing queue that only rank 0 writes to."""
    run(rank, job, reports.put)
