"""What published files may hold, and what is said of those that are refused."""

import argparse
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from transformers import ViTMAEConfig, ViTMAEForPreTraining

import melmask
from melmask.files import write_tensors
from melmask.nn.encoder_file import EncoderFile
from melmask.nn.published import Unstated, read_published
from melmask.patches import patchify, sincos_positions
from melmask.types import PatchGrid
from published import published_tensors, save_published, table


@pytest.fixture
def tensors():
    return published_tensors("encoder")


def the_same(path: Path, tensors) -> bool:
    """Whether a file's encoder has these weights."""
    state = EncoderFile.load(path).encoder.state_dict()
    same = torch.equal(state["blocks.1.mlp.fc2.weight"], tensors["blocks.1.mlp.fc2.weight"])
    return same and torch.equal(state["patch_embed.proj.weight"], tensors["patch_embed.proj.weight"].flatten(1))


def test_what_training_scripts_save_beside_the_weights_is_no_hindrance(tensors, tmp_path):
    arguments = argparse.Namespace(lr=0.1, output_dir=Path("out"))
    optimiser = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}
    saved = {"model": tensors, "optimizer": optimiser, "epoch": 300, "args": arguments}
    torch.save(saved, tmp_path / "a.pth")
    assert the_same(tmp_path / "a.pth", tensors)


@pytest.mark.parametrize("prefix", ["", "module.", "encoder.", "module.ar.runtime.backbone."])
def test_weights_may_stand_alone_and_under_a_prefix(prefix, tensors, tmp_path):
    named = {prefix + name: tensor for name, tensor in tensors.items()}
    torch.save(named, tmp_path / "a.pth")
    write_tensors(tmp_path / "b.safetensors", named, {})
    assert the_same(tmp_path / "a.pth", tensors) and the_same(tmp_path / "b.safetensors", tensors)


def test_half_precision_becomes_single(tensors, tmp_path):
    path = save_published(tmp_path / "a.pth", {name: tensor.half() for name, tensor in tensors.items()})
    found = read_published(path).encoder
    assert found.positions.order == "time-freq" and found.norm.weight.dtype == torch.float32


def test_what_is_left_out_is_named(tensors, tmp_path):
    path = save_published(
        tmp_path / "a.pth", tensors | {"head.weight": torch.zeros(2, 2), "audio_proj.0": torch.zeros(1)}
    )
    with pytest.warns(UserWarning, match=r"left out: head\.weight, audio_proj\.0"):
        assert the_same(path, tensors)


def test_statistics_of_the_file_are_taken(tensors, tmp_path):
    torch.save({"model": tensors, "norm_stats": torch.tensor([-5.5, 2.5])}, tmp_path / "a.pth")
    front_end = EncoderFile.load(tmp_path / "a.pth").front_end
    assert (front_end.mean, front_end.std) == (-5.5, 2.5)
    given = EncoderFile.of_published(tmp_path / "a.pth", Unstated(mean=-1.0, std=2.0)).front_end
    assert (given.mean, given.std) == (-1.0, 2.0)


def test_other_heads_and_mel_bands_can_be_said(tmp_path):
    path = save_published(tmp_path / "a.pth", published_tensors("encoder", dim=32, num_mels=64))
    with pytest.raises(ValueError, match=r"heads of an encoder 32 wide.*melmask import` with --heads"):
        read_published(path, Unstated(num_mels=64))
    with pytest.raises(ValueError, match=r"24 positions are no multiple of the 5 patches in 80 mel bands.*--num-mels"):
        read_published(path, Unstated(heads=2))
    found = read_published(path, Unstated(heads=2, num_mels=64))
    assert (found.encoder.size.heads, found.spec.num_mels, found.crop_frames) == (2, 64, 96)


