"""Embedding lookups a second, and the bytes that they must move, against what memory was measured to move. Imports torch and fbgemm_gpu.

FBGEMM's fused tables (what TorchRec trains on) with row-wise Adagrad in the backward pass, and one nn.EmbeddingBag a table with
torch.optim.Adagrad on sparse gradients. Bytes are those that cannot be avoided, each counted once:
- forward: per lookup its id (8) and its row read, per bag its sum written;
- backward: per bag its gradient read, per distinct row the row and its state read and written. Sorting of ids is not counted.
A row that is met again may come from a cache: a rate above the memory's is possible with skewed ids. Uniform ids show memory itself.

Here: lookups alone. Not here: a network (criteo.py).
"""

from __future__ import annotations

import numpy as np
import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation, PoolingMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import ComputeDevice, SplitTableBatchedEmbeddingBagsCodegen

from benchmarks.gpu import criteo, timing

INPUTS = 4  # sets of ids that rounds rotate among
STATE = 4  # bytes of row-wise Adagrad a row


def measure(rows: list[int], dim: int, batch: int, device: torch.device, rounds: int, lengths: tuple[int, ...] = (1, 10)) -> list[dict]:
    """A row a kind of ids and length of bags: lookups_per_s, bytes_per_s, forward and with the backward pass; plain: nn.EmbeddingBag."""
    fused = _fused(rows, dim, device)
    found = []
    for length in lengths:
        for kind, alpha in (("power-law", criteo.SKEW), ("uniform", 1)):
            sets = [_ids(rows, batch, length, alpha, device, seed) for seed in range(INPUTS)]
            found.append({"tables": "FBGEMM", "ids": kind, "bag": length, **_timed(fused, sets, dim, device, rounds)})
    del fused
    plain = _Plain(rows, dim, device)
    for length in lengths:
        for kind, alpha in (("power-law", criteo.SKEW), ("uniform", 1)):
            sets = [_ids(rows, batch, length, alpha, device, seed) for seed in range(INPUTS)]
            found.append({"tables": "nn.EmbeddingBag", "ids": kind, "bag": length, **_timed(plain, sets, dim, device, max(3, rounds // 4))})
    return found


def _fused(rows: list[int], dim: int, device: torch.device) -> SplitTableBatchedEmbeddingBagsCodegen:
    gpu = device.type == "cuda"
    where = (EmbeddingLocation.DEVICE, ComputeDevice.CUDA) if gpu else (EmbeddingLocation.HOST, ComputeDevice.CPU)
    tables = SplitTableBatchedEmbeddingBagsCodegen(
        [(n, dim, *where) for n in rows], optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD, learning_rate=0.01, eps=1e-8,
        pooling_mode=PoolingMode.SUM, device=device,
    )  # fmt: skip
    for weights in tables.split_embedding_weights():
        criteo.fill(weights)
    return tables


class _Plain:
    """One nn.EmbeddingBag a table: as the fused tables, called with ids of all tables one after the other."""

    def __init__(self, rows: list[int], dim: int, device: torch.device) -> None:
        made = [torch.nn.EmbeddingBag(n, dim, mode="sum", sparse=True, device=device, _weight=_filled(n, dim, device)) for n in rows]
        self.tables = torch.nn.ModuleList(made)
        self.optimizer = torch.optim.Adagrad(self.tables.parameters(), lr=0.01)

    def __call__(self, ids: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        count = len(self.tables)
        bags = (len(offsets) - 1) // count
        own = offsets[: bags + 1]  # bags are of one length: those of the first table are those of all
        return torch.cat([table(part, own[:-1]) for table, part in zip(self.tables, ids.view(count, -1))], dim=1)

    def step(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()


def _filled(rows: int, dim: int, device: torch.device) -> torch.Tensor:
    return criteo.fill(torch.empty(rows, dim, device=device))


def _ids(rows: list[int], batch: int, length: int, alpha: float, device: torch.device, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    drawn = criteo.ids(np.random.default_rng(seed), rows, batch * length, alpha)
    offsets = torch.arange(0, drawn.size + 1, length, device=device)
    return torch.from_numpy(drawn.reshape(-1)).to(device).long(), offsets


def _timed(tables, sets: list[tuple[torch.Tensor, torch.Tensor]], dim: int, device: torch.device, rounds: int) -> dict:
    lookups, bags = len(sets[0][0]), len(sets[0][1]) - 1
    gradient = None

    def forward(i: int) -> torch.Tensor:
        with torch.no_grad():
            return tables(*sets[i % len(sets)])

    def both(i: int) -> None:
        tables(*sets[i % len(sets)]).backward(gradient)
        if isinstance(tables, _Plain):
            tables.step()

    gradient = torch.randn_like(forward(0)) * 1e-3
    there = timing.median_seconds(forward, device, rounds)
    back = timing.median_seconds(both, device, rounds)
    per_row = dim * 4
    bytes_forward = lookups * (8 + per_row) + bags * per_row
    distinct = _distinct(sets)
    bytes_both = bytes_forward + bags * per_row + distinct * 2 * (per_row + STATE)
    return {
        "lookups": lookups, "distinct_rows": distinct, "forward_s": there, "forward_lookups_per_s": lookups / there,
        "forward_bytes_per_s": bytes_forward / there, "both_s": back, "both_lookups_per_s": lookups / back, "both_bytes_per_s": bytes_both / back,
    }  # fmt: skip


def _distinct(sets: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Rows that a call touches, in the mean. Ids of each table begin at 0: the table is their upper half."""
    count = []
    for ids, _ in sets:
        per_table = ids.view(len(criteo.CARDINALITIES), -1)
        table = torch.arange(len(per_table), device=ids.device)[:, None] << 32
        count.append(len(torch.unique(per_table + table)))
    return float(np.mean(count))
