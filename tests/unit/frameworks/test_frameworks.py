"""What every framework does: excludes padding from the loss, trains all its parameters, refuses bad settings."""

import pytest
import torch

from melmask.frameworks import FRAMEWORKS, Framework, framework_class, make_framework, outline
from melmask.frameworks.base import mean_over_valid
from melmask.nn.vit import Block, Size
from melmask.types import Mask, PatchGrid

pytestmark = pytest.mark.numerical

GRID = PatchGrid(2, 5)
CROSS = (("decoder", "cross"),)
each = pytest.mark.parametrize("framework", FRAMEWORKS)
MASK = Mask(
    visible=torch.tensor([[0, 3, 6], [1, 2, 5]]), masked=torch.tensor([[1, 2, 4, 5, 7, 8, 9], [0, 3, 4, 6, 7, 8, 9]])
)
# Of the first sample the last two steps in time are padding (patches 3, 4, 8, 9), of which patch 3 is visible.
VALID = torch.tensor([[True, True, True, False, False] * 2, [True] * 10])


def made(framework: str, **settings) -> Framework:
    torch.manual_seed(0)
    return make_framework(framework, Size(32, 2, 4), Size(16, 1, 2), (4, 4), **settings)


@each
def test_the_loss_is_the_mean_over_valid_masked_patches(framework):
    model, patches = made(framework), torch.randn(2, 10, 16)
    loss = model(patches, GRID, MASK, VALID)
    counted = [loss.per_patch[s, k] for s in range(2) for k, i in enumerate(MASK.masked[s].tolist()) if VALID[s, i]]
    assert len(counted) == 11
    assert float(loss.value.detach()) == pytest.approx(float(torch.stack(counted).mean()), rel=1e-5)
    without = model(patches, GRID, MASK)
    assert float(without.value.detach()) == pytest.approx(float(without.per_patch.mean()), rel=1e-5)
    assert torch.equal(loss.per_patch, without.per_patch)
    assert torch.equal(model(patches, GRID, MASK, torch.ones_like(VALID)).value, without.value)


def test_masked_padding_of_any_content_leaves_the_loss_of_msm_mae_alone():
    model, patches = made("msm-mae"), torch.randn(2, 10, 16)
    changed = patches.clone()
    changed[0, [4, 8, 9]] = 1e3
    assert torch.equal(model(patches, GRID, MASK, VALID).value, model(changed, GRID, MASK, VALID).value)
    assert not torch.equal(model(patches, GRID, MASK).value, model(changed, GRID, MASK).value)


@each
def test_a_batch_of_padding_alone_has_no_loss_and_no_gradient(framework):
    model = made(framework)
    loss = model(torch.zeros(2, 10, 16), GRID, MASK, torch.zeros_like(VALID))
    assert float(loss.value.detach()) == 0.0
    loss.value.backward()
    assert all((p.grad == 0).all() for p in model.parameters() if p.grad is not None)


def test_the_mean_over_valid_counts_patches_and_not_samples():
    per_patch = torch.tensor([[1.0] * 7, [3.0] * 7])
    assert float(mean_over_valid(per_patch, MASK, VALID)) == pytest.approx((4 * 1 + 7 * 3) / 11)


@each
def test_the_gradient_reaches_every_trained_parameter(framework):
    model = made(framework)
    model(torch.randn(2, 10, 16), GRID, MASK).value.backward()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None and "encoder" not in name
        else:
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, f"no gradient at {name}"


@each
def test_a_few_steps_lower_the_loss(framework):
    model, patches = made(framework), torch.randn(2, 10, 16)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for step in range(30):
        loss = model(patches, GRID, MASK)
        optimiser.zero_grad()
        loss.value.backward()
        optimiser.step()
        model.after_step(step / 30)
        losses.append(float(loss.value.detach()))
    assert losses[-1] < 0.8 * losses[0]


@each
def test_featureless_input_has_a_finite_loss_and_gradient(framework):
    model = made(framework)
    loss = model(torch.full((2, 10, 16), -1.7), GRID, MASK)
    loss.value.backward()
    assert loss.value.isfinite() and loss.per_patch.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@each
def test_losses_are_float32_under_autocast(framework):
    model = made(framework)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(torch.randn(2, 10, 16), GRID, MASK, VALID)
    assert loss.value.dtype == loss.per_patch.dtype == torch.float32


