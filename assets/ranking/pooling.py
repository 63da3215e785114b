"""What the model does with the rows it was given, row by row, as loops on the CPU: reading them, and attention over readers' lists.

Here: reading rows and entries, weighing and adding entries up, and the derivatives. Not here: the layers and what they mean (model.py),
tables and their rows (rows.py), GPUs (model.py's own operators). Imports torch: import inside functions only.

A list has few entries and the unit that weighs them is small: torch's operators, each over all entries of a batch, move more memory
than they compute. Only the products with the unit's matrices stay torch's.
"""

from __future__ import annotations

import numba
import numpy as np
import torch

FAST = {"contract", "reassoc"}  # lets sums use the vector unit; the same order every time


class Read(torch.autograd.Function):
    """The rows at places: float32 [all, dim], int64 [n, features] -> [n, features, dim]."""

    @staticmethod
    def forward(ctx, rows, places):
        ctx.places, ctx.rows = places, len(rows)
        return rows.index_select(0, places.flatten()).view(*places.shape, -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        d_rows = np.zeros((ctx.rows, gradient.shape[-1]), np.float32)
        _add(_array(gradient.flatten(0, -2)), _array(ctx.places.flatten()), d_rows)
        return torch.from_numpy(d_rows), None


class Pooled(torch.autograd.Function):
    """sum over a sample's entries e of w(e) x(e), float32 [n, width]; w = sigmoid(weigh . relu(unit) + bias) (DIN, Zhou et al. 2018).

    unit = hidden + x of_entry^T + (candidate * x) of_both^T + recency, x(e) the rows at entries[e], one after the other.

    candidate [n, width], hidden [n, units] (what the unit makes of the candidate, its bias included), rows [all, dim], entries int64
    [m, fields], width = fields x dim, lengths int64 [n] (their sum is m), of_entry and of_both [units, width], recency [slots, units],
    weigh [1, units], bias [1]. Entries of a sample follow each other; the i-th has recency[i].
    """

    @staticmethod
    def forward(ctx, candidate, hidden, rows, entries, lengths, of_entry, of_both, recency, weigh, bias):
        layers = torch.cat([of_entry, of_both], dim=1).detach()
        arrays = [_array(one) for one in (candidate, hidden, rows, entries, lengths, recency, weigh[0], bias)]
        candidate, hidden, rows, entries, lengths, recency, weigh, bias = arrays
        both = np.empty((len(entries), layers.shape[1]), np.float32)
        _read(candidate, rows, entries, lengths, both)
        active = (torch.from_numpy(both) @ layers.T).numpy()
        weights = np.empty(len(entries), np.float32)
        summed = np.zeros(candidate.shape, np.float32)
        _pool(hidden, lengths, recency, weigh, bias, both, active, weights, summed)
        ctx.kept = candidate, rows, entries, lengths, recency, weigh, layers, both, active, weights
        return torch.from_numpy(summed)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        candidate, rows, entries, lengths, recency, weigh, layers, both, active, weights = ctx.kept
        gradient = _array(gradient)
        d_unit = np.empty_like(active)
        d_hidden = np.zeros((len(lengths), active.shape[1]), np.float32)
        d_recency, d_weigh, d_bias = np.zeros_like(recency), np.zeros_like(weigh), np.zeros(1, np.float32)
        _unpool(gradient, lengths, weigh, both, active, weights, d_unit, d_hidden, d_recency, d_weigh, d_bias)
        of_unit = torch.from_numpy(d_unit)
        d_layers, d_both = of_unit.T @ torch.from_numpy(both), (of_unit @ layers).numpy()
        d_candidate, d_rows = np.zeros_like(candidate), np.zeros_like(rows)
        _unread(gradient, candidate, entries, lengths, both, weights, d_both, d_candidate, d_rows)
        width = candidate.shape[1]
        found = (torch.from_numpy(one) for one in (d_candidate, d_hidden, d_rows))
        last = (torch.from_numpy(one) for one in (d_recency, d_weigh[None], d_bias))
        return *found, None, None, d_layers[:, :width], d_layers[:, width:], *last


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


@numba.njit(nogil=True, cache=True)
def _add(gradient, places, d_rows):
    for i in range(len(places)):
        for d in range(d_rows.shape[1]):
            d_rows[places[i], d] += gradient[i, d]


@numba.njit(nogil=True, cache=True)
def _read(candidate, rows, entries, lengths, both):
    """both: [m, 2 width], an entry and its product with the candidate; written."""
    dim, width = rows.shape[1], candidate.shape[1]
    e = 0
    for n in range(len(lengths)):
        for _ in range(lengths[n]):
            for f in range(entries.shape[1]):
                row = entries[e, f]
                for d in range(dim):
                    both[e, f * dim + d] = rows[row, d]
            for j in range(width):
                both[e, width + j] = both[e, j] * candidate[n, j]
            e += 1


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def _pool(hidden, lengths, recency, weigh, bias, both, active, weights, summed):
    """active: [m, units], first what the matrices made of the entries, then relu of the whole unit. weights: [m], written."""
    units, width = active.shape[1], summed.shape[1]
    e = 0
    for n in range(len(lengths)):
        for slot in range(lengths[n]):
            logit = bias[0]
            for k in range(units):
                active[e, k] = max(active[e, k] + hidden[n, k] + recency[slot, k], np.float32(0))
                logit += active[e, k] * weigh[k]
            weight = np.float32(1) / (np.float32(1) + np.exp(-logit))
            for j in range(width):
                summed[n, j] += weight * both[e, j]
            weights[e] = weight
            e += 1


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def _unpool(gradient, lengths, weigh, both, active, weights, d_unit, d_hidden, d_recency, d_weigh, d_bias):
    """Derivatives by the unit before its relu, [m, units], written, and by what was added to it, added."""
    units, width = active.shape[1], gradient.shape[1]
    e = 0
    for n in range(len(lengths)):
        for slot in range(lengths[n]):
            of_weight = np.float32(0)
            for j in range(width):
                of_weight += gradient[n, j] * both[e, j]
            of_logit = of_weight * weights[e] * (np.float32(1) - weights[e])
            d_bias[0] += of_logit
            for k in range(units):
                d_weigh[k] += of_logit * active[e, k]
                d_unit[e, k] = of_logit * weigh[k] * np.float32(active[e, k] > 0)
            for k in range(units):
                d_hidden[n, k] += d_unit[e, k]
                d_recency[slot, k] += d_unit[e, k]
            e += 1


@numba.njit(nogil=True, cache=True)
def _unread(gradient, candidate, entries, lengths, both, weights, d_both, d_candidate, d_rows):
    """Derivatives by the candidates and by the rows, added. d_both: by both, as the matrices hand it back."""
    dim, width = d_rows.shape[1], candidate.shape[1]
    e = 0
    for n in range(len(lengths)):
        for _ in range(lengths[n]):
            for j in range(width):
                d_candidate[n, j] += d_both[e, width + j] * both[e, j]
                d_both[e, j] += d_both[e, width + j] * candidate[n, j] + weights[e] * gradient[n, j]
            for f in range(entries.shape[1]):
                row = entries[e, f]
                for d in range(dim):
                    d_rows[row, d] += d_both[e, f * dim + d]
            e += 1
