"""Rows of embedding tables on the CPU: looked up, and updated by row-wise Adagrad in the backward pass.

Here: two loops over FBGEMM's own memory, in place of its CPU kernels. Not here: where tables lie and how ids get there (TorchRec),
optimizers of the dense part, GPUs (FBGEMM's kernels are right there). Imports torch: import inside functions only.

FBGEMM 1.8 takes 0.5 to 2 microseconds a distinct row for the backward pass on a CPU, more the more rows there are; these loops take
0.1 (docs/ranker.md). Everything else of FBGEMM's modules is as it was: weights, row states, state_dict.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import PoolingMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import SplitTableBatchedEmbeddingBagsCodegen
from torch import nn


class Rows:
    """Stands for `forward` of one FBGEMM module on the CPU that does not pool: tables of float32, of one width, under row-wise Adagrad.

    forward(ids int64 [n], offsets int64 [features x bags + 1]) -> float32 [n, dim].
    """

    def __init__(self, of: SplitTableBatchedEmbeddingBagsCodegen) -> None:
        self.of = of
        self.dim = int(of.D_offsets[1])
        self.first = of.momentum1_offsets.numpy()  # by feature: row 0 of its table, counted over all tables
        self.slots = np.zeros(len(of.momentum1_host), np.int32)
        nothing = np.empty(0, np.int64), np.zeros(len(self.first) + 1, np.int64)
        self.update(*nothing, self.look(*nothing))  # compiles here, not in the first step

    def __call__(self, indices: torch.Tensor, offsets: torch.Tensor, *others, **named) -> torch.Tensor:
        if any(one is not None for one in (*others, *named.values())):
            raise NotImplementedError("weighted bags and batches of several sizes")
        return _Looked.apply(self.of.weights_host, self, indices, offsets)

    def look(self, ids: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        out = np.empty((len(ids), self.dim), np.float32)
        _look(self._weights(), self.first, ids, self._ends(offsets), out)
        return out

    def update(self, ids: np.ndarray, offsets: np.ndarray, gradient: np.ndarray) -> None:
        states = self.of.momentum1_host.detach().numpy()
        rate, eps = np.float32(self.of.get_learning_rate()), np.float32(self.of.optimizer_args.eps)
        _update(self._weights(), states, self.first, ids, self._ends(offsets), gradient, self.slots, rate, eps)

    def _weights(self) -> np.ndarray:
        return self.of.weights_host.detach().numpy().reshape(-1, self.dim)

    def _ends(self, offsets: np.ndarray) -> np.ndarray:
        """By feature: where its ids end."""
        bags = (len(offsets) - 1) // len(self.first)
        return offsets[bags::bags]


class _Looked(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weights: torch.Tensor, rows: Rows, ids: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        ctx.rows, ctx.ids, ctx.offsets = rows, ids.numpy(), offsets.numpy()
        return torch.from_numpy(rows.look(ctx.ids, ctx.offsets))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: torch.Tensor):
        ctx.rows.update(ctx.ids, ctx.offsets, gradient.contiguous().numpy())
        return None, None, None, None


def install(sharded: nn.Module) -> None:
    """Let the lookups of one of TorchRec's sharded modules read and update rows by these loops, where they are on the CPU."""
    for lookup in sharded._lookups:
        for module in lookup.modules():
            if isinstance(module, SplitTableBatchedEmbeddingBagsCodegen) and _fits(module):
                module.forward = Rows(module)


def _fits(module: SplitTableBatchedEmbeddingBagsCodegen) -> bool:
    return (
        module.use_cpu and module.optimizer == EmbOptimType.EXACT_ROWWISE_ADAGRAD and module.weights_host.dtype == torch.float32
        and module.pooling_mode == PoolingMode.NONE and not module.optimizer_args.weight_decay
        and bool((module.weights_offsets == module.momentum1_offsets * module.D_offsets[1]).all())  # one width, no gaps
    )  # fmt: skip


@numba.njit(nogil=True, cache=True)
def _look(weights, first, ids, ends, out):
    start = 0
    for t in range(len(first)):
        for i in range(start, ends[t]):
            row = first[t] + ids[i]
            for d in range(out.shape[1]):
                out[i, d] = weights[row, d]
        start = ends[t]


@numba.njit(nogil=True, cache=True)
def _update(weights, states, first, ids, ends, gradient, slots, rate, eps):
    """A row's gradients are summed first: row-wise Adagrad (as FBGEMM's EXACT_ROWWISE_ADAGRAD) takes the square of the sum.

    slots: int32, 0 for each row of all tables; a row that was met has 1 + its place among the distinct rows meanwhile.
    """
    dim = gradient.shape[1]
    rows = np.empty(len(ids), np.int64)
    start = 0
    for t in range(len(first)):
        for i in range(start, ends[t]):
            rows[i] = first[t] + ids[i]
        start = ends[t]
    # Rows lie far apart. Loads that wait for nothing fetch them many at a time; the loops below would fetch one after the other.
    touched = np.float32(0)
    for i in range(len(rows)):
        touched += weights[rows[i], 0] + states[rows[i]] + slots[rows[i]]
    summed = np.zeros((len(ids), dim), np.float32)
    count = 0
    for i in range(len(rows)):
        row = rows[i]
        if slots[row] == 0:
            rows[count] = row
            count += 1
            slots[row] = count
        for d in range(dim):
            summed[slots[row] - 1, d] += gradient[i, d]
    for k in range(count):
        square = np.float32(0)
        for d in range(dim):
            square += summed[k, d] * summed[k, d]
        states[rows[k]] += square / dim
        step = rate / (np.sqrt(states[rows[k]]) + eps)
        for d in range(dim):
            weights[rows[k], d] -= step * summed[k, d]
        slots[rows[k]] = 0
    return touched  # else the compiler would leave those loads out