@each
def test_recomputed_activations_change_neither_loss_nor_gradients(framework):
    """Every trained block runs twice, those of the target encoder once."""
    results, patches = [], torch.randn(2, 10, 16)
    for recomputed in (False, True):
        model, runs = made(framework, checkpoint_activations=recomputed), []
        for name, module in model.named_modules():
            if isinstance(module, Block):
                module.register_forward_pre_hook(lambda *_, name=name, runs=runs: runs.append(name))
        loss = model(patches, GRID, MASK)
        loss.value.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        trained = [name for name in runs if not name.startswith("target")]
        assert len(trained) == len(set(trained)) * (2 if recomputed else 1)
        assert len(runs) - len(trained) == len({name for name in runs if name.startswith("target")})
        results.append((loss.value, *gradients))
    assert all(torch.equal(kept, again) for kept, again in zip(*results, strict=True))


@each
def test_a_longer_input_needs_no_new_weights(framework):
    grid = PatchGrid(2, 30)
    order = torch.arange(60).expand(2, -1)
    loss = made(framework)(torch.randn(2, 60, 16), grid, Mask(visible=order[:, :20], masked=order[:, 20:]))
    assert loss.per_patch.shape == (2, 40) and loss.value.isfinite()


@each
def test_every_encoder_is_of_the_recipes_size_and_the_online_one_is_trained(framework):
    encoders = made(framework).encoders()
    assert all(encoder.size == Size(32, 2, 4) for encoder in encoders.values())
    assert all(p.requires_grad for p in encoders["online"].parameters())
    assert not any(p.requires_grad for name in set(encoders) - {"online"} for p in encoders[name].parameters())


@each
def test_a_reconstruction_keeps_visible_patches(framework):
    model, patches = made(framework), torch.randn(2, 10, 16)
    rebuilt = model.reconstruct(patches, GRID, MASK)
    assert (rebuilt is None) == (not model.reconstruction_note)
    if rebuilt is not None:
        visible = MASK.visible[:, :, None].expand(-1, -1, 16)
        assert torch.equal(rebuilt.gather(1, visible), patches.gather(1, visible))
        assert not torch.equal(rebuilt, patches) and not rebuilt.requires_grad


@each
def test_an_outline_has_the_shapes_and_no_weights(framework):
    model, shapes = made(framework), outline(framework, Size(32, 2, 4), Size(16, 1, 2), (4, 4))
    assert {n: p.shape for n, p in model.named_parameters()} == {n: p.shape for n, p in shapes.named_parameters()}
    assert all(p.is_meta for p in shapes.parameters())


@pytest.mark.parametrize(("framework", "options"), [*((name, ()) for name in FRAMEWORKS), ("msm-mae", CROSS)])
def test_an_outline_draws_no_normal_values(framework, options, monkeypatch):
    """On the meta device ``normal_`` imports torch's compiler, which takes seconds."""
    outline.cache_clear()
    monkeypatch.setattr(torch.Tensor, "normal_", None)
    assert all(p.is_meta for p in outline(framework, Size(32, 2, 4), Size(16, 1, 2), (4, 4), options).parameters())


def test_a_framework_from_outside_must_be_one():
    with pytest.raises(ValueError, match=r"subclass of melmask\.frameworks\.Framework"):
        framework_class("collections:OrderedDict")
    with pytest.raises(TypeError, match="abstract"):  # what a subclass has forgotten is named
        type("Unfinished", (Framework,), {})(Size(32, 1, 2), Size(16, 1, 2), (4, 4))


def test_unknown_names_and_options_are_refused(as_for_users):
    with pytest.raises(ValueError, match=r"no framework 'mae': did you mean msm-mae\? there are: m2d, msm-mae"):
        make_framework("mae", Size(32, 1, 2), Size(16, 1, 2), (4, 4))
    with pytest.raises(ValueError, match='over a "patch" or the "batch", got \'feature\''):
        make_framework("m2d", Size(32, 1, 2), Size(16, 1, 2), (4, 4), {"standardise": "feature"})
    with pytest.raises(ValueError, match='is an "encoder" or "blocks" of its own, got \'norm\''):
        make_framework("m2d", Size(32, 1, 2), Size(16, 1, 2), (4, 4), {"target": "norm"})
