"""The network: sharded embeddings, attention over lists, dot products, what the heads share, ten outputs.

Here: layers and the loss. Not here: features (features.py), the training loop (worker.py). Imports torch: import inside
functions only.

Each feature is one embedding of `dim` floats; the dense inputs become one more vector of that width, and so does each
list of what the reader did last. All pairs of these vectors meet in a dot product (as in DLRM, Naumov et al. 2019): user
x topic is taste, note x hour is daily rhythm. What the heads share reads embeddings, products and dense inputs; it is a
shared bottom, a mixture of experts (MMoE, PLE) or Wide & Deep's two halves, by configuration. Each head has a small
tower of its own.

Position is a bias of its own, added to the logits as its difference to the first slot: what is left without it, as serving
does, is the probability as if the note were shown first.

click is p(click | display); the other eight are p(behaviour | click), and dwell is log1p of the seconds read given a
click. With space "click" their loss is masked to engaged displays, as the samples' labels are defined; with "entire" the
product p(click) p(behaviour | click) is learned on all displays (ESMM, Ma et al. 2018).
"""

from __future__ import annotations

import itertools
import logging
import warnings
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn
from torchrec import EmbeddingCollection, EmbeddingConfig, KeyedJaggedTensor

from assets.ranking.config import BIASES, HEADS, OUTPUTS, SEQUENCE_LENGTH, SEQUENCES, RankerConfig
from assets.ranking.features import Encoded, FeatureSchema, unpadded
from assets.ranking.pooling import Pooled, Read

# Said at every start, about choices that are TorchRec's own or that only hold for tables of gigabytes.
logging.getLogger("torchrec").setLevel(logging.ERROR)
logging.getLogger("torch.fx").setLevel(logging.ERROR)
logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", category=FutureWarning, module=r"torchrec|torch\.distributed")

ATTENTION = 16  # width of the unit that weighs an entry of a list
SURE = 1e-6  # a probability is kept this far from 1 where its complement's logarithm is taken


class Routed(NamedTuple):
    """Ids of one of the model's modules that are already where their rows are (worker.py sends them ahead of their step)."""

    context: object
    ids: object


class Inputs(NamedTuple):
    """What forward reads of n samples.

    ids: by the module that looks them up ("embeddings", "wide"), of each table the ids that occur, once, as one bag. places: where a
    sample's ids stand among those of all tables, int64 [n, features]. entries: the same of each list, int64 [entries, fields], the
    lists of all samples one after the other. dense: [n, schema.width]. lengths: int64 [n, lists], entries. position: int64 [n]
    rows, None to leave the bias out.
    """

    ids: dict[str, KeyedJaggedTensor | Routed]
    places: torch.Tensor
    entries: tuple[torch.Tensor, ...]
    dense: torch.Tensor
    lengths: torch.Tensor
    position: torch.Tensor | None


