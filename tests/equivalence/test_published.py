"""Weights as M2D and MSM-MAE publish them give the features of a slow forward pass that is written from the papers."""

import numpy as np
import pytest
import torch

import melmask
from melmask.frameworks import make_framework
from melmask.logmel import LogMelSpec
from melmask.nn.encoder_file import EncoderFile
from melmask.nn.published import Unstated, read_published
from melmask.nn.vit import Size
from melmask.types import Mask, PatchGrid
from published import Tensors, affine, by_step, features, published_tensors, save_published, table, transformer

FORMS = {
    "m2d_vit_base-80x96p16x16-220930-mr7": ("m2d", (16, 16), 96, 16_000),
    "msm_mae_vit_base-80x96p16x16-220924-mr75": ("msm-mae", (16, 16), 96, 16_000),
    "m2d_vit_base-80x64p16x4-220930-mr7_enconly": ("encoder", (16, 4), 64, 16_000),
    "m2d_s_vit_base-80x40p80x2-230220": ("m2d", (80, 2), 40, 16_000),
    "m2d_as_vit_base-80x97p16x16p32k-240413_enconly": ("encoder", (16, 16), 97, 32_000),
}


def log_mel(num_mels: int, num_frames: int, seed: int = 3) -> np.ndarray:
    """Random log-mel values [frame, mel], as a store holds them."""
    return (-7 + 4 * np.random.default_rng(seed).standard_normal((num_frames, num_mels))).astype(np.float32)


def expected_steps(tensors: Tensors, values: np.ndarray, num_heads: int, mean: float = -7.1, std: float = 4.2):
    num_freq = values.shape[1] // tensors["patch_embed.proj.weight"].shape[2]
    normalised = (values.astype(np.float64).T - mean) / std
    return by_step(features(tensors, normalised, num_heads), num_freq)


@pytest.mark.parametrize("name", FORMS)
def test_the_features_are_those_of_the_paper(name, tmp_path):
    kind, patch, num_frames, rate_hz = FORMS[name]
    tensors = published_tensors(kind, patch, num_frames)
    path = save_published(tmp_path / name / "checkpoint-300.pth", tensors)
    encoder = melmask.load(path)
    assert encoder.name == name and encoder.sample_rate_hz == rate_hz
    assert encoder.encoder.size == Size(128, 2, 2) and encoder.encoder.patch_shape == patch
    assert encoder.crop_frames == num_frames // patch[1] * patch[1]
    assert (encoder.front_end.mean, encoder.front_end.std) == (-7.1, 4.2)
    values = log_mel(80, encoder.crop_frames)
    steps, _ = encoder.frames(values)
    np.testing.assert_allclose(steps, expected_steps(tensors, values, num_heads=2), atol=1e-4)


@pytest.mark.slow
def test_a_base_encoder_of_twelve_blocks(tmp_path):
    tensors = published_tensors("encoder", num_frames=32, dim=768, depth=12)
    encoder = melmask.load(str(save_published(tmp_path / "m2d_vit_base.pth", tensors)))
    assert encoder.encoder.size == Size(768, 12, 12) and encoder.num_dims == 5 * 768
    values = log_mel(80, 32)
    np.testing.assert_allclose(encoder.frames(values)[0], expected_steps(tensors, values, 12), atol=1e-4)


def test_all_tensors_of_a_published_model_are_read(tmp_path):
    tensors = published_tensors("m2d", dim=64, depth=12, decoder=(32, 8), num_frames=608)
    tensors["norm_stats"] = torch.tensor([-6.5, 3.25])
    assert len(tensors) == 401
    found = read_published(save_published(tmp_path / "m2d.pth", tensors))
    assert (found.framework, found.mean, found.std, found.crop_frames) == ("m2d", -6.5, 3.25, 608)
    assert len(found.encoder.state_dict()) + len(found.beside) == 401 - 3  # the tables and the statistics


def test_the_front_ends_are_those_published(tmp_path):
    path = save_published(tmp_path / "m2d-80x96p16x16.pth", published_tensors("encoder"))
    assert EncoderFile.load(path).front_end.spec == LogMelSpec(16_000, 400, 160, 80, 50.0, 8_000.0)
    wide = EncoderFile.of_published(path, Unstated(sample_rate_hz=32_000)).front_end.spec
    assert wide == LogMelSpec(32_000, 800, 320, 80, 50.0, 16_000.0)


