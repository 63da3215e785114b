"""What stands beside TorchRec in a step: the loops over rows in place of FBGEMM's, ids that travel ahead, ids looked up once."""

from dataclasses import replace

import numpy as np
import pytest
from ranking_world import plant, window

from assets.lake import Lake
from assets.ranking import samples
from assets.ranking.config import SEQUENCES, TABLES, RankerConfig
from assets.ranking.train import train

pytestmark = pytest.mark.slow

CONFIG = RankerConfig(tables={name: 211 for name in TABLES}, hidden=(32,), batch=128, holdout=0.1, processes=1, threads=1)


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    lake = Lake(str(tmp_path_factory.mktemp("rows")))
    plant(lake, 8_000, 4)
    return lake


def twins(tables: list[int], features_of: list[int]) -> list:
    """Two FBGEMM modules with the same weights, tables of so many rows, the second with our loops."""
    import torch
    from fbgemm_gpu.split_embedding_configs import EmbOptimType
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import PoolingMode
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
        ComputeDevice, EmbeddingLocation, SplitTableBatchedEmbeddingBagsCodegen,
    )  # fmt: skip

    from assets.ranking import rows

    made = []
    for _ in range(2):
        module = SplitTableBatchedEmbeddingBagsCodegen(
            [(count, 16, EmbeddingLocation.HOST, ComputeDevice.CPU) for count in tables], feature_table_map=features_of,
            optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD, learning_rate=0.1, pooling_mode=PoolingMode.NONE,
        )  # fmt: skip
        with torch.no_grad():
            module.weights_host.copy_(torch.linspace(-0.1, 0.1, len(module.weights_host)))
        made.append(module)
    made[1].forward = rows.Rows(made[1])
    return made


def test_rows_are_read_and_updated_as_fbgemm_does():
    import torch

    theirs, ours = twins([50, 7, 3_001], [0, 0, 1, 2])  # the first is read by two features
    rng = torch.Generator().manual_seed(5)
    for _ in range(5):
        lengths = torch.randint(0, 4, (4, 64), generator=rng)  # bags without an id, and with the same one again
        ids = [torch.randint(0, rows, (int(n.sum()),), generator=rng) for rows, n in zip((50, 50, 7, 3_001), lengths)]
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.flatten().cumsum(0)])
        expected, found = (module(torch.cat(ids), offsets) for module in (theirs, ours))
        assert expected.shape == found.shape and expected.equal(found)
        gradient = torch.randn(expected.shape, generator=rng)
        for out in (expected, found):
            out.backward(gradient)
        assert torch.allclose(theirs.weights_host, ours.weights_host, rtol=0, atol=1e-7)
        assert torch.allclose(theirs.momentum1_host, ours.momentum1_host)
    assert not (ours.forward.slots != 0).any() and ours.momentum1_host.count_nonzero() > 100


def test_every_table_of_a_training_on_the_cpu_has_these_loops(lake, monkeypatch):
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import SplitTableBatchedEmbeddingBagsCodegen

    from assets.ranking import rows, worker

    made = []
    real = worker.sharded
    monkeypatch.setattr(worker, "sharded", lambda job, device: made.append(real(job, device)) or made[-1])
    train(lake, None, window(4), replace(CONFIG, network="wide_deep", sequences=("clicked",)))
    tables = [getattr(made[0].module, name) for name in worker.TABLES]
    modules = [m for of in tables for lookup in of._lookups for m in lookup.modules() if isinstance(m, SplitTableBatchedEmbeddingBagsCodegen)]
    assert len(modules) >= len(tables) and all(isinstance(module.forward, rows.Rows) for module in modules)


def test_ids_sent_ahead_change_nothing(lake, monkeypatch):
    from assets.ranking import worker

    plain = train(lake, None, window(4), CONFIG)
    made = worker.Training._made
    monkeypatch.setattr(worker.Training, "_made", lambda self, *of: worker.routed(self.model.module, made(self, *of)))
    ahead = train(lake, None, window(4), CONFIG)
    assert ahead["steps"] == plain["steps"] > 10 and ahead["heads"] == plain["heads"]


def test_an_id_is_looked_up_once_and_stands_where_it_occurs(lake):
    import torch

    from assets.ranking.model import RankerModel

    where = samples.split(lake, window(4), CONFIG)
    schema, _ = samples.fit_schema(where, CONFIG)
    batch = next(iter(samples.training_batches(where, schema, CONFIG)))
    model = RankerModel(schema, CONFIG, torch.device("cpu"))
    given = model.inputs(batch)
    bags = given.ids["embeddings"]
    ids, ends = bags.values(), bags.lengths().cumsum(0).tolist()
    assert given.places.shape == (len(batch.ids), len(model.features)) and len(ids) == ends[-1] == given.places.max() + 1
    columns = list(schema.list_columns)
    for i, (name, start, end) in enumerate(zip(bags.keys(), [0, *ends], ends, strict=False)):
        assert end - start == len(ids[start:end].unique())
        assert (given.places[:, i] >= start).all() and (given.places[:, i] < end).all()
        assert (ids[given.places[:, i]].numpy() == batch.ids[:, list(schema.tables).index(name)]).all()
    for s, (name, entries) in enumerate(zip(schema.sequences, given.entries, strict=True)):
        inside = np.arange(batch.lists.shape[2]) < batch.lengths[:, s : s + 1]
        for field, column in enumerate(SEQUENCES[name]):
            assert inside.any() and (ids[entries[:, field]].numpy() == batch.lists[:, columns.index(column)][inside]).all()
