"""MSM-MAE against transformers' ViTMAE: same weights, same image, same mask; same predictions, loss and gradients.

The networks are compared in float64. The loss is in float32 whatever the model's type, and so is what comes back of it.
"""

import pytest
import torch
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from bounds import assert_chain_close
from melmask.frameworks import MSMMAE
from melmask.nn.vit import LAYER_NORM_EPS, Size
from melmask.patches import patchify, sincos_positions
from melmask.types import Mask, PatchGrid

pytestmark = pytest.mark.numerical

GRID, PATCH, ENCODER, DECODER = PatchGrid(4, 4), (8, 8), Size(32, 2, 4), Size(16, 2, 2)
BLOCK = {
    "norm1": "layernorm_before", "norm2": "layernorm_after", "attn.proj": "attention.o_proj",
    "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
}  # fmt: skip


def blocks_as_transformers(ours: dict[str, torch.Tensor], own: str, other: str, depth: int) -> dict[str, torch.Tensor]:
    """The blocks' weights under the names of transformers: the joint qkv taken apart."""
    theirs = {}
    for i in range(depth):
        for kind in ("weight", "bias"):
            for name, their_name in BLOCK.items():
                theirs[f"{other}.{i}.{their_name}.{kind}"] = ours[f"{own}.{i}.{name}.{kind}"]
            for part, weight in zip("qkv", ours[f"{own}.{i}.attn.qkv.{kind}"].chunk(3), strict=True):
                theirs[f"{other}.{i}.attention.{part}_proj.{kind}"] = weight
    return theirs


def as_transformers(model: MSMMAE) -> dict[str, torch.Tensor]:
    """The model's weights under the names of transformers' ViTMAE, positions included."""
    ours = model.state_dict()
    theirs = blocks_as_transformers(ours, "encoder.blocks", "vit.layers", ENCODER.depth)
    theirs |= blocks_as_transformers(ours, "decoder.blocks", "decoder.decoder_layers", DECODER.depth)
    for kind in ("weight", "bias"):
        theirs[f"vit.layernorm.{kind}"] = ours[f"encoder.norm.{kind}"]
        for own, other in (("embed", "decoder_embed"), ("norm", "decoder_norm"), ("pred", "decoder_pred")):
            theirs[f"decoder.{other}.{kind}"] = ours[f"decoder.{own}.{kind}"]
    theirs["vit.embeddings.cls_token"] = ours["encoder.cls_token"]
    theirs["decoder.mask_token"] = ours["decoder.mask_token"]
    theirs["vit.embeddings.patch_embeddings.projection.weight"] = ours["encoder.patch_embed.proj.weight"].view(
        ENCODER.dim, 1, *PATCH
    )
    theirs["vit.embeddings.patch_embeddings.projection.bias"] = ours["encoder.patch_embed.proj.bias"]
    for name, dim in (("vit.embeddings.position_embeddings", 32), ("decoder.decoder_pos_embed", 16)):
        theirs[name] = torch.cat([torch.zeros(1, 1, dim), sincos_positions(GRID, dim)[None]], dim=1)
    return theirs


@pytest.fixture
def pair() -> tuple[MSMMAE, ViTMAEForPreTraining]:
    torch.manual_seed(0)
    ours = MSMMAE(ENCODER, DECODER, PATCH)
    with torch.no_grad():
        for parameter in ours.parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn_like(parameter)
    config = ViTMAEConfig(
        image_size=32, patch_size=8, num_channels=1, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=128, decoder_hidden_size=16, decoder_num_hidden_layers=2, decoder_num_attention_heads=2,
        decoder_intermediate_size=64, mask_ratio=0.75, norm_pix_loss=True, layer_norm_eps=LAYER_NORM_EPS,
    )  # fmt: skip
    theirs = ViTMAEForPreTraining(config)
    theirs.load_state_dict(as_transformers(ours), strict=True)
    return ours.double(), theirs.double()


@pytest.mark.parametrize("level", [0.0, -7.0])
def test_msm_mae_is_vitmae(pair, level):
    ours, theirs = pair
    image, noise = 4.0 * torch.randn(5, 1, 32, 32, dtype=torch.float64) + level, torch.rand(5, 16)
    order = noise.argsort(dim=1)  # transformers keeps the lowest
    mask = Mask(visible=order[:, :4].sort(dim=1).values, masked=order[:, 4:].sort(dim=1).values)
    predictions = []
    ours.decoder.register_forward_hook(lambda module, args, output: predictions.append(output.detach()))

    loss = ours(patchify(image[:, 0], PATCH), GRID, mask)
    reference = theirs(image, noise=noise)
    expected = reference.logits.gather(1, mask.masked[:, :, None].expand(-1, -1, 64))
    torch.testing.assert_close(predictions[0], expected)
    num_terms = 3 * 64 + 60  # a patch's mean, variance and error, and the 60 masked patches
    assert_chain_close(loss.value, reference.loss, num_terms)

    loss.value.backward()
    reference.loss.backward()
    for own, other in (
        (ours.encoder.patch_embed.proj.weight, theirs.vit.embeddings.patch_embeddings.projection.weight),
        (ours.encoder.cls_token, theirs.vit.embeddings.cls_token),
        (ours.decoder.mask_token, theirs.decoder.mask_token),
        (ours.decoder.pred.weight, theirs.decoder.decoder_pred.weight),
    ):
        # In float32 are only the errors of the predictions; a gradient is a sum over all of these.
        assert_chain_close(own.grad.float(), other.grad.view_as(own), 60 * 64)


def test_the_loss_is_the_error_of_masked_patches_normalised_one_by_one(pair):
    ours, _ = pair
    patches = 3.0 * torch.randn(2, 16, 64, dtype=torch.float64) - 7.0
    mask = Mask(visible=torch.tensor([[0, 5, 9], [3, 4, 15]]), masked=torch.zeros(2, 13, dtype=torch.long))
    for sample in range(2):
        rest = [i for i in range(16) if i not in mask.visible[sample].tolist()]
        mask.masked[sample] = torch.tensor(rest)
    predictions = []
    ours.decoder.register_forward_hook(lambda module, args, output: predictions.append(output.detach()))
    loss = ours(patches, GRID, mask)
    for sample in range(2):
        for place, i in enumerate(mask.masked[sample].tolist()):
            patch = patches[sample, i]
            target = (patch - patch.mean()) / patch.std()
            error = (predictions[0][sample, place] - target).square().mean()
            assert_chain_close(loss.per_patch[sample, place], error, 3 * 64)
    assert_chain_close(loss.value, loss.per_patch.double().mean(), 26)