@pytest.mark.parametrize(("first", "order"), [("time", "time-freq"), ("freq", "freq-time")])
def test_the_order_of_positions_is_that_of_the_table(first, order, tmp_path):
    tensors = published_tensors("encoder") | {"pos_embed": table(5, 6, 128, first)}
    encoder = melmask.load(save_published(tmp_path / "a.pth", tensors))
    assert encoder.encoder.positions.order == order
    values = log_mel(80, 96)
    np.testing.assert_allclose(encoder.frames(values)[0], expected_steps(tensors, values, 2), atol=1e-4)


def test_positions_in_the_other_order_would_show(tmp_path):
    tensors = published_tensors("encoder")
    encoder, values = melmask.load(save_published(tmp_path / "a.pth", tensors)), log_mel(80, 96)
    encoder.encoder.positions.order = "freq-time"
    wrong, right = encoder.frames(values)[0], expected_steps(tensors, values, 2)
    assert np.abs(wrong - right).max() > 0.1


def test_a_class_token_may_have_a_position(tmp_path):
    tensors = published_tensors("encoder")
    tensors["pos_embed"][0, 0] = torch.randn(128)
    encoder, values = melmask.load(save_published(tmp_path / "a.pth", tensors)), log_mel(80, 96)
    np.testing.assert_allclose(encoder.frames(values)[0], expected_steps(tensors, values, 2), atol=1e-4)


def test_an_encoder_file_made_of_it_gives_the_same_to_the_bit(tmp_path):
    path, values = save_published(tmp_path / "a.pth", published_tensors("m2d")), log_mel(80, 150)
    EncoderFile.load(path).save(tmp_path / "a.safetensors")
    published, saved = melmask.load(path), melmask.load(tmp_path / "a.safetensors")
    assert saved.identity == published.identity
    assert np.array_equal(saved.frames(values)[0], published.frames(values)[0])
    assert saved.untrained().encoder.positions.order == "time-freq"


def test_predictor_and_target_are_those_of_the_paper(tmp_path):
    """The predictor's output is compared too: its table, its token and the order of visible and masked patches."""
    tensors = published_tensors("m2d", num_frames=48)
    path = save_published(tmp_path / "m2d-80x48p16x16.pth", tensors)
    found = read_published(path)
    model = make_framework("m2d", Size(128, 2, 2), Size(64, 1, 2), (16, 16), {}, position_order="time-freq")
    own = {f"encoder.{name}": tensor for name, tensor in found.encoder.state_dict().items()}
    embedding = ("cls_token", "patch_embed.proj.weight", "patch_embed.proj.bias")
    shared = {f"target.{name}": own[f"encoder.{name}"] for name in embedding}
    model.load_state_dict(own | shared | dict(found.beside))
    image = np.random.default_rng(0).standard_normal((80, 48))
    mask = Mask(torch.tensor([[1, 5, 6, 14]]), torch.tensor([[i for i in range(15) if i not in (1, 5, 6, 14)]]))
    patches = torch.from_numpy(image.reshape(5, 16, 3, 16).transpose(0, 2, 1, 3).reshape(1, 15, 256)).float()
    with torch.no_grad():
        grid = PatchGrid(5, 3)
        target = model.target(patches, grid, mask.masked)[0]
        predicted = model.predictor(model.encoder(patches, grid, mask.visible), grid, mask)[0]
    slow = features(tensors, image, 2, mask.masked[0].tolist(), name="target_")
    np.testing.assert_allclose(target, slow, atol=1e-4)
    latent = features(tensors, image, 2, mask.visible[0].tolist())
    np.testing.assert_allclose(predicted, predictions(tensors, latent, mask), atol=1e-4)


def predictions(tensors: Tensors, latent: np.ndarray, mask: Mask) -> np.ndarray:
    """What a published decoder or predictor makes of the encoder's output for the visible patches."""
    weights = {key: tensor.double().numpy() for key, tensor in tensors.items()}
    embedded, where = affine(weights, "decoder_embed", latent), weights["decoder_pos_embed"][0]
    tokens = [embedded[0] + where[0]]
    visible = mask.visible[0].tolist()
    for i in range(mask.num_patches):
        own = embedded[1 + visible.index(i)] if i in visible else weights["mask_token"][0, 0]
        tokens.append(own + where[1 + i])
    decoded = transformer(weights, "decoder_", np.stack(tokens), 2)
    return affine(weights, "decoder_pred", decoded)[[1 + i for i in mask.masked[0].tolist()]]
