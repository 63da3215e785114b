"""The network: sharded embeddings, pairwise dot products, a shared bottom, nine heads.

Here: layers and the loss. Not here: features (features.py), the training loop (worker.py). Imports torch: import inside
functions only.

Each feature is one embedding of `dim` floats; the dense inputs become one more vector of that width. All pairs of these
vectors meet in a dot product (as in DLRM, Naumov et al. 2019): user x topic is taste, note x hour is daily rhythm. The
shared bottom reads embeddings, products and dense inputs; each head has a small tower of its own.

click is p(click | display); the other eight are p(behaviour | click): their loss is masked to engaged displays. That is
how the samples' labels are defined (a display without a click never enters a click session). p(behaviour | display)
is the product with p(click), as in ESMM.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import nn
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor

from assets.ranking.config import HEADS, RankerConfig
from assets.ranking.features import FeatureSchema


def keyed(ids: torch.Tensor, features: list[str]) -> KeyedJaggedTensor:
    """Table rows, int64 [n, features], as bags of one id each."""
    lengths = torch.ones(ids.numel(), dtype=torch.int64, device=ids.device)
    return KeyedJaggedTensor(keys=features, values=ids.t().reshape(-1), lengths=lengths)


class RankerModel(nn.Module):
    """forward(ids as KeyedJaggedTensor, dense [n, schema.width]) -> logits [n, heads].

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
        self.features = list(schema.tables)
        self.embeddings = EmbeddingBagCollection(
            device=tables_device or device,
            tables=[
                EmbeddingBagConfig(
                    name=name, feature_names=[name], num_embeddings=rows, embedding_dim=config.dim,
                    weight_init_min=-config.init, weight_init_max=config.init,
                )
                for name, rows in schema.tables.items()
            ],
        )  # fmt: skip
        vectors = len(self.features) + 1
        self.project = _layers((schema.width, 2 * config.dim, config.dim), device)
        first, second = torch.triu_indices(vectors, vectors, offset=1, device=device)
        self.register_buffer("first", first, persistent=False)
        self.register_buffer("second", second, persistent=False)
        width = vectors * config.dim + len(first) + schema.width
        self.bottom = _layers((width, *config.hidden), device)
        self.towers = nn.Linear(config.hidden[-1], len(HEADS) * config.tower, device=device)
        self.out = nn.Parameter(torch.randn(len(HEADS), config.tower, device=device) * config.tower**-0.5)
        self.bias = nn.Parameter(torch.zeros(len(HEADS), device=device))

    def forward(self, ids: KeyedJaggedTensor, dense: torch.Tensor) -> torch.Tensor:
        pooled = self.embeddings(ids)
        # By name: sharding may put the features into another order.
        vectors = torch.stack([*(pooled[name] for name in self.features), self.project(dense)], dim=1)
        products = torch.bmm(vectors, vectors.transpose(1, 2))[:, self.first, self.second]
        shared = self.bottom(torch.cat([vectors.flatten(1), products, dense], dim=1))
        towers = F.relu(self.towers(shared)).view(-1, len(HEADS), self.out.shape[1])
        return (towers * self.out).sum(dim=2) + self.bias


def _layers(widths: tuple[int, ...], device: torch.device) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in zip(widths, widths[1:]):
        layers += [nn.Linear(before, after, device=device), nn.ReLU()]
    return nn.Sequential(*layers)


def loss(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean over the batch of the summed log losses of the heads that a row's mask lets in.

    This is the negative log likelihood of all that was observed: a click counts as much as a like.
    """
    each = F.binary_cross_entropy_with_logits(logits, labels, weight=weights, reduction="none")
    return each.sum() / weights[:, 0].sum().clamp(min=1)


def set_bias(model: RankerModel, rates: Iterable[float]) -> None:
    """Start each head at its observed rate, so that the first steps are not spent on finding it."""
    with torch.no_grad():
        model.bias.copy_(torch.logit(torch.tensor(list(rates)).clamp(1e-4, 1 - 1e-4)))
