"""No masked input reaches the online encoder or the predictions, in any framework, whatever its value."""

import math

import pytest
import torch

from melmask.frameworks import FRAMEWORKS, Framework, make_framework
from melmask.frameworks.base import MaskedDecoder
from melmask.masking import draw
from melmask.nn.vit import Size
from melmask.types import Mask, PatchGrid

pytestmark = pytest.mark.numerical

GRID = PatchGrid(5, 6)
each = pytest.mark.parametrize("framework", FRAMEWORKS)


def made(framework: str) -> Framework:
    torch.manual_seed(0)
    return make_framework(framework, Size(32, 2, 4), Size(16, 1, 2), (4, 4))


def masks() -> Mask:
    return draw("random", grid=GRID, batch_size=4, mask_ratio=0.7, rng=torch.Generator().manual_seed(1))


def predictions_of(model: Framework, patches: torch.Tensor, mask: Mask) -> torch.Tensor:
    """What the model's decoder predicts of the masked patches."""
    kept = []
    (decoder,) = (module for module in model.modules() if isinstance(module, MaskedDecoder))
    hook = decoder.register_forward_hook(lambda module, args, output: kept.append(output.detach()))
    model(patches, GRID, mask)
    hook.remove()
    return kept[0]


@each
@pytest.mark.parametrize("content", [0.0, 1e6, math.inf, math.nan, "noise"])
def test_masked_input_leaves_features_and_predictions_bit_identical(framework, content):
    model, mask, patches = made(framework), masks(), torch.randn(4, 30, 16)
    new = torch.randn(4, 21, 16) if content == "noise" else torch.full((4, 21, 16), content)
    changed = patches.scatter(1, mask.masked[:, :, None].expand(-1, -1, 16), new)
    assert torch.equal(model(patches, GRID, mask).features, model(changed, GRID, mask).features)
    assert torch.equal(predictions_of(model, patches, mask), predictions_of(model, changed, mask))


@each
def test_visible_input_reaches_features_and_predictions(framework):
    model, mask, patches = made(framework), masks(), torch.randn(4, 30, 16)
    changed = patches.clone()
    changed[1, mask.visible[1, 2]] += 1.0
    for before, after in (
        (model(patches, GRID, mask).features, model(changed, GRID, mask).features),
        (predictions_of(model, patches, mask), predictions_of(model, changed, mask)),
    ):
        assert torch.equal(before[[0, 2, 3]], after[[0, 2, 3]])  # nor does one sample reach another
        assert (before[1] != after[1]).any(dim=1).all()


@each
def test_features_are_those_of_the_visible_patches_in_order(framework):
    model, mask, patches = made(framework), masks(), torch.randn(4, 30, 16)
    features = model(patches, GRID, mask).features
    assert torch.equal(features, model.encoder(patches, GRID, mask.visible)[:, 1:])
    assert features.shape == (4, 9, 32) and not features.requires_grad


def test_the_gradient_of_the_features_at_masked_input_is_exactly_zero():
    model, mask = made("m2d"), masks()
    patches = torch.randn(4, 30, 16, requires_grad=True)
    model.encoder(patches, GRID, mask.visible).square().sum().backward()
    reached = patches.grad.abs().amax(dim=2) > 0
    expected = torch.zeros(4, 30, dtype=torch.bool).scatter(1, mask.visible, True)
    assert torch.equal(reached, expected)
