"""MSM-MAE: its reconstructions, the cross-attention decoder and the agreement of two masks."""

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from melmask.frameworks import MSMMAE, make_framework
from melmask.frameworks.agreement import Agreement, mean_features, other_patches
from melmask.frameworks.msm_mae import normalised_patches
from melmask.masking import draw
from melmask.nn.vit import Size
from melmask.plan.flops import part_of
from melmask.train.recipe import RECIPES
from melmask.types import Mask, PatchGrid


class Perfect(nn.Module):
    """A stand-in for a decoder that knows the patches."""

    def __init__(self, patches: torch.Tensor) -> None:
        super().__init__()
        self.patches = patches

    def forward(self, latent: torch.Tensor, grid: PatchGrid, mask: Mask) -> torch.Tensor:
        return normalised_patches(self.patches, mask)


def test_a_perfect_prediction_reconstructs_the_input() -> None:
    grid, rng = PatchGrid(5, 6), torch.Generator().manual_seed(0)
    patches = torch.randn(1, grid.num_patches, 256, generator=rng)
    mask = draw("random", grid=grid, batch_size=1, mask_ratio=0.7, rng=rng)
    model = MSMMAE(Size(32, 1, 2), Size(32, 1, 2), grid.patch)
    model.decoder = Perfect(patches)
    torch.testing.assert_close(model.reconstruct(patches, grid, mask), patches, atol=1e-4, rtol=0)


GRID = PatchGrid(3, 8, (4, 4))
CROSS = {"decoder": "cross", "decoded_share": 0.5}


def made(**options):
    torch.manual_seed(0)
    return make_framework("msm-mae", Size(32, 2, 4), Size(16, 2, 2), GRID.patch, options)


def drawn(num=4):
    rng = torch.Generator().manual_seed(1)
    patches = torch.randn(num, GRID.num_patches, 16, generator=rng)
    return patches, draw("random", grid=GRID, batch_size=num, mask_ratio=0.75, rng=rng)


def test_a_prediction_by_cross_attention_does_not_depend_on_the_others():
    model, (patches, mask) = made(**CROSS).eval(), drawn()
    every = model(patches, GRID, mask).per_patch
    some = Mask(mask.visible, mask.masked[:, 2:5])
    torch.testing.assert_close(model(patches, GRID, some).per_patch, every[:, 2:5])
    of_self = made().eval()
    assert not torch.allclose(of_self(patches, GRID, mask).per_patch[:, 2:5], every[:, 2:5])


@pytest.mark.parametrize(("share", "number"), [(0.5, 9), (0.01, 1), (1.0, 18)])
def test_a_training_step_predicts_that_share_of_the_masked_patches(share, number):
    model, (patches, mask) = made(decoder="cross", decoded_share=share), drawn()
    whole = model.eval()(patches, GRID, mask).per_patch
    model.train()
    torch.manual_seed(3)
    one, other = model(patches, GRID, mask), model(patches, GRID, mask)
    there = ~one.per_patch.isnan()
    assert there.sum(dim=1).tolist() == [number] * 4
    torch.testing.assert_close(one.per_patch[there], whole[there])
    torch.testing.assert_close(one.value.detach(), one.per_patch[there].mean())
    if share < 1:
        assert not torch.equal(there, ~other.per_patch.isnan())  # drawn anew
        assert len({tuple(row) for row in there.tolist()}) > 1  # and for each sample


def test_padding_is_no_part_of_the_loss_of_those_predicted():
    model, (patches, mask) = made(**CROSS), drawn()
    valid = torch.zeros(4, GRID.num_patches, dtype=torch.bool)
    valid[:, ::2] = True
    loss = model(patches, GRID, mask, valid)
    counts = valid.gather(1, mask.masked) & ~loss.per_patch.isnan()
    torch.testing.assert_close(loss.value.detach(), loss.per_patch[counts].mean())


@pytest.mark.parametrize("options", [CROSS, {"decoder": "cross"}, CROSS | {"agreement": 0.3}, {"agreement": 0.3}])
def test_options_train_every_parameter_and_cost_what_torch_counts(options):
    model, (patches, mask) = made(**options), drawn()
    with FlopCounterMode(display=False) as counter:
        loss = model(patches, GRID, mask)
    loss.value.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())
    counted = 4 * sum(part_of(each).forward for each in model.cost(6, 18).passes)
    between_clips = 2 * 4 * 4 * 256 if "agreement" in options else 0
    assert counter.get_total_flops() == counted + between_clips


def test_agreement_adds_to_the_loss_by_its_weight():
    patches, mask = drawn()
    torch.manual_seed(5)
    plain = made()(patches, GRID, mask).value
    added = []
    for weight in (0.5, 1.0):
        model = made(agreement=weight)
        torch.manual_seed(5)
        added.append((model(patches, GRID, mask).value - plain).item())
    assert added[1] == pytest.approx(2 * added[0], rel=1e-4) and added[0] > 0.1


@torch.no_grad()
def test_agreement_knows_nothing_at_ln_b_and_everything_near_zero():
    torch.manual_seed(0)
    agree, features = Agreement(8, temperature=0.05), torch.randn(16, 8) * 3
    assert float(agree(features, features)) < 0.1 * math.log(16)
    assert float(agree(features[:1].expand(16, 8), features[:1].expand(16, 8))) == pytest.approx(math.log(16))
    assert float(agree(features, features)) < float(agree(features, features.roll(1, dims=0)))
    assert float(agree(features[:1], features[:1])) == 0


def test_the_other_patches_are_masked_ones_and_padding_last():
    _, mask = drawn()
    masked = mask.as_bool()
    other = other_patches(mask, None)
    assert other.shape == (4, 6) and masked.gather(1, other).all() and (other.diff(dim=1) > 0).all()
    valid = torch.zeros_like(masked)
    valid[:, :12] = True
    enough = (masked & valid).sum(dim=1)
    found = valid.gather(1, other_patches(mask, valid)).sum(dim=1)
    assert torch.equal(found, enough.clamp(max=6))


def test_mean_features_leave_padding_out():
    features, index = torch.tensor([[[1.0], [3.0], [8.0]]]), torch.tensor([[0, 2, 4]])
    valid = torch.tensor([[True, True, True, True, False]])
    assert mean_features(features, index, valid).tolist() == [[2.0]]
    assert mean_features(features, index, None).tolist() == [[4.0]]
    assert mean_features(features, index, ~torch.ones_like(valid)).tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoded_share": 0.5}, 'needs the decoder "cross"'),
        ({"decoder": "cross", "decoded_share": 0.0}, r"share in \(0, 1\]"),
        ({"agreement": -1.0}, "at least 0"),
        ({"temperature": 0.0}, "positive"),
    ],
)
def test_options_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        MSMMAE.Options(**changes)


def test_a_strategy_that_learns_from_every_error_refuses_a_share():
    recipe = RECIPES["micro-msm-mae"]
    with pytest.raises(ValueError, match="set decoded_share 1"):
        dataclasses.replace(recipe, strategy="hard", framework_options=CROSS)
    dataclasses.replace(recipe, strategy="hard", framework_options={"decoder": "cross"})
    dataclasses.replace(recipe, strategy="dwm", framework_options=CROSS)
