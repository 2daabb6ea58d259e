"""The encoder: against transformers' ViT with the same weights, on any subset of patches and any grid.

Two forms of one formula are compared in float64.
"""

import pytest
import torch
from transformers import ViTConfig, ViTModel

from bounds import assert_sums_close
from melmask.nn.vit import LAYER_NORM_EPS, SIZES, Encoder, Positions, Size
from melmask.patches import sincos_positions
from melmask.types import PatchGrid

pytestmark = pytest.mark.numerical

GRID = PatchGrid(4, 4)
HF_BLOCK = {
    "norm1": "layernorm_before", "norm2": "layernorm_after", "attn.proj": "attention.o_proj",
    "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
}  # fmt: skip


def as_transformers(encoder: Encoder) -> dict[str, torch.Tensor]:
    """The encoder's weights under the names of transformers' ViT."""
    ours, theirs = encoder.state_dict(), {}
    dim, (freq, time) = encoder.size.dim, encoder.patch_shape
    theirs["embeddings.cls_token"] = ours["cls_token"]
    theirs["embeddings.position_embeddings"] = torch.cat(
        [torch.zeros(1, 1, dim), sincos_positions(GRID, dim)[None]], dim=1
    )
    theirs["embeddings.patch_embeddings.projection.weight"] = ours["patch_embed.proj.weight"].view(dim, 1, freq, time)
    theirs["embeddings.patch_embeddings.projection.bias"] = ours["patch_embed.proj.bias"]
    for kind in ("weight", "bias"):
        theirs[f"layernorm.{kind}"] = ours[f"norm.{kind}"]
        for i in range(encoder.size.depth):
            for own, other in HF_BLOCK.items():
                theirs[f"layers.{i}.{other}.{kind}"] = ours[f"blocks.{i}.{own}.{kind}"]
            parts = ours[f"blocks.{i}.attn.qkv.{kind}"].chunk(3)
            for part, weight in zip("qkv", parts, strict=True):
                theirs[f"layers.{i}.attention.{part}_proj.{kind}"] = weight
    return theirs


def randomised(encoder: Encoder) -> Encoder:
    """Random biases and norms, so that a swapped one shows."""
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(parameter)))
    return encoder


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    return randomised(Encoder(Size(dim=32, depth=3, heads=4), (8, 8))).eval()


@pytest.fixture
def encoder64(encoder) -> Encoder:
    return encoder.double()


@pytest.mark.parametrize("training", [False, True])  # attention has another form with gradients
def test_the_encoder_is_transformers_vit(encoder64, training):
    config = ViTConfig(
        image_size=32, patch_size=8, num_channels=1, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=128, layer_norm_eps=LAYER_NORM_EPS,
    )  # fmt: skip
    reference = ViTModel(config, add_pooling_layer=False).double().eval()
    reference.load_state_dict(as_transformers(encoder64), strict=True)
    image = torch.randn(3, 1, 32, 32, dtype=torch.float64)
    patches = image.view(3, 4, 8, 4, 8).transpose(2, 3).reshape(3, 16, 64)
    with torch.set_grad_enabled(training):
        theirs, ours = reference(image).last_hidden_state, encoder64(patches, GRID)
    assert ours.shape == (3, 17, 32)
    torch.testing.assert_close(ours, theirs)


def test_class_attention_is_that_of_transformers_last_layer(encoder64):
    """Ours and theirs take the softmax in float32: scores below 8 in size, and 17 terms each."""
    config = ViTConfig(
        image_size=32, patch_size=8, num_channels=1, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=128, layer_norm_eps=LAYER_NORM_EPS, attn_implementation="eager",
    )  # fmt: skip
    reference = ViTModel(config, add_pooling_layer=False).double().eval()
    reference.load_state_dict(as_transformers(encoder64), strict=True)
    image = torch.randn(3, 1, 32, 32, dtype=torch.float64)
    patches = image.view(3, 4, 8, 4, 8).transpose(2, 3).reshape(3, 16, 64)
    theirs = reference(image, output_attentions=True).attentions[-1]  # [b, h, query, key]
    ours = encoder64.class_attention(patches, GRID)
    assert ours.shape == (3, 16, 4)
    expected = theirs[:, :, 0, 1:].transpose(1, 2)
    assert_sums_close(ours, expected, expected, 2 * (17 + 2 * 8))