class RankerModel(nn.Module):
    """forward(Inputs) -> [n, outputs]: logits of HEADS, then log1p of the seconds read.

    tables_device: where the tables lie, `device` by default; "meta" when DistributedModelParallel will place them.
    """

    def __init__(
        self,
        schema: FeatureSchema,
        config: RankerConfig,
        device: torch.device,
        tables_device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self.columns = list(schema.tables)
        self.features = [name for name in schema.tables if name not in BIASES]
        # By list the features that its entries share tables with.
        self.fields = {name: [self.features.index(table) for table in SEQUENCES[name].values()] for name in schema.sequences}
        for name, fields in self.fields.items():
            self.register_buffer(f"{name}_fields", torch.tensor(fields, device=device), persistent=False)
        tables_device = tables_device or device
        self.embeddings = _tables(self.features, schema.tables, config.dim, config.init, tables_device, "")
        self.attention = nn.ModuleDict(
            {name: Attention(len(of), config.dim, device) for name, of in self.fields.items()}
        )
        vectors = len(self.features) + len(self.fields) + 1
        self.project = _layers((schema.width, 2 * config.dim, config.dim), device)
        self.wide = None
        width = vectors * config.dim + schema.width
        if config.network == "wide_deep":
            padded = -(-len(OUTPUTS) // 4) * 4  # the fused kernels need a multiple of 4
            self.wide = _tables(self.features, schema.tables, padded, 0.0, tables_device, "wide_")
            self.wide_dense = nn.Linear(schema.width, len(OUTPUTS), bias=False, device=device)
        else:
            first, second = torch.triu_indices(vectors, vectors, offset=1, device=device)
            self.register_buffer("pairs", first * vectors + second, persistent=False)
            width += len(first)
        self.body = _BODIES[config.network](width, config, device)
        self.towers = nn.Parameter(_uniform((len(OUTPUTS), config.hidden[-1], config.tower), device))
        self.tower_bias = nn.Parameter(torch.zeros(len(OUTPUTS), config.tower, device=device))
        self.out = nn.Parameter(torch.randn(len(OUTPUTS), config.tower, device=device) * config.tower**-0.5)
        self.bias = nn.Parameter(torch.zeros(len(OUTPUTS), device=device))
        self.position = nn.Parameter(torch.zeros(schema.tables["position"], len(OUTPUTS), device=device))

    def forward(self, given: Inputs) -> torch.Tensor:
        n = given.dense.shape[0]
        own, lists = self.looked_up(given)
        stacked = torch.cat([own.flatten(1), *lists, self.project(given.dense)], dim=1).view(n, -1, own.shape[2])
        parts = [stacked.flatten(1), given.dense]
        if self.wide is None:
            parts.append(torch.bmm(stacked, stacked.transpose(1, 2)).flatten(1).index_select(1, self.pairs))
        shared = self.body(torch.cat(parts, dim=1))
        # One layer for all heads where they read the same vector, else one product a head.
        if shared.dim() == 2:
            towers = shared @ self.towers.permute(1, 0, 2).flatten(1)
        else:
            towers = torch.bmm(shared.transpose(0, 1), self.towers).transpose(0, 1)
        towers = F.relu(towers.reshape(n, *self.tower_bias.shape) + self.tower_bias)
        logits = (towers * self.out).sum(dim=2) + self.bias
        if self.wide is not None:
            logits = logits + self.linear(given)
            logits = logits + self.wide_dense(given.dense)
        if given.position is not None:
            logits = logits + self.position[given.position] - self.position[1]
        return logits

    def looked_up(self, given: Inputs) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Embeddings of the samples' features, [n, features, dim], and what each list comes to, [n, dim]."""
        rows = self.rows("embeddings", given)
        own = _at(rows, given.places)
        lists = [
            self.attention[name](self.candidate(own, name), rows, entries, given.lengths[:, i])
            for i, (name, entries) in enumerate(zip(self.fields, given.entries, strict=True))
        ]
        return own, lists

    def candidate(self, own: torch.Tensor, name: str) -> torch.Tensor:
        """What the list's entries are held against: the sample's embeddings from the same tables, [n, fields x dim]."""
        return own.index_select(1, getattr(self, f"{name}_fields")).flatten(1)

    def linear(self, given: Inputs) -> torch.Tensor:
        """What the wide half makes of the ids, [n, outputs]."""
        return _at(self.rows("wide", given), given.places).sum(dim=1)[:, : len(OUTPUTS)]

    def rows(self, module: str, given: Inputs) -> torch.Tensor:
        """The rows of the ids that occur, of all tables one after the other; to be waited for where other processes hold them."""
        ids, tables = given.ids[module], getattr(self, module)
        found = tables.compute_and_output_dist(*ids) if isinstance(ids, Routed) else tables(ids)
        return torch.cat([found[name].values() for name in self.names(module)])

    def names(self, module: str) -> list[str]:
        """What the module calls the features."""
        return [f"wide_{name}" for name in self.features] if module == "wide" else self.features

    def inputs(self, batch: Encoded, device: torch.device | None = None, bias: bool = True) -> Inputs:
        """The samples as tensors on the device. bias=False leaves the position out, as serving does."""
        device = device or self.bias.device
        distinct, places, entries = self._distinct(batch)
        values = torch.from_numpy(np.concatenate(distinct).astype(np.int64)).to(device)
        counts = torch.tensor([len(ids) for ids in distinct], device=device)
        modules = ("embeddings",) if self.wide is None else ("embeddings", "wide")
        ids = {name: KeyedJaggedTensor(keys=self.names(name), values=values, lengths=counts) for name in modules}
        lengths = torch.from_numpy(batch.lengths).to(device).long()
        position = None
        if bias:
            position = torch.from_numpy(batch.ids[:, self.columns.index("position")].astype(np.int64)).to(device)
        dense = torch.from_numpy(np.ascontiguousarray(batch.dense)).to(device)
        entries = tuple(torch.from_numpy(one).to(device) for one in entries)
        return Inputs(ids, torch.from_numpy(places).to(device), entries, dense, lengths, position)

    def _distinct(self, batch: Encoded) -> tuple[list[np.ndarray], np.ndarray, list[np.ndarray]]:
        """Of each feature's table the ids that occur; places and entries of Inputs. Popular ids and readers' lists come again and
        again: each travels once."""
        n = len(batch.ids)
        places = np.empty((n, len(self.features)), np.int64)
        entries = [np.empty((batch.lengths[:, s].sum(), len(fields)), np.int64) for s, fields in enumerate(self.fields.values())]
        listed = self._listed(batch)
        found, before = [], 0
        for field, name in enumerate(self.features):
            parts = [batch.ids[:, self.columns.index(name)], *(values for _, _, values in listed[field])]
            codes, distinct = pd.factorize(np.concatenate(parts))
            codes += before
            places[:, field], start = codes[:n], n
            for s, place, values in listed[field]:
                entries[s][:, place] = codes[start : start + len(values)]
                start += len(values)
            found.append(distinct)
            before += len(distinct)
        return found, places, entries

    def _listed(self, batch: Encoded) -> dict[int, list[tuple[int, int, np.ndarray]]]:
        """By feature the columns of lists that hold its ids: which list, which of its fields, the ids of all samples."""
        found, columns = defaultdict(list), itertools.count()
        for s, fields in enumerate(self.fields.values()):
            for place, field in enumerate(fields):
                found[field].append((s, place, unpadded(batch.lists[:, next(columns)], batch.lengths[:, s])))
        return found


class Attention(nn.Module):
    """A list as one vector: each entry weighed by how it goes with the candidate (DIN, Zhou et al. 2018).

    forward(candidate [n, width], rows [all, dim], entries [m, fields], lengths [n]) -> [n, dim]; an entry is its rows one after the
    other, width = fields x dim. As in DIN the weights are not normalised: many entries that fit say more than one. How long ago an
    entry was counts as well.
    """

    def __init__(self, fields: int, dim: int, device: torch.device) -> None:
        super().__init__()
        width = fields * dim
        self.of_candidate = nn.Linear(width, ATTENTION, device=device)
        self.of_entry = nn.Linear(width, ATTENTION, bias=False, device=device)
        self.of_both = nn.Linear(width, ATTENTION, bias=False, device=device)
        self.recency = nn.Parameter(torch.zeros(SEQUENCE_LENGTH, ATTENTION, device=device))
        self.weigh = nn.Linear(ATTENTION, 1, device=device)
        self.project = nn.Linear(width, dim, device=device)

    def forward(self, candidate: torch.Tensor, rows: torch.Tensor, entries: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        if rows.device.type != "cpu":
            return self.over(candidate, _at(rows, entries).flatten(1), lengths)
        layers = (self.of_entry.weight, self.of_both.weight, self.recency, self.weigh.weight, self.weigh.bias)
        return self.project(Pooled.apply(candidate, self.of_candidate(candidate), rows, entries, lengths, *layers))

    def over(self, candidate: torch.Tensor, entries: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The same of entries that were read, [m, width], by torch's operators: what GPUs do well."""
        n = len(candidate)
        owner = torch.repeat_interleave(torch.arange(n, device=lengths.device), lengths)
        ends = lengths.cumsum(0)
        slot = torch.arange(len(entries), device=lengths.device) - (ends - lengths).index_select(0, owner)
        both = candidate.index_select(0, owner) * entries
        hidden = self.of_candidate(candidate).index_select(0, owner) + self.of_entry(entries) + self.of_both(both)
        weight = torch.sigmoid(self.weigh(F.relu(hidden + self.recency.index_select(0, slot))))
        summed = torch.zeros_like(candidate).index_add(0, owner, weight * entries)
        return self.project(summed)


class _Shared(nn.Module):
    """One network for all heads: [n, width] -> [n, hidden[-1]]."""

    def __init__(self, width: int, config: RankerConfig, device: torch.device) -> None:
        super().__init__()
        self.layers = _layers((width, *config.hidden), device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class _Experts(nn.Module):
    """`count` layers side by side. forward: [n, width], read by all, or [n, count, width] -> [n, count, out]."""

    def __init__(self, count: int, width: int, out: int, device: torch.device) -> None:
        super().__init__()
        self.weight = nn.Parameter(_uniform((count, width, out), device))
        self.bias = nn.Parameter(torch.zeros(count, out, device=device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count, _, out = self.weight.shape
        if x.dim() == 2:
            y = (x @ self.weight.permute(1, 0, 2).flatten(1)).view(-1, count, out)
        else:
            y = torch.bmm(x.transpose(0, 1), self.weight).transpose(0, 1)
        return F.relu(y + self.bias)


class _Mixture(nn.Module):
    """MMoE (Ma et al. 2018): experts that all heads share, a softmax gate a head -> [n, outputs, hidden[-1]]."""

    def __init__(self, width: int, config: RankerConfig, device: torch.device) -> None:
        super().__init__()
        widths = (width, *config.hidden)
        self.experts = nn.ModuleList(_Experts(config.experts, a, b, device) for a, b in zip(widths, widths[1:]))
        self.gates = nn.Linear(width, len(OUTPUTS) * config.experts, device=device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gates = self.gates(x).view(len(x), len(OUTPUTS), -1).softmax(dim=2)
        for layer in self.experts:
            x = layer(x)
        return torch.bmm(gates, x)


class _Extraction(nn.Module):
    """PLE (Tang et al. 2020): a head's gate mixes its own experts and the shared ones, layer upon layer; between layers the
    shared side mixes all of them. -> [n, outputs, hidden[-1]].
    """

    def __init__(self, width: int, config: RankerConfig, device: torch.device) -> None:
        super().__init__()
        self.own, self.common = config.own_experts, config.experts
        heads = len(OUTPUTS)
        widths = (width, *config.hidden)
        pairs = list(zip(widths, widths[1:]))
        self.owned = nn.ModuleList(_Experts(heads * self.own, a, b, device) for a, b in pairs)
        self.shared = nn.ModuleList(_Experts(self.common, a, b, device) for a, b in pairs)
        self.gates = nn.ParameterList(nn.Parameter(_uniform((heads, a, self.own + self.common), device)) for a, _ in pairs)
        mixed = heads * self.own + self.common
        self.shared_gates = nn.ModuleList(nn.Linear(a, mixed, device=device) for a, _ in pairs[:-1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, heads = len(x), len(OUTPUTS)
        private, common = x.unsqueeze(1).expand(n, heads, -1), x
        for i, (own, shared, gate) in enumerate(zip(self.owned, self.shared, self.gates)):
            first = i == 0
            owned = own(x if first else private.repeat_interleave(self.own, dim=1))
            together = shared(common if first else common.unsqueeze(1).expand(n, self.common, -1))
            weights = torch.bmm(private.transpose(0, 1), gate).transpose(0, 1).softmax(dim=2)
            of_head = owned.view(n, heads, self.own, -1)
            private = (weights[:, :, : self.own, None] * of_head).sum(2) + torch.bmm(weights[:, :, self.own :], together)
            if i < len(self.shared_gates):
                every = torch.cat([owned, together], dim=1)
                common = torch.bmm(self.shared_gates[i](common).softmax(dim=1).unsqueeze(1), every).squeeze(1)
        return private


_BODIES = {"shared_bottom": _Shared, "mmoe": _Mixture, "ple": _Extraction, "wide_deep": _Shared}


def _at(rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """[..., dim]: the rows at places [...]. One call for all features: its backward pass adds in one loop too."""
    if rows.device.type == "cpu":
        return Read.apply(rows, places)
    return rows.index_select(0, places.flatten()).view(*places.shape, -1)


def _tables(names: list[str], rows: dict[str, int], dim: int, init: float, device: torch.device, prefix: str) -> EmbeddingCollection:
    return EmbeddingCollection(
        device=device,
        tables=[
            EmbeddingConfig(
                name=prefix + name, feature_names=[prefix + name], num_embeddings=rows[name], embedding_dim=dim,
                weight_init_min=-init, weight_init_max=init,
            )
            for name in names
        ],
    )  # fmt: skip


def _uniform(shape: tuple[int, int, int], device: torch.device) -> torch.Tensor:
    """Stacked layers' first weights, as nn.Linear draws them; shape [count, in, out]."""
    return torch.empty(shape, device=device).uniform_(-1, 1) * shape[1] ** -0.5


def _layers(widths: tuple[int, ...], device: torch.device) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in zip(widths, widths[1:]):
        layers += [nn.Linear(before, after, device=device), nn.ReLU()]
    return nn.Sequential(*layers)


def loss(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, config: RankerConfig) -> torch.Tensor:
    """Mean over the batch of the summed losses of the outputs that a row's mask lets in; all [n, outputs].

    For the heads it is the negative log likelihood of all that was observed: a click counts as much as a like. Reading
    time adds a Huber loss on log1p(seconds), times config.dwell_weight.
    """
    n = len(HEADS)
    each = F.binary_cross_entropy_with_logits(logits[:, :1], labels[:, :1], weight=weights[:, :1], reduction="sum")
    if config.space == "click":
        behaviours = F.binary_cross_entropy_with_logits(
            logits[:, 1:n], labels[:, 1:n], weight=weights[:, 1:n], reduction="sum"
        )
    else:
        behaviours = _entire(logits[:, :n], labels[:, :n], weights[:, :n])
    dwell = (weights[:, n] * F.huber_loss(logits[:, n], labels[:, n], reduction="none")).sum()
    return (each + behaviours + config.dwell_weight * dwell) / weights[:, 0].sum().clamp(min=1)


def _entire(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """ESMM: log loss of p(click) p(behaviour | click) over all displays.

    A display that was clicked but has no click session of its own says nothing of behaviours (its mask is 0); one that was
    not clicked is a negative of each.
    """
    inside = torch.where(labels[:, :1] > 0, weights[:, 1:], weights[:, :1])
    log_p = F.logsigmoid(logits[:, :1]) + F.logsigmoid(logits[:, 1:])
    log_not = torch.log1p(-log_p.exp().clamp(max=1 - SURE))
    positive = labels[:, 1:] * (labels[:, :1] > 0)
    return -(inside * (positive * log_p + (1 - positive) * log_not)).sum()


def predict(model: RankerModel, batch: Encoded, bias: bool = True) -> np.ndarray:
    """float32 [n, outputs]: probabilities of HEADS, and the reading time in seconds (its median, roughly: exp of the log).

    bias=False leaves the position out, as serving does.
    """
    with torch.inference_mode():
        found = model(model.inputs(batch, bias=bias))
        found[:, : len(HEADS)].sigmoid_()
        found[:, len(HEADS)].expm1_().clamp_(min=0)
        return found.cpu().numpy()


def set_bias(model: RankerModel, means: Iterable[float]) -> None:
    """Start each output at its observed mean, so that the first steps are not spent on finding it."""
    found = torch.tensor(list(means))
    with torch.no_grad():
        found[: len(HEADS)] = torch.logit(found[: len(HEADS)].clamp(1e-4, 1 - 1e-4))
        model.bias.copy_(found)
