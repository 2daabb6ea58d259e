"""M2D against slow loops: the loss patch by patch, the moving average in closed form, and who gets gradients.

Networks and formulas are compared in float64; the loss is in float32 whatever the model's type.
"""

import dataclasses
import math

import pytest
import torch

from bounds import assert_sums_close, gamma
from melmask.frameworks import M2D
from melmask.frameworks.m2d import standardised_over_batch, standardised_over_features, unit_distance
from melmask.masking import draw
from melmask.nn.vit import Size
from melmask.types import Mask, PatchGrid

pytestmark = pytest.mark.numerical

GRID = PatchGrid(3, 5)


@pytest.fixture(params=["encoder", "blocks"])
def model(request) -> M2D:
    """Its target has already moved away from its online encoder."""
    torch.manual_seed(0)
    options = M2D.Options(ema_start=0.9, ema_end=0.99, target=request.param)
    model = M2D(Size(32, 2, 4), Size(16, 1, 2), (4, 4), options)
    with torch.no_grad():
        for parameter in own_parameters(model).values():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def own_parameters(model: M2D) -> dict[str, torch.Tensor]:
    """What of the target encoder is not the online encoder's, by its name in either encoder."""
    of_target = dict(model.target.named_parameters())
    if model.options.target == "blocks":
        return {name: value for name, value in of_target.items() if name.startswith(("blocks.", "norm."))}
    return of_target


def masks(batch_size: int = 3) -> Mask:
    return draw("random", grid=GRID, batch_size=batch_size, mask_ratio=0.7, rng=torch.Generator().manual_seed(1))


def cosine(one: list[float], other: list[float]) -> float:
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return dot / math.sqrt(sum(a * a for a in one)) / math.sqrt(sum(b * b for b in other))


def standardised(values: list[float]) -> tuple[float, float]:
    """Mean and deviation of a list."""
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((x - mean) ** 2 for x in values) / len(values))


@pytest.mark.parametrize("standardise", ["patch", "batch"])
@pytest.mark.parametrize("padded", [False, True])
def test_the_loss_is_that_of_a_slow_loop(model, standardise, padded):
    model.double().options = dataclasses.replace(model.options, standardise=standardise)
    patches, mask, predictions = torch.randn(3, 15, 16, dtype=torch.float64), masks(), []
    valid = (torch.arange(5) < torch.tensor([5, 3, 1])[:, None]).repeat(1, 3) if padded else None
    model.predictor.register_forward_hook(lambda module, args, output: predictions.append(output.detach()))
    loss = model(patches, GRID, mask, valid)

    # The target encoder sees the masked patches of one sample and nothing else.
    targets = [model.target(patches[s : s + 1], GRID, mask.masked[s : s + 1])[0, 1:].tolist() for s in range(3)]
    places = [(s, k) for s in range(3) for k in range(11)]
    counted = [(s, k) for s, k in places if valid is None or valid[s, mask.masked[s, k]]]
    assert len(counted) == (20 if padded else 33)
    errors = {}
    for s, k in places:
        if standardise == "patch":
            moments = [standardised(targets[s][k])] * 32
        else:
            moments = [standardised([targets[i][j][feature] for i, j in counted]) for feature in range(32)]
        standard = [(x - mean) / deviation for x, (mean, deviation) in zip(targets[s][k], moments, strict=True)]
        errors[s, k] = 2 - 2 * cosine(predictions[0][s, k].tolist(), standard)
    # A mean and a variance over 32 features or at most 33 patches, and a cosine of 32 features; up to 4 in size.
    num_terms = 2 * 33 + 3 * 32
    for s, k in places:
        assert float(loss.per_patch[s, k]) == pytest.approx(errors[s, k], abs=4 * gamma(num_terms))
    expected = sum(errors[place] for place in counted) / len(counted)
    assert float(loss.value.detach()) == pytest.approx(expected, abs=4 * gamma(num_terms + 33))


def test_the_loss_is_the_squared_distance_of_unit_vectors():
    torch.manual_seed(1)
    one, other = torch.randn(2, 2, 4, 8, dtype=torch.float64)
    apart = torch.nn.functional.normalize(one, dim=2) - torch.nn.functional.normalize(other, dim=2)
    torch.testing.assert_close(unit_distance(one, other), apart.square().sum(dim=2))
    torch.testing.assert_close(unit_distance(one, 3 * one), one.new_zeros(2, 4))
    torch.testing.assert_close(unit_distance(one, -one), one.new_full((2, 4), 4.0))


