"""Whitening: what it does to features, in a file, in an encoder, and at the end of a run."""

import dataclasses

import numpy as np
import pytest
import torch

from melmask.encoders.features import FeatureSettings
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.encoders.registry import load
from melmask.files import read_tensors
from melmask.logmel import LogMelSpec
from melmask.nn.encoder_file import ENCODER, EncoderFile, FrontEnd
from melmask.nn.time_steps import SHRINKAGE, Whitening
from melmask.nn.vit import Size, random_encoder
from melmask.train import loop
from melmask.train.recipe import RECIPES
from melmask.train.run_folder import CHECKPOINT
from melmask.train.whiten import learn_whitening

pytestmark = pytest.mark.numerical

ONE_CROP = torch.tensor([0])


def correlated(num_steps: int, num_dims: int = 6) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    mixing = torch.randn(num_dims, num_dims, generator=rng) * 10.0 ** -torch.arange(num_dims)
    return 3 + torch.randn(num_steps, num_dims, generator=rng) @ mixing.T


def joined(crops: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Time steps of crops, and the number of the crop that each is of."""
    lengths = torch.tensor([len(crop) for crop in crops])
    return torch.from_numpy(np.concatenate(crops)), torch.arange(len(crops)).repeat_interleave(lengths)


def test_whitened_features_are_uncorrelated_up_to_the_shrinkage():
    steps = correlated(5000)
    whitening = Whitening.learn(steps, ONE_CROP.repeat(5000), shrinkage=0.01, within_share=1.0)
    covariance = torch.cov(whitening(steps).double().T, correction=0)
    variance = torch.linalg.eigvalsh(torch.cov(steps.double().T, correction=0))
    expected = variance / (variance + 0.01 * variance[-1])
    torch.testing.assert_close(torch.linalg.eigvalsh(covariance), expected, rtol=1e-3, atol=1e-5)
    assert torch.equal(whitening.matrix, whitening.matrix.T) or torch.allclose(whitening.matrix, whitening.matrix.T)
    assert torch.allclose(whitening(steps).mean(dim=0), torch.zeros(6), atol=1e-4)


def test_the_variance_over_the_time_of_a_crop_counts_for_a_share():
    rng = torch.Generator().manual_seed(1)
    crop = torch.tensor([2, 0, 3, 0, 2, 2, 0, 3, 3, 3, 0])  # of different lengths, not in order; there is no crop 1
    steps = torch.randn(11, 4, generator=rng).double()
    of_crop = [steps[crop == number] for number in (0, 2, 3)]
    mean = steps.mean(dim=0)
    expected = torch.zeros(4, 4).double()
    for own in of_crop:
        for step in own:
            expected += torch.outer(own.mean(dim=0) - mean, own.mean(dim=0) - mean) / 11
            expected += 0.2 * torch.outer(step - own.mean(dim=0), step - own.mean(dim=0)) / 11
    expected += 0.05 * torch.linalg.eigvalsh(expected)[-1] * torch.eye(4)
    found = Whitening.learn(steps, crop, shrinkage=0.05, within_share=0.2)
    assert torch.allclose(torch.linalg.inv(found.matrix.double() @ found.matrix.double()), expected, rtol=1e-4)
    assert torch.allclose(found.mean.double(), mean)


def test_fewer_steps_than_dimensions_are_amplified_no_further_than_the_shrinkage_allows():
    whitening = Whitening.learn(correlated(3), torch.arange(3))
    largest = torch.linalg.eigvalsh(torch.cov(correlated(3).double().T, correction=0))[-1]
    assert torch.linalg.eigvalsh(whitening.matrix.double())[-1] <= (SHRINKAGE * largest).rsqrt() * (1 + 1e-5)


def test_steps_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="cannot be whitened"):
        Whitening.learn(torch.full((4, 2), float("nan")), ONE_CROP.repeat(4))


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1])
def test_equal_steps_are_centred_and_their_rounding_is_not_amplified(value):
    steps = torch.full((50, 3), value)
    steps[::2] += 1e-8 * value  # less than float32 resolves
    whitening = Whitening.learn(steps, torch.arange(50) // 10)
    assert torch.equal(whitening.matrix, torch.eye(3)) and whitening(steps).abs().max() < 1e-6


def test_an_encoder_file_keeps_its_whitening_and_its_encoder_applies_it(store, tmp_path):
    size, front_end, path = Size(32, 2, 2), FrontEnd(LogMelSpec(), store.mean, store.std), tmp_path / "w.safetensors"
    plain = PretrainedEncoder(random_encoder(size, (16, 16)), front_end, 96)
    steps = plain.time_steps(store)
    clip = torch.arange(len(store.clips)).repeat_interleave(torch.from_numpy(steps.length))
    whitening = Whitening.learn(torch.from_numpy(np.array(steps.steps, np.float32)), clip)
    EncoderFile(plain.encoder, front_end, 96, pooling="mean+std", whitening=whitening).save(path)
    encoder = load(path)
    assert encoder.settings == FeatureSettings("last", "mean+std", whitened="yes") and encoder.name == "w"
    assert str(encoder.settings) == "last layer, mean+std, whitened"
    expected = whitening(torch.from_numpy(plain.time_steps(store).clip(1))).numpy()
    assert np.allclose(encoder.time_steps(store).clip(1), expected, atol=0.03)  # both from half precision
    frames, _ = encoder.frames(np.asarray(store.log_mel(1)))
    assert np.allclose(encoder.embed_store(store, [1])[0], np.r_[frames.mean(0), frames.std(0)], atol=1e-4)
    read = PretrainedEncoder.load(path, FeatureSettings(pooling="mean", whitened="no"))
    assert np.array_equal(read.embed_store(store), plain.embed_store(store)) and read.identity == plain.identity
    assert len({encoder.identity, load(path, pooling="mean").identity, plain.identity}) == 3
    assert load(path, "all").settings.whitened == "no"  # it was learned of the last layer only
    assert encoder.untrained().settings == FeatureSettings("last", "mean+std", whitened="no")
    with pytest.raises(ValueError, match=r"no whitening of layers \(1,\)"):
        PretrainedEncoder.load(path, FeatureSettings((1,), whitened="yes"))


def test_a_whitening_is_learned_from_time_steps_as_they_are_embedded(store):
    """Short recordings are encoded without the padding to the longest of their batch, which changes features."""
    recipe = dataclasses.replace(RECIPES["micro-msm-mae"], crop_frames=160)
    crops = recipe.make_loader(store).sample(len(store))
    assert len(set(crops.num_valid_frames.tolist())) > 1 and crops.log_mel.shape[2] == 160
    encoder = random_encoder(Size(32, 2, 2), (16, 16))
    found = learn_whitening(encoder, crops, "last")
    embedding = PretrainedEncoder(encoder, FrontEnd(store.spec, store.mean, store.std), 160)
    clips = [
        embedding.frames(store.log_mel(row, start, start + length))[0]
        for row, start, length in zip(
            crops.clip.tolist(), crops.start_frame.tolist(), crops.num_valid_frames.tolist(), strict=True
        )
    ]
    expected = Whitening.learn(*joined(clips))
    assert torch.allclose(found.mean, expected.mean, atol=1e-4)
    assert torch.allclose(found.matrix, expected.matrix, rtol=1e-2, atol=1e-2)


def test_a_run_learns_its_whitening_from_its_own_crops_and_trains_as_without(store, tmp_path):
    plain = dataclasses.replace(RECIPES["micro-msm-mae"], steps=4, batch_size=8, save_every=2)
    recipe = dataclasses.replace(plain, whitening_crops=12)
    loop.pretrain(plain, store, tmp_path / "plain")
    loop.pretrain(recipe, store, tmp_path / "run")
    without, trained = (read_tensors(tmp_path / name / CHECKPOINT)[0] for name in ("plain", "run"))
    assert without.keys() == trained.keys() and all(torch.equal(without[name], trained[name]) for name in without)
    saved = EncoderFile.load(tmp_path / "run" / ENCODER)
    assert saved.whitening is not None and EncoderFile.load(tmp_path / "plain" / ENCODER).whitening is None
    crops = recipe.make_loader(store).sample(12)
    steps = PretrainedEncoder(saved.encoder, saved.front_end, 96)
    features = [steps.frames(crop.T.numpy() * store.std + store.mean)[0] for crop in crops.log_mel]
    expected = Whitening.learn(*joined(features))
    assert torch.allclose(saved.whitening.mean, expected.mean, atol=1e-3)
    assert torch.allclose(saved.whitening.matrix, expected.matrix, rtol=1e-2, atol=1e-2)
    (tmp_path / "run" / ENCODER).unlink()
    loop.pretrain(recipe, store, tmp_path / "run", resume=True)
    again = EncoderFile.load(tmp_path / "run" / ENCODER)
    assert again.whitening is not None and torch.equal(again.whitening.matrix, saved.whitening.matrix)
