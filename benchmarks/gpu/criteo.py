"""A synthetic set like Criteo's terabyte of clicks, and DLRM on it (Naumov et al. 2019). Imports torch.

26 categorical features, whose tables keep the proportions of Criteo's; ids by a power law; 13 dense features; a click is drawn from a logit
that single ids, pairs of ids and the dense features add up to. Everything is a function of the seed.

The network is the same for all: TorchRec's EmbeddingBagCollection under DistributedModelParallel (row-wise Adagrad in the backward pass), or one
nn.EmbeddingBag a table with torch.optim.Adagrad on sparse gradients; Adam for the dense part. First weights are equal on every device.

Here: the set, the network, a training run of it. Not here: lookups alone (lookups.py).
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from assets.ranking import samples
from benchmarks.gpu import timing

# Rows of the tables of Criteo's terabyte, at most 40 million each, as MLPerf trains on them.
CARDINALITIES = (39884406, 39043, 17289, 7420, 20263, 3, 7120, 1543, 63, 38532951, 2953546, 403346, 10, 2208, 11938, 155, 4, 976, 14, 39979771,
                 25641295, 39664984, 585935, 12972, 108, 36)  # fmt: skip
DENSE = 13
SKEW = 4  # an id's rank is rows * u ** SKEW: one in a hundred of the rows gets a third of the lookups
PRIME = 2_654_435_761  # ranks to rows, so that popular ones do not lie side by side
BLOCK = 65_536  # rows of first weights, repeated
SEED = 7
CHUNK = 20  # steps between two looks at the clock
WARM = 20  # steps before the first


@dataclass(frozen=True)
class Set:
    """ids: int32 [26, samples]; dense: float32 [samples, 13]; labels: float32 [samples]; best_auc: of the logit that drew the labels."""

    rows: list[int]
    ids: torch.Tensor
    dense: torch.Tensor
    labels: torch.Tensor
    best_auc: float

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Set:
        return Set(self.rows, self.ids.to(device), self.dense.to(device), self.labels.to(device), self.best_auc)


def table_rows(total: int) -> list[int]:
    """Rows of each table, `total` in all, in Criteo's proportions but never fewer than 3."""
    share = total / sum(CARDINALITIES)
    return [max(3, int(n * share)) if n > 100_000 else min(n, max(3, total // 100)) for n in CARDINALITIES]


def ids(rng: np.random.Generator, rows: list[int], count: int, alpha: float = SKEW) -> np.ndarray:
    """int32 [tables, count]: ids by a power law, alpha=1 for uniform ones."""
    found = np.empty((len(rows), count), np.int32)
    for out, n in zip(found, rows):
        rank = (n * rng.random(count, np.float32).astype(np.float64) ** alpha).astype(np.int64)
        out[:] = np.minimum(rank, n - 1) * PRIME % n
    return found


def make(rows: list[int], count: int, seed: int = SEED) -> Set:
    rng = np.random.default_rng(seed)
    drawn = ids(rng, rows, count)
    dense = rng.standard_normal((count, DENSE), np.float32)
    logit = dense @ rng.normal(0, 0.2, DENSE).astype(np.float32) - 1.2
    for column, of in enumerate(drawn):
        logit += 0.35 * _effect(of.astype(np.uint64), column)
    for one, other in itertools.pairwise((5, 8, 12, 16, 18, 24)):  # small tables: their pairs come often enough to be learned
        logit += 0.35 * _effect(drawn[one].astype(np.uint64) * np.uint64(1 << 20) + drawn[other].astype(np.uint64), 100 + one)
    labels = (rng.random(count) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    return Set(rows, torch.from_numpy(drawn), torch.from_numpy(dense), torch.from_numpy(labels), auc(labels, logit))


def _effect(keys: np.ndarray, column: int) -> np.ndarray:
    """float32, about normal: what an id of this column adds; the same id adds the same."""
    mixed = (keys + np.uint64(column * 0x9E3779B97F4A7C15 % 2**64)) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0x94D049BB133111EB)
    parts = [((mixed >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.float32) / 65535 - 0.5 for shift in (16, 32, 48)]
    return 2 * sum(parts)


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores))


def fill(weights: torch.Tensor) -> torch.Tensor:
    """First weights of a table, in place: uniform in +-0.05, the same on every device."""
    drawn = torch.empty(BLOCK, weights.shape[1]).uniform_(-0.05, 0.05, generator=torch.Generator().manual_seed(SEED)).to(weights.device)
    with torch.no_grad():
        for part in weights.split(BLOCK):
            part.copy_(drawn[: len(part)])
    return weights


# --- the network ------------------------------------------------------------------------------------------------------


class Dlrm(nn.Module):
    """forward(ids KeyedJaggedTensor or int64 [26, n], dense [n, 13]) -> logits [n]."""

    def __init__(self, tables: nn.Module, dim: int, device: torch.device) -> None:
        super().__init__()
        self.tables, self.dim = tables, dim
        vectors = len(CARDINALITIES) + 1
        first, second = torch.triu_indices(vectors, vectors, offset=1)
        self.register_buffer("pairs", (first * vectors + second).to(device), persistent=False)
        generator = torch.Generator().manual_seed(SEED)
        self.bottom = _layers((DENSE, 512, 256, dim), device, generator)
        self.top = _layers((dim + len(first), 512, 256), device, generator)
        self.last = _linear(256, 1, device, generator)

    def forward(self, ids, dense: torch.Tensor) -> torch.Tensor:
        looked = self.tables(ids)
        looked = looked if isinstance(looked, torch.Tensor) else looked.values()
        own = self.bottom(dense)
        stacked = torch.cat([own, looked.to(own.dtype)], dim=1).view(len(dense), -1, self.dim)
        products = torch.bmm(stacked, stacked.transpose(1, 2)).flatten(1).index_select(1, self.pairs)
        return self.last(self.top(torch.cat([own, products], dim=1))).squeeze(1)


class Plain(nn.Module):
    """One nn.EmbeddingBag a table. forward(int64 [26, n]) -> [n, 26 * dim]."""

    def __init__(self, rows: list[int], dim: int, device: torch.device) -> None:
        super().__init__()
        made = (fill(torch.empty(n, dim, device=device)) for n in rows)
        self.tables = nn.ModuleList(nn.EmbeddingBag(*w.shape, mode="sum", sparse=True, _weight=w) for w in made)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.cat([table(of.view(-1, 1)) for table, of in zip(self.tables, ids)], dim=1)


def _linear(a: int, b: int, device: torch.device, generator: torch.Generator) -> nn.Linear:
    made = nn.Linear(a, b)
    with torch.no_grad():
        for one in made.parameters():
            one.uniform_(-(a**-0.5), a**-0.5, generator=generator)
    return made.to(device)


def _layers(widths: tuple[int, ...], device: torch.device, generator: torch.Generator) -> nn.Sequential:
    made: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        made += [_linear(a, b, device, generator), nn.ReLU()]
    return nn.Sequential(*made)


def _names() -> list[str]:
    return [f"c{i}" for i in range(len(CARDINALITIES))]


def _sharded(rows: list[int], dim: int, batch: int, device: torch.device) -> nn.Module:
    """Dlrm on TorchRec's tables, placed by its planner, in one process; the process group is up."""
    import torch.distributed as dist
    from torchrec import EmbeddingBagCollection, EmbeddingBagConfig
    from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
    from torchrec.distributed.model_parallel import DistributedModelParallel
    from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
    from torchrec.distributed.planner.types import ParameterConstraints
    from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward
    from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

    configs = [EmbeddingBagConfig(name=f"t_{c}", feature_names=[c], num_embeddings=n, embedding_dim=dim, init_fn=fill)
               for c, n in zip(_names(), rows)]  # fmt: skip
    tables = EmbeddingBagCollection(tables=configs, device=torch.device("meta"))
    apply_optimizer_in_backward(RowWiseAdagrad, tables.parameters(), {"lr": LR_TABLES})
    model = Dlrm(tables, dim, device)
    memory = 2**40  # the planner's own guess is 32 GB a card; that all fits is known beforehand
    planner = EmbeddingShardingPlanner(
        topology=Topology(world_size=1, compute_device=device.type, hbm_cap=memory, ddr_cap=memory), batch_size=batch,
        constraints={f"t_{c}": ParameterConstraints(sharding_types=["table_wise"], compute_kernels=["fused"]) for c in _names()},
    )  # fmt: skip
    sharders = [EmbeddingBagCollectionSharder()]
    plan = planner.collective_plan(model, sharders, dist.group.WORLD)
    return DistributedModelParallel(model, device=device, plan=plan, sharders=sharders, init_data_parallel=False)


LR_TABLES, LR_DENSE = 0.02, 1e-3


class Run:
    """A model in training. kind: "torchrec" or "plain". bf16: the dense part computes in bfloat16, weights and tables stay float32."""

    def __init__(self, kind: str, rows: list[int], dim: int, batch: int, device: torch.device, bf16: bool = False) -> None:
        self.kind, self.batch, self.device, self.bf16 = kind, batch, device, bf16
        self.folder = tempfile.TemporaryDirectory()
        if kind == "torchrec":
            import torch.distributed as dist
            from torchrec.optim.optimizers import in_backward_optimizer_filter

            if not dist.is_initialized():
                backend = "nccl" if device.type == "cuda" else "gloo"
                dist.init_process_group(backend, init_method=f"file://{Path(self.folder.name) / 'meet'}", rank=0, world_size=1)
            self.model = _sharded(rows, dim, batch, device)
            dense = list(dict(in_backward_optimizer_filter(self.model.named_parameters())).values())
            self.optimizers = [torch.optim.Adam(dense, lr=LR_DENSE, fused=True)]
            self.lengths = torch.ones(len(rows) * batch, dtype=torch.int64, device=device)
            self.offsets = torch.arange(len(rows) * batch + 1, device=device)
        else:
            self.model = Dlrm(Plain(rows, dim, device), dim, device)
            own = {id(p) for p in self.model.tables.parameters()}
            dense = [p for p in self.model.parameters() if id(p) not in own]
            tables = torch.optim.Adagrad(self.model.tables.parameters(), lr=LR_TABLES)
            self.optimizers = [tables, torch.optim.Adam(dense, lr=LR_DENSE, fused=True)]

    def score(self, ids: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
        given = ids.to(torch.int64)
        if self.kind == "torchrec":
            from torchrec import KeyedJaggedTensor

            given = KeyedJaggedTensor(keys=_names(), values=given.reshape(-1), lengths=self.lengths, offsets=self.offsets, stride=self.batch)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self.model(given, dense).float()

    def step(self, ids: torch.Tensor, dense: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        value = F.binary_cross_entropy_with_logits(self.score(ids, dense), labels)
        for one in self.optimizers:
            one.zero_grad()
        value.backward()
        for one in self.optimizers:
            one.step()
        return value.detach()

    def batches(self, data: Set, begin: int, end: int, ahead: bool) -> Iterator[tuple[torch.Tensor, ...]]:
        """Whole batches of samples [begin, end) on the device; ahead: cut, pinned and sent by a thread of their own."""
        made = (self._sent(data, at) for at in range(begin, end - self.batch + 1, self.batch))
        return samples.prefetched(made) if ahead else made

    def _sent(self, data: Set, at: int) -> tuple[torch.Tensor, ...]:
        cut = [data.ids[:, at : at + self.batch], data.dense[at : at + self.batch], data.labels[at : at + self.batch]]
        if self.device.type == "cpu" or data.ids.device.type != "cpu":
            return tuple(cut)
        return tuple(one.contiguous().pin_memory().to(self.device, non_blocking=True) for one in cut)

    def held_out_auc(self, data: Set, begin: int) -> float:
        self.model.eval()
        with torch.no_grad():
            scores = [self.score(ids, dense).cpu() for ids, dense, _ in self.batches(data, begin, len(data), ahead=False)]
        self.model.train()
        n = len(scores) * self.batch
        return auc(data.labels[begin : begin + n].cpu().numpy(), torch.cat(scores).numpy())

    def close(self) -> None:
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()
        self.folder.cleanup()


def speed(run: Run, data: Set, seconds: float, ahead: bool = True) -> dict:
    """Samples a second, in the median of stretches of CHUNK steps, over at most `seconds`; the set is read again where it ends."""
    again = itertools.chain.from_iterable(run.batches(data, 0, len(data), ahead) for _ in itertools.count())
    warm = WARM if run.device.type == "cuda" else 2
    for batch in itertools.islice(again, warm):
        run.step(*batch)
    timing.synchronize(run.device)
    rates, begun = [], time.perf_counter()
    chunk = CHUNK if run.device.type == "cuda" else 2
    while time.perf_counter() - begun < seconds:
        started = time.perf_counter()
        for batch in itertools.islice(again, chunk):
            run.step(*batch)
        timing.synchronize(run.device)
        rates.append(chunk * run.batch / (time.perf_counter() - started))
    return {"samples_per_s": statistics.median(rates), "stretches": len(rates), "lowest": min(rates), "highest": max(rates)}


def fit(run: Run, data: Set, held_out: int) -> dict:
    """One epoch over all but the last `held_out` samples, then AUC on those."""
    end = len(data) - held_out
    started, value = time.perf_counter(), None
    for batch in run.batches(data, 0, end, ahead=True):
        value = run.step(*batch)
    timing.synchronize(run.device)
    seconds = time.perf_counter() - started
    steps = end // run.batch
    return {"auc": run.held_out_auc(data, end), "last_loss": float(value), "samples_per_s": steps * run.batch / seconds, "steps": steps}