def test_a_subset_is_encoded_as_an_input_of_its_own(encoder64):
    grid, encoder = PatchGrid(5, 7), encoder64
    patches = torch.randn(3, 35, 64, dtype=torch.float64)
    index = torch.stack([torch.randperm(35)[:11].sort().values for _ in range(3)])
    chosen = encoder(patches, grid, index)
    assert chosen.shape == (3, 12, 32)
    for sample in range(3):
        # By hand: embed only these, at their own places in the grid, and run the blocks.
        tokens = encoder.patch_embed(patches[sample : sample + 1, index[sample]])
        tokens = tokens + sincos_positions(grid, 32)[index[sample]]
        tokens = torch.cat([encoder.cls_token, tokens], dim=1)
        for block in encoder.blocks:
            tokens = block(tokens)
        torch.testing.assert_close(chosen[sample], encoder.norm(tokens)[0])
    everything = torch.arange(35).expand(3, -1)
    assert torch.equal(encoder(patches, grid, everything), encoder(patches, grid))


def test_the_order_of_the_subset_is_the_order_of_the_output(encoder64):
    patches, index = torch.randn(1, 16, 64, dtype=torch.float64), torch.tensor([[2, 5, 11]])
    forward, backward = encoder64(patches, GRID, index), encoder64(patches, GRID, index.flip(1))
    torch.testing.assert_close(forward[:, 1:], backward[:, 1:].flip(1))


def test_position_matters(encoder):
    patch = torch.randn(1, 1, 64).expand(1, 16, -1)
    assert len(encoder(patch, GRID)[0, 1:].round(decimals=4).unique(dim=0)) == 16
    # The same patches on another layout are something else.
    assert not torch.allclose(encoder(patch, GRID), encoder(patch, PatchGrid(2, 8)), atol=1e-3)


@pytest.mark.parametrize(("freq", "time"), [(1, 1), (1, 50), (5, 13), (12, 101)])
def test_input_of_any_length_is_encoded(encoder, freq, time):
    grid = PatchGrid(freq, time)
    assert encoder(torch.randn(1, grid.num_patches, 64), grid).isfinite().all()


def test_positions_cached_in_inference_mode_can_be_trained_with(encoder):
    grid = PatchGrid(3, 17)
    with torch.inference_mode():
        encoder(torch.randn(1, 51, 64), grid)
    encoder(torch.randn(1, 51, 64), grid).sum().backward()
    assert not Positions(32)(grid, torch.zeros(1)).is_inference()


def test_parameters_are_named_as_in_timm():
    names = {"cls_token", "patch_embed.proj.weight", "patch_embed.proj.bias", "norm.weight", "norm.bias"}
    for i in range(2):
        for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"):
            names |= {f"blocks.{i}.{part}.weight", f"blocks.{i}.{part}.bias"}
    assert set(Encoder(SIZES["micro"], (16, 16)).state_dict()) == names


def test_a_fresh_encoder_is_xavier_with_zero_biases():
    torch.manual_seed(0)
    encoder = Encoder(SIZES["tiny"], (16, 16))
    for name, parameter in encoder.named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all()
        elif "norm" in name:
            assert (parameter == 1).all()
        elif name != "cls_token":
            bound = (6 / sum(parameter.shape)) ** 0.5
            assert 0.98 * bound < float(parameter.detach().abs().max()) <= bound
    assert 0.01 < float(encoder.cls_token.detach().std()) < 0.03


def test_bfloat16_autocast_stays_close(encoder):
    patches = torch.randn(2, 16, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        cast = encoder(patches, GRID, torch.tensor([[0, 3, 9], [1, 2, 15]]))
    exact = encoder(patches, GRID, torch.tensor([[0, 3, 9], [1, 2, 15]]))
    assert torch.nn.functional.cosine_similarity(cast.float(), exact, dim=2).min() > 0.99


@pytest.mark.parametrize(("dim", "depth", "heads"), [(30, 1, 2), (32, 1, 3), (32, 0, 2)])
def test_impossible_sizes_are_refused(dim, depth, heads):
    with pytest.raises(ValueError, match="multiple of 4 and of the heads, depth at least 1"):
        Size(dim, depth, heads)