def test_targets_that_say_nothing_stay_finite():
    same = torch.ones(2, 3, 8)
    assert unit_distance(torch.zeros(2, 3, 8), standardised_over_features(same)).isfinite().all()
    for counted in (torch.ones(2, 3), torch.zeros(2, 3)):
        assert unit_distance(torch.zeros(2, 3, 8), standardised_over_batch(same, counted)).isfinite().all()


def test_the_target_starts_as_the_online_encoder_and_shares_nothing_with_it():
    model = M2D(Size(32, 1, 2), Size(16, 1, 2), (4, 4))
    for online, target in zip(model.encoder.parameters(), model.target.parameters(), strict=True):
        assert torch.equal(online, target) and online.data_ptr() != target.data_ptr()


def test_a_target_of_blocks_starts_at_random_and_takes_the_embedding_and_class_token_of_the_online_encoder():
    torch.manual_seed(0)
    model = M2D(Size(32, 2, 4), Size(16, 1, 2), (4, 4), M2D.Options(target="blocks"))
    own, online = own_parameters(model), dict(model.encoder.named_parameters())
    shared = {name for name, value in model.target.named_parameters() if value is online[name]}
    assert shared == {"cls_token", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert set(online) == shared | set(own)
    matrices = [name for name, value in own.items() if value.ndim == 2]
    assert len(matrices) == 8 and not any(torch.equal(own[name], online[name]) for name in matrices)
    for name in matrices:  # drawn from the same law, and not at all alike
        both = torch.stack([own[name].detach().flatten(), online[name].detach().flatten()])
        assert both[0].std() == pytest.approx(float(both[1].std()), rel=0.15)
        assert abs(torch.corrcoef(both)[0, 1]) < 0.15
    # The optimiser trains what is shared, once, and none of what is the target's own.
    trained = [name for name, value in model.named_parameters() if value.requires_grad]
    assert not [name for name in trained if name.startswith("target")] and "encoder.cls_token" in trained


def test_the_moving_average_has_its_closed_form(model):
    # target_K = Π d_k target_0 + Σ_k (1 - d_k) Π_{j>k} d_j online_k, with d linear in the progress.
    model.double()
    progress = [0.0, 0.25, 0.5, 0.75, 1.0]
    decays = [0.9 + 0.09 * p for p in progress]
    weights = [math.prod(decays)] + [(1 - d) * math.prod(decays[k + 1 :]) for k, d in enumerate(decays)]
    assert sum(weights) == pytest.approx(1.0)
    expected = {name: weights[0] * value.detach() for name, value in own_parameters(model).items()}
    for k, done in enumerate(progress):
        with torch.no_grad():
            for parameter in model.encoder.parameters():
                parameter += torch.randn_like(parameter)
        online = {name: value.clone() for name, value in model.encoder.state_dict().items()}
        model.after_step(done)
        for name, value in model.encoder.state_dict().items():
            assert torch.equal(value, online[name])
            if name in expected:
                expected[name] += weights[k + 1] * value
    for name, value in model.target.state_dict().items():
        torch.testing.assert_close(value, expected.get(name, online[name]))


def test_slow_decays_are_not_lost_in_float32():
    model = M2D(Size(32, 1, 2), Size(16, 1, 2), (4, 4), M2D.Options(ema_start=0.99995, ema_end=0.99999))
    with torch.no_grad():
        model.target.norm.weight.fill_(0.0)
    for _ in range(1000):
        model.after_step(0.0)
    # Each step rounds at most four times, by less than the 0.05 that is reached.
    expected = torch.full((32,), 1 - 0.99995**1000, dtype=torch.float64)
    assert_sums_close(model.target.norm.weight, expected, expected, 4 * 1000)


def test_the_target_gets_no_gradient_and_moves_only_after_a_step(model):
    before = {name: value.detach().clone() for name, value in own_parameters(model).items()}
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(torch.randn(3, 15, 16), GRID, masks()).value.backward()
    optimiser.step()
    for name, parameter in own_parameters(model).items():
        assert not parameter.requires_grad and parameter.grad is None
        assert torch.equal(parameter, before[name])
    model.after_step(0.0)
    assert not torch.equal(model.target.norm.weight, before["norm.weight"])


@pytest.mark.parametrize("value", [1e6, math.nan])
def test_the_target_sees_only_masked_patches(model, value):
    patches, mask, targets = torch.randn(3, 15, 16), masks(), []
    model.target.register_forward_hook(lambda module, args, output: targets.append(output))
    model(patches, GRID, mask)
    changed = patches.scatter(1, mask.visible[:, :, None].expand(-1, -1, 16), value)
    model(changed, GRID, mask)
    assert torch.equal(targets[0], targets[1])
