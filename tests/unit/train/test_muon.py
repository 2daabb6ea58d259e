"""Muon: the updates of matrices, and which parameters they are for."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch.optim import AdamW

from melmask.train.muon import LEAST, POLYNOMIALS, Muon, orthogonalised
from melmask.train.optimiser import make_optimiser
from melmask.train.recipe import RECIPES

pytestmark = pytest.mark.numerical

RECIPE = dataclasses.replace(RECIPES["micro-m2d"], optimiser="muon")


def with_gradients(model, seed=0):
    rng = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn(parameter.shape, generator=rng)
    return model


@pytest.fixture
def model():
    torch.manual_seed(0)
    return with_gradients(RECIPE.make_model())


def best_polynomial(least: float, greatest: float) -> tuple[np.ndarray, float]:
    """The odd polynomial of degree five that is nearest to one on that range, and its largest error."""
    x = np.geomspace(least, greatest, 6000)
    powers, ones = np.stack([x, x**3, x**5], axis=1), np.ones((6000, 1))
    below, above = np.hstack([powers, -ones]), np.hstack([-powers, -ones])
    bounds = np.concatenate([ones, -ones])[:, 0]
    found = linprog([0, 0, 0, 1], np.concatenate([below, above]), bounds, bounds=[(None, None)] * 4).x
    return found[:3], found[3]


@pytest.mark.parametrize("num_iterations", POLYNOMIALS)
def test_each_polynomial_is_the_best_for_what_the_one_before_gives(num_iterations):
    least, greatest = LEAST[num_iterations], 1.0
    assert len(POLYNOMIALS[num_iterations]) == num_iterations
    for coefficients in POLYNOMIALS[num_iterations]:
        expected, error = best_polynomial(least, greatest)
        assert coefficients == pytest.approx(expected, abs=1e-3)
        least, greatest = 1 - error, 1 + error


@pytest.mark.parametrize("shape", [(3, 48, 48), (2, 64, 16), (2, 16, 64)])
@pytest.mark.parametrize(
    ("num_iterations", "smallest", "low", "high"),
    [
        (1, 0.1, 0.54, 1.46),
        (2, 0.03, 0.6, 1.4),
        (3, 0.01, 0.7, 1.3),
        (4, 0.003, 0.79, 1.21),
        (5, 0.001, 0.88, 1.12),
        (7, 0.001, 0.999, 1.001),
    ],
)
def test_singular_values_become_one_and_singular_vectors_stay(shape, num_iterations, smallest, low, high):
    rng = torch.Generator().manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape, generator=rng, dtype=torch.float64), full_matrices=False)
    values = torch.logspace(0.0, math.log10(1.02 * smallest), min(shape[1:]), dtype=torch.float64)
    values /= values.pow(4).sum() ** 0.25  # of which the least are a little below the bound
    values = values.clamp(min=1.02 * smallest)
    matrices = left @ torch.diag_embed(values.expand(shape[0], -1)) @ right
    became = left.mT @ orthogonalised(7.0 * matrices, num_iterations) @ right.mT
    diagonal = became.diagonal(dim1=1, dim2=2)
    assert diagonal.min() > low and diagonal.max() < high
    assert (became - torch.diag_embed(diagonal)).abs().max() < 1e-9


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_scale_of_a_matrix_says_nothing_and_one_of_a_single_rank_does_not_grow(scale):
    rng = torch.Generator().manual_seed(0)
    single = torch.outer(torch.randn(32, generator=rng), torch.randn(48, generator=rng))[None]
    for dtype in (torch.float32, torch.bfloat16):
        became = orthogonalised((scale * single).to(dtype), 2).float()
        assert 0.6 < torch.linalg.matrix_norm(became).item() < 1.5
    assert torch.equal(orthogonalised(torch.zeros(1, 4, 6), 2), torch.zeros(1, 4, 6))


def test_matrices_of_blocks_are_muons_and_all_else_is_adamws(model):
    optimiser = make_optimiser(model, RECIPE)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    by_parts = {group.get("num_parts"): [names[id(p)] for p in group["params"]] for group in optimiser.param_groups}
    assert {name.split(".", 3)[-1] for name in by_parts[3]} == {"attn.qkv.weight"}
    layers = {"attn.proj.weight", "mlp.fc1.weight", "mlp.fc2.weight"}
    assert {name.split(".", 3)[-1] for name in by_parts[1]} == layers
    outside, *_ = (group for group in optimiser.param_groups if group["weight_decay"] and "num_parts" not in group)
    embeddings = {"encoder.patch_embed.proj.weight", "predictor.embed.weight", "predictor.pred.weight"}
    assert {names[id(parameter)] for parameter in outside["params"]} == embeddings
    muons = [name for parts in (1, 3) for name in by_parts[parts]]
    assert len(muons) == 4 * (model.encoder.size.depth + model.predictor.size.depth)
    assert sum(len(group["params"]) for group in optimiser.param_groups) == sum(
        parameter.requires_grad for parameter in model.parameters()
    )
    decays = [group["weight_decay"] for group in optimiser.param_groups]
    assert decays == [RECIPE.weight_decay] * 3 + [0.0]


def test_query_key_and_value_are_orthogonalised_one_by_one_at_the_scale_of_adamw(model):
    optimiser = make_optimiser(model, dataclasses.replace(RECIPE, weight_decay=0.0))
    block = model.encoder.blocks[0]
    before, gradient = block.attn.qkv.weight.detach().clone(), block.attn.qkv.weight.grad.clone()
    wide, wide_gradient = block.mlp.fc1.weight.detach().clone(), block.mlp.fc1.weight.grad.clone()
    optimiser.step()
    rate, dim = RECIPE.learning_rate, model.encoder.size.dim
    expected = torch.cat([orthogonalised(part[None], 3)[0] for part in gradient.chunk(3)])
    torch.testing.assert_close(block.attn.qkv.weight.detach() - before, -rate * 0.2 * dim**0.5 * expected)
    moved = block.mlp.fc1.weight.detach() - wide
    expected = orthogonalised(wide_gradient[None], 3)[0]
    torch.testing.assert_close(moved, -rate * 0.2 * (4 * dim) ** 0.5 * expected)
    for update in (moved, block.attn.qkv.weight.detach() - before):
        assert update.square().mean().sqrt() == pytest.approx(0.2 * rate, rel=0.2)


def test_steps_are_those_of_torch():
    """To what `torch.optim.Muon` lacks in orthogonality, with singular values from 0.7 to 1.2, and to its bfloat16."""
    torch.manual_seed(0)
    ours, theirs = torch.nn.Linear(24, 40, bias=False), torch.nn.Linear(24, 40, bias=False)
    theirs.load_state_dict(ours.state_dict())
    group = {"params": [ours.weight], "num_parts": 1, "weight_decay": 0.1}
    own = Muon([group], num_iterations=8, dtype=torch.float32, lr=0.01)
    reference = torch.optim.Muon(theirs.parameters(), lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    start = ours.weight.detach().clone()
    for step in range(4):
        gradient = torch.randn(40, 24, generator=torch.Generator().manual_seed(step))
        ours.weight.grad, theirs.weight.grad = gradient.clone(), gradient.clone()
        own.step()
        reference.step()
    moved, expected = ours.weight.detach() - start, theirs.weight.detach() - start
    assert torch.nn.functional.cosine_similarity(moved.flatten(), expected.flatten(), dim=0) > 0.985
    assert moved.norm().item() == pytest.approx(expected.norm().item(), rel=0.15)


def test_parameters_that_are_not_muons_move_as_by_adamw(model):
    other = copy.deepcopy(model)
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        theirs.grad = None if ours.grad is None else ours.grad.clone()
    make_optimiser(model, RECIPE).step()
    make_optimiser(other, dataclasses.replace(RECIPE, optimiser="adamw")).step()
    for (name, ours), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        is_muons = ours.requires_grad and "blocks" in name and ours.ndim == 2
        assert torch.equal(ours, theirs) != is_muons, name


def test_the_default_is_adamw_alone(model):
    default = make_optimiser(model, RECIPES["micro-m2d"])
    assert type(default) is AdamW and len(default.param_groups) == 2
