import copy

import pytest
import torch

from melmask.frameworks import Framework
from melmask.train import optimiser
from melmask.train.optimiser import clip_gradients, make_optimiser
from melmask.train.recipe import RECIPES

pytestmark = pytest.mark.numerical


@pytest.fixture
def model() -> Framework:
    return RECIPES["micro-m2d"].make_model()


def test_only_matrices_decay(model):
    decayed, rest = make_optimiser(model, RECIPES["micro-m2d"]).param_groups
    assert decayed["weight_decay"] == 0.05 and rest["weight_decay"] == 0.0
    assert all(p.ndim == 2 for p in decayed["params"])
    names = {id(p): name for name, p in model.named_parameters()}
    assert all(("norm" in n or "bias" in n or "token" in n) for n in (names[id(p)] for p in rest["params"]))
    assert len(decayed["params"]) + len(rest["params"]) == sum(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, float("nan"), float("inf")])
@pytest.mark.parametrize("large", [2**18, 0])
def test_gradients_are_clipped_as_by_torch(model, scale, large, monkeypatch):
    """For gradients within the bound, beyond it, and not finite; to the bit, where none is large.

    In float64, since the norm of all gradients is a sum of so many squares that any order of it would do in float32.
    """
    monkeypatch.setattr(optimiser, "LARGE", large)
    model.double()
    rng = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn(parameter.shape, generator=rng).double() * scale
    other = copy.deepcopy(model)
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        theirs.grad = None if ours.grad is None else ours.grad.clone()
    norm = clip_gradients(model, 3.0)
    expected = torch.nn.utils.clip_grad_norm_(other.parameters(), 3.0)
    tolerance = {"rtol": 0.0 if large else 1e-9, "atol": 0.0, "equal_nan": True}
    torch.testing.assert_close(norm, expected, **tolerance)
    assert scale not in (1e-3, 1e3) or (norm < 3.0) == (scale == 1e-3)  # so that both ways are gone
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None)
        if ours.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, **tolerance)
