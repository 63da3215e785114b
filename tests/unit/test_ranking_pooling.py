"""Attention's loops on the CPU come to what torch's operators come to, forward and backward."""

import numpy as np
import pytest

pytestmark = pytest.mark.slow  # torch, and loops to compile

WIDTH = {1: 4, 3: 16}  # fields: dim


@pytest.mark.parametrize("fields", WIDTH)
@pytest.mark.parametrize("mean", [0, 1, 6])
def test_the_loops_and_torchs_operators_agree_in_value_and_derivatives(fields, mean):
    import torch

    from assets.ranking.config import SEQUENCE_LENGTH
    from assets.ranking.model import Attention

    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    n, rows, dim = 300, 50, WIDTH[fields]
    lengths = torch.from_numpy(np.minimum(rng.poisson(mean, n), SEQUENCE_LENGTH))
    entries = torch.from_numpy(rng.integers(0, rows, (int(lengths.sum()), fields)))
    layer = Attention(fields, dim, torch.device("cpu"))
    torch.nn.init.normal_(layer.recency)  # zero at the start, which would hide it
    given = torch.randn(n, fields * dim), torch.randn(rows, dim)
    gradient = torch.randn(n, dim)

    def derived(work):
        layer.zero_grad()
        candidate, table = (one.clone().requires_grad_() for one in given)
        out = work(candidate, table)
        out.backward(gradient)
        of_layers = {name: p.grad if p.grad is not None else torch.zeros_like(p) for name, p in layer.named_parameters()}
        return {"out": out.detach(), "candidate": candidate.grad, "rows": table.grad, **of_layers}

    expected = derived(lambda candidate, table: layer.over(candidate, table[entries].flatten(1), lengths))
    found = derived(lambda candidate, table: layer(candidate, table, entries, lengths))
    again = derived(lambda candidate, table: layer(candidate, table, entries, lengths))
    assert expected.keys() == found.keys() and (mean == 0 or expected["rows"].abs().sum() > 0)
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, rtol=1e-4, atol=1e-5, msg=lambda said, name=name: f"{name}: {said}")
        assert torch.equal(found[name], again[name]), name  # the same run again gives the same bits


def test_scoring_without_derivatives_leaves_nothing_behind():
    import torch

    from assets.ranking.model import Attention

    layer = Attention(1, 4, torch.device("cpu"))
    with torch.inference_mode():
        out = layer(torch.randn(2, 4), torch.randn(3, 4), torch.tensor([[2], [0]]), torch.tensor([2, 0]))
    assert out.shape == (2, 4) and not out.requires_grad


def test_rows_are_read_and_their_derivatives_added_where_they_lie():
    import torch

    from assets.ranking.pooling import Read

    rng = np.random.default_rng(2)
    places = torch.from_numpy(rng.integers(0, 30, (200, 3)))
    rows, gradient = torch.randn(40, 5), torch.randn(200, 3, 5)
    ours, theirs = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    found, expected = Read.apply(ours, places), theirs[places]
    assert found.equal(expected)
    found.backward(gradient)
    expected.backward(gradient)
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert not ours.grad[30:].any() and ours.grad[:30].any(dim=1).all()