def test_without_a_table_the_length_must_be_said(tensors, tmp_path):
    del tensors["pos_embed"]
    path = save_published(tmp_path / "a.pth", tensors)
    with pytest.raises(ValueError, match=r"no pos_embed to say the length of input.*--crop-frames"):
        read_published(path)
    assert read_published(path, Unstated(crop_frames=200)).crop_frames == 200
    found = read_published(save_published(tmp_path / "m2d-80x208p16x16.pth", tensors))
    assert found.crop_frames == 208 and found.encoder.positions.order == "time-freq"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"norm.weight": None, "blocks.0.attn.qkv.bias": None}, r"missing: blocks\.0\.attn\.qkv\.bias, norm\.weight"),
        ({"cls_token": None}, "missing: cls_token"),
        ({"blocks.0.ls1.gamma": torch.ones(128)}, r"another encoder than a plain ViT: blocks\.0\.ls1\.gamma"),
        ({"blocks.0.mlp.fc1.bias": torch.ones(3)}, r"shapes: blocks\.0\.mlp\.fc1\.bias \[3\] in place of \[512\]"),
        ({"blocks.3.norm1.bias": torch.ones(128)}, r"blocks 0 to N are needed, there are \[0, 1, 3\]"),
        ({"patch_embed.proj.weight": None}, "one vision transformer.*it holds none"),
        ({"a.patch_embed.proj.weight": torch.ones(1)}, "one vision transformer.*it holds several"),
        ({"patch_embed.proj.weight": torch.ones(128, 3, 16, 16)}, r"\[128, 3, 16, 16\]: a convolution of one channel"),
        ({"pos_embed": torch.randn(1, 31, 128)}, "not the fixed sine-cosine table of 5 x 6 patches: learnt"),
        ({"norm_stats": torch.ones(3)}, "norm_stats should hold two numbers"),
    ],
)
def test_what_is_wrong_is_named(change, error, tensors, tmp_path):
    changed = {name: tensor for name, tensor in (tensors | change).items() if tensor is not None}
    path = save_published(tmp_path / "a.pth", changed)
    with pytest.raises(ValueError, match=error):
        melmask.load(path)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ({"model": {"a": Fraction(1, 2)}}, "holds an object of fractions.Fraction, which is not read"),
        ([1, 2], "holds a list, no dict of weights"),
        (b"no weights", "cannot be read as weights that torch.save saved"),
        (b"", "cannot be read as weights that torch.save saved"),
    ],
)
def test_a_file_of_something_else_is_refused(content, error, tmp_path):
    path = tmp_path / "a.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=error):
        melmask.load(path)


def test_a_name_that_contradicts_the_tensors_is_refused(tensors, tmp_path):
    path = save_published(tmp_path / "m2d-80x96p16x4" / "checkpoint-300.pth", tensors)
    with pytest.raises(ValueError, match=r"by its name, patches are \(16, 4\), by its tensors \(16, 16\)"):
        read_published(path)
    path = save_published(tmp_path / "m2d-80x96p16x16p44k.pth", tensors)
    with pytest.raises(ValueError, match="published for 16000, 32000 Hz, not for 44000"):
        read_published(path)


@pytest.mark.parametrize(("high", "wide"), [(32, 128), (128, 32), (64, 64)])
@pytest.mark.parametrize("names", ["as saved", "in memory"])
def test_a_vitmae_of_transformers_gives_the_same_features(high, wide, names, tmp_path):
    """The longer side is time. Tables are set here: transformers' own are of square grids only."""
    config = ViTMAEConfig(
        image_size=(high, wide), patch_size=16, num_channels=1, hidden_size=64, num_hidden_layers=2,
        num_attention_heads=4, intermediate_size=256, decoder_hidden_size=32, decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2, decoder_intermediate_size=128, layer_norm_eps=1e-6, mask_ratio=0.0,
    )  # fmt: skip
    model = ViTMAEForPreTraining(config).eval()
    tables = (model.vit.embeddings.position_embeddings, model.decoder.decoder_pos_embed)
    with torch.no_grad():
        for parameter in set(model.parameters()) - set(tables):
            parameter.copy_(torch.randn(parameter.shape) * (0.3 if parameter.ndim == 1 else 0.1))
        for own in tables:
            own.copy_(table(high // 16, wide // 16, own.shape[2], first="freq" if high == wide else "time"))
    model.save_pretrained(tmp_path / "vitmae")
    if names == "in memory":
        write_tensors(tmp_path / "vitmae" / "model.safetensors", dict(model.state_dict()), {})
    encoder = melmask.load(tmp_path / "vitmae")
    num_mels = min(high, wide)
    assert encoder.encoder.size.heads == 4 and encoder.spec.num_mels == num_mels
    log_mel = torch.randn(2, num_mels, max(high, wide))
    image = log_mel.mT[:, None] if high > wide else log_mel[:, None]
    unmoved = torch.arange(high * wide // 256).repeat(2, 1).float()  # noise by which no patch is moved
    theirs = model.vit(image, noise=unmoved).last_hidden_state
    if high > wide:  # patches in the order (time, freq)
        turned = theirs[:, 1:].unflatten(1, (high // 16, wide // 16)).transpose(1, 2).flatten(1, 2)
        theirs = torch.cat([theirs[:, :1], turned], dim=1)
    ours = encoder.encoder(patchify(log_mel, (16, 16)), PatchGrid(num_mels // 16, max(high, wide) // 16))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    found = read_published(tmp_path / "vitmae")
    assert found.framework == "msm-mae" and found.decoder == (32, 1)
    assert {name.partition(".")[0] for name in found.beside} == {"decoder"} and len(found.beside) == 19


def test_positions_of_time_in_the_first_half_are_the_others_swapped():
    grid = PatchGrid(3, 7)
    first, second = sincos_positions(grid, 16).chunk(2, dim=1)
    assert torch.equal(sincos_positions(grid, 16, "time-freq"), torch.cat([second, first], dim=1))
