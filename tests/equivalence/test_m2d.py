"""M2D against slow loops: the loss patch by patch, the moving average in closed form, and who gets gradients."""

import math

import pytest
import torch

from melmask.masking import draw
from melmask.models import M2D
from melmask.models.m2d import feature_distance
from melmask.types import Mask, PatchGrid
from melmask.vit import Size

GRID = PatchGrid(3, 5)


@pytest.fixture
def model() -> M2D:
    """Its target has already moved away from its online encoder."""
    torch.manual_seed(0)
    model = M2D(Size(32, 2, 4), Size(16, 1, 2), (4, 4), ema=(0.9, 0.99))
    with torch.no_grad():
        for parameter in model.target.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def masks(batch_size: int = 3) -> Mask:
    return draw("random", grid=GRID, batch_size=batch_size, mask_ratio=0.7, rng=torch.Generator().manual_seed(1))


def cosine(one: list[float], other: list[float]) -> float:
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return dot / math.sqrt(sum(a * a for a in one)) / math.sqrt(sum(b * b for b in other))


def test_the_loss_is_that_of_a_slow_loop(model):
    patches, mask = torch.randn(3, 15, 16), masks()
    predictions = []
    model.predictor.register_forward_hook(lambda module, args, output: predictions.append(output))
    loss = model(patches, GRID, mask)
    errors = []
    for sample in range(3):
        # The target encoder sees the masked patches of this sample and nothing else.
        index = mask.masked[sample : sample + 1]
        target = model.target(patches[sample : sample + 1], GRID, index)[0, 1:].double()
        for place in range(len(index[0])):
            feature = target[place].tolist()
            mean = sum(feature) / 32
            deviation = math.sqrt(sum((x - mean) ** 2 for x in feature) / 32)
            standard = [(x - mean) / deviation for x in feature]
            error = 2 - 2 * cosine(predictions[0][sample, place].tolist(), standard)
            assert float(loss.per_patch[sample, place]) == pytest.approx(error, abs=1e-5)
            errors.append(error)
    assert float(loss.value) == pytest.approx(sum(errors) / len(errors), abs=1e-5)


def test_the_loss_is_the_squared_distance_of_unit_vectors():
    torch.manual_seed(1)
    predicted, target = torch.randn(2, 4, 8), 5 * torch.randn(2, 4, 8) + 3
    standard = (target - target.mean(dim=2, keepdim=True)) / target.std(dim=2, keepdim=True)
    apart = torch.nn.functional.normalize(predicted, dim=2) - torch.nn.functional.normalize(standard, dim=2)
    torch.testing.assert_close(feature_distance(predicted, target), apart.square().sum(dim=2), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(feature_distance(standard, target), torch.zeros(2, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(feature_distance(-standard, target), torch.full((2, 4), 4.0), atol=1e-5, rtol=0)
    assert feature_distance(torch.zeros(1, 2, 8), torch.ones(1, 2, 8)).isfinite().all()  # nothing to compare


def test_the_target_starts_as_the_online_encoder_and_shares_nothing_with_it():
    model = M2D(Size(32, 1, 2), Size(16, 1, 2), (4, 4))
    for online, target in zip(model.encoder.parameters(), model.target.parameters(), strict=True):
        assert torch.equal(online, target) and online.data_ptr() != target.data_ptr()


def test_the_moving_average_has_its_closed_form(model):
    # target_K = Π d_k target_0 + Σ_k (1 - d_k) Π_{j>k} d_j online_k, with d linear in the progress.
    progress = [0.0, 0.25, 0.5, 0.75, 1.0]
    decays = [0.9 + 0.09 * p for p in progress]
    weights = [math.prod(decays)] + [(1 - d) * math.prod(decays[k + 1 :]) for k, d in enumerate(decays)]
    assert sum(weights) == pytest.approx(1.0)
    expected = {name: weights[0] * value.double() for name, value in model.target.state_dict().items()}
    for k, done in enumerate(progress):
        with torch.no_grad():
            for parameter in model.encoder.parameters():
                parameter += torch.randn_like(parameter)
        online = {name: value.clone() for name, value in model.encoder.state_dict().items()}
        model.after_step(done)
        for name, value in model.encoder.state_dict().items():
            assert torch.equal(value, online[name])
            expected[name] += weights[k + 1] * value.double()
    for name, value in model.target.state_dict().items():
        torch.testing.assert_close(value.double(), expected[name], atol=1e-5, rtol=1e-5)


def test_slow_decays_are_not_lost_in_float32():
    model = M2D(Size(32, 1, 2), Size(16, 1, 2), (4, 4), ema=(0.99995, 0.99999))
    with torch.no_grad():
        model.target.norm.weight.fill_(0.0)
    for _ in range(1000):
        model.after_step(0.0)
    expected = 1 - 0.99995**1000
    torch.testing.assert_close(model.target.norm.weight, torch.full((32,), expected), atol=1e-5, rtol=1e-3)


def test_the_target_gets_no_gradient_and_moves_only_after_a_step(model):
    before = {name: value.clone() for name, value in model.target.state_dict().items()}
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(torch.randn(3, 15, 16), GRID, masks()).value.backward()
    optimiser.step()
    for name, parameter in model.target.named_parameters():
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
