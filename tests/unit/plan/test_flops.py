"""Operations: equal to what torch counts in a forward and a backward pass, part by part."""

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from melmask.frameworks.base import MaskedDecoder
from melmask.frameworks.cross import CrossDecoder
from melmask.masking import STRATEGIES, draw
from melmask.plan.flops import ADAMW_OPERATIONS, TokenCounts, muon_flops, num_parameters, step_flops
from melmask.train.masker import guide_of
from melmask.train.optimiser import make_optimiser, muon_matrices
from melmask.train.recipe import RECIPES, Recipe
from melmask.types import Mask

BATCH, NUM_MELS = 2, 80
BOTH = ("muon", "adamw")
COUNTED = ("micro-m2d", "micro-msm-mae", "tiny-m2d", "tiny-msm-mae")


def recipe(name: str, **changes) -> Recipe:
    return dataclasses.replace(RECIPES[name], **{"batch_size": BATCH, "accumulate": 1, **changes})


def counted(run) -> int:
    """What torch counts of a call, for one sample."""
    with FlopCounterMode(display=False) as counter:
        run()
    total = counter.get_total_flops()
    assert total % BATCH == 0
    return total // BATCH


def input_of(made: Recipe) -> tuple:
    """Patches, their grid, and a mask."""
    rng, grid = torch.Generator().manual_seed(0), made.grid(NUM_MELS)
    patches = torch.randn(BATCH, grid.num_patches, made.patch_values, generator=rng)
    return patches, grid, draw("random", grid=grid, batch_size=BATCH, mask_ratio=made.mask_ratio, rng=rng)


def parts_of(made: Recipe) -> dict:
    return {part.name: part for part in step_flops(made, NUM_MELS).parts}


@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("name", COUNTED)
def test_a_step_takes_exactly_what_torch_counts(name, recomputed):
    made = recipe(name, checkpoint_activations=recomputed)
    model, given = made.make_model(), input_of(made)
    loss = []
    forward = counted(lambda: loss.append(model(*given)))
    backward = counted(loss[0].value.backward)
    step = step_flops(made, NUM_MELS)
    assert forward == sum(part.forward for part in step.parts)
    assert backward == sum(part.backward for part in step.parts)
    assert step.per_step == BATCH * (forward + backward) + step.optimiser
    assert ("blocks again" in parts_of(made)) == recomputed


@pytest.mark.parametrize("iterations", [1, 3])
def test_muon_takes_exactly_the_products_that_torch_counts(iterations):
    """And the elementary operations of `muon_flops`, which are far fewer."""
    made = recipe("tiny-msm-mae", optimiser="muon", muon_iterations=iterations, precision="float32")
    model = made.make_model()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser = make_optimiser(model, made)
    with FlopCounterMode(display=False) as counter:
        optimiser.step()
    products, by_muon = counter.get_total_flops(), muon_matrices(model, made)
    estimated = sum(muon_flops(p, parts, iterations) for p, parts in by_muon.items())
    assert products < estimated < 1.05 * products
    muon, adamw = (step_flops(dataclasses.replace(made, optimiser=name), NUM_MELS).optimiser for name in BOTH)
    assert muon - adamw == estimated - ADAMW_OPERATIONS * sum(p.numel() for p in by_muon)


@pytest.mark.parametrize("name", COUNTED)
def test_every_part_takes_exactly_what_torch_counts(name):
    made, parts = recipe(name), parts_of(recipe(name))
    model, (patches, grid, mask) = made.make_model(), input_of(made)
    latent = model.encoder(patches, grid, mask.visible).detach()
    assert parts["encoder"].forward == counted(lambda: model.encoder(patches, grid, mask.visible))
    (decoder,) = (module for module in model.modules() if isinstance(module, MaskedDecoder | CrossDecoder))
    decoded = parts.get("predictor") or parts["decoder"]
    share = made.framework_options.get("decoded_share", 1.0)
    predicted = Mask(mask.visible, mask.masked[:, : round(share * mask.masked.shape[1])])
    assert decoded.forward == counted(lambda: decoder(latent, grid, predicted))
    assert ("target" in parts) == ("ema" in model.encoders())
    if "ema" in model.encoders():
        assert parts["target"].total == counted(lambda: model.encoders()["ema"](patches, grid, mask.masked))
    num_decoded = grid.num_patches + 1 if isinstance(decoder, MaskedDecoder) else predicted.masked.shape[1]
    assert [part.num_tokens for part in parts.values()][:2] == [mask.visible.shape[1] + 1, num_decoded]


@pytest.mark.parametrize("strategy", [name for name, made in STRATEGIES.items() if made().needs.guide != "nothing"])
def test_a_strategy_takes_exactly_what_torch_counts(strategy):
    made = recipe("micro-m2d", strategy=strategy)
    model, (patches, grid, _), parts = made.make_model(), input_of(made), parts_of(made)
    chosen = made.make_strategy()
    losses, guides = torch.rand(BATCH, grid.num_patches, 1), []
    taken = counted(lambda: guides.append(guide_of(chosen.needs, model.encoders(), patches, grid, losses)))
    assert taken == (parts["guide pass"].total if "guide pass" in parts else 0)
    assert (taken > 0) == (strategy in ("sgim", "attention"))
    ranked = counted(
        lambda: draw(
            chosen, grid=grid, batch_size=BATCH, mask_ratio=made.mask_ratio, rng=torch.Generator(), guide=guides[0]
        )
    )
    assert ranked == (parts["ranking"].total if "ranking" in parts else 0)


@pytest.mark.parametrize(("name", "strategy", "more"), [
    ("base-m2d", "sgim", 0.40), ("base-msm-mae", "sgim", 1.01),
    ("base-m2d", "attention", 0.38), ("base-msm-mae", "attention", 0.94),
])  # fmt: skip
def test_a_pass_over_all_patches_costs_two_fifths_of_m2d_and_as_much_again_as_msm_mae(name, strategy, more):
    plain, guided = (step_flops(recipe(name, strategy=chosen), NUM_MELS) for chosen in ("random", strategy))
    assert guided.per_sample / plain.per_sample - 1 == pytest.approx(more, abs=0.005)


def test_larger_settings_take_more_operations():
    def of(**changes):
        return step_flops(recipe("micro-m2d", **changes), NUM_MELS).per_sample

    longer, wider, deeper = of(crop_frames=192), of(size="shallow"), of(decoder_depth=2)
    assert min(longer, wider, deeper) > of()
    assert (
        parts_of(recipe("micro-m2d", mask_ratio=0.5))["encoder"].total > parts_of(recipe("micro-m2d"))["encoder"].total
    )
    assert step_flops(recipe("micro-m2d", accumulate=2), NUM_MELS) == step_flops(recipe("micro-m2d"), NUM_MELS)


@pytest.mark.parametrize("name", COUNTED)
def test_parameters_are_counted_without_allocating_them(name):
    model = RECIPES[name].make_model()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    averaged = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    assert num_parameters(RECIPES[name]) == (trained, averaged)


def test_visible_and_masked_patches_sum_to_all():
    made = RECIPES["base-m2d"]
    assert TokenCounts.of(made, made.grid(NUM_MELS)) == TokenCounts(all=190, visible=57, masked=133)
