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
    """Stands for `forward` of one FBGEMM module on the CPU: tables of float32 under row-wise Adagrad, sums of bags or single rows.

    forward(ids int64 [n], offsets int64 [features x bags + 1]) -> [bags, sum of dims], or [n, dim] where rows are not pooled.
    """

    def __init__(self, of: SplitTableBatchedEmbeddingBagsCodegen) -> None:
        self.of = of
        self.pooled = of.pooling_mode == PoolingMode.SUM
        self.columns = of.D_offsets.numpy().astype(np.int64)
        self.weight_at, self.state_at = of.weights_offsets.numpy(), of.momentum1_offsets.numpy()
        self.slots = np.zeros(len(of.momentum1_host), np.int32)
        nothing = np.empty(0, np.int64), np.zeros(len(self.weight_at) + 1, np.int64)
        self.update(*nothing, np.empty_like(self.look(*nothing)))  # compiles here, not in the first step

    def __call__(self, indices: torch.Tensor, offsets: torch.Tensor, *others, **named) -> torch.Tensor:
        if any(one is not None for one in (*others, *named.values())):
            raise NotImplementedError("weighted bags and batches of several sizes")
        return _Looked.apply(self.of.weights_host, self, indices, offsets)

    def look(self, ids: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        bags = (len(offsets) - 1) // len(self.weight_at)
        shape = (bags, self.columns[-1]) if self.pooled else (len(ids), self.columns[1])
        out = np.zeros(shape, np.float32)
        _look(self.of.weights_host.detach().numpy(), self.weight_at, self.columns, ids, offsets, bags, self.pooled, out)
        return out

    def update(self, ids: np.ndarray, offsets: np.ndarray, gradient: np.ndarray) -> None:
        weights, states = self.of.weights_host.detach().numpy(), self.of.momentum1_host.detach().numpy()
        _update(
            weights, states, self.weight_at, self.state_at, self.columns, ids, offsets, (len(offsets) - 1) // len(self.weight_at),
            self.pooled, gradient, self.slots, np.float32(self.of.get_learning_rate()), np.float32(self.of.optimizer_args.eps),
        )  # fmt: skip


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
        and module.pooling_mode in (PoolingMode.SUM, PoolingMode.NONE) and not module.optimizer_args.weight_decay
    )  # fmt: skip


@numba.njit(nogil=True, cache=True)
def _look(weights, weight_at, columns, ids, offsets, bags, pooled, out):
    for t in range(len(weight_at)):
        first, dim = columns[t], columns[t + 1] - columns[t]
        for bag in range(bags):
            for i in range(offsets[t * bags + bag], offsets[t * bags + bag + 1]):
                at = weight_at[t] + ids[i] * dim
                if pooled:
                    for d in range(dim):
                        out[bag, first + d] += weights[at + d]
                else:
                    for d in range(dim):
                        out[i, d] = weights[at + d]


@numba.njit(nogil=True, cache=True)
def _update(weights, states, weight_at, state_at, columns, ids, offsets, bags, pooled, gradient, slots, rate, eps):
    """A row's gradients are summed first: row-wise Adagrad (as FBGEMM's EXACT_ROWWISE_ADAGRAD) takes the square of the sum.

    slots: int32, 0 for each row of all tables; a row that was met has 1 + its place among the distinct rows meanwhile.
    """
    widest = 0
    for t in range(len(weight_at)):
        widest = max(widest, columns[t + 1] - columns[t])
    summed = np.zeros((len(ids), widest), np.float32)
    at_weight, at_state, dims = np.empty(len(ids), np.int64), np.empty(len(ids), np.int64), np.empty(len(ids), np.int64)
    count = 0
    for t in range(len(weight_at)):
        first, dim = columns[t], columns[t + 1] - columns[t]
        for bag in range(bags):
            for i in range(offsets[t * bags + bag], offsets[t * bags + bag + 1]):
                row = state_at[t] + ids[i]
                if slots[row] == 0:
                    at_weight[count], at_state[count], dims[count] = weight_at[t] + ids[i] * dim, row, dim
                    count += 1
                    slots[row] = count
                k = slots[row] - 1
                if pooled:
                    for d in range(dim):
                        summed[k, d] += gradient[bag, first + d]
                else:
                    for d in range(dim):
                        summed[k, d] += gradient[i, d]
    for k in range(count):
        square = np.float32(0)
        for d in range(dims[k]):
            square += summed[k, d] * summed[k, d]
        states[at_state[k]] += square / dims[k]
        step = rate / (np.sqrt(states[at_state[k]]) + eps)
        for d in range(dims[k]):
            weights[at_weight[k] + d] -= step * summed[k, d]
        slots[at_state[k]] = 0
