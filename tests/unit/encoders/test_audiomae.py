"""AudioMAE in a Hugging Face folder: its front end, its patches in time first, and where its last norm stands."""

import json
from pathlib import Path

import numpy as np
import pytest

import melmask
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.files import write_tensors
from melmask.nn.encoder_file import EncoderFile
from published import features, layer_norm, published_tensors

MEAN, STD = -4.2677393, 4.5689974
OWN = {"model_type": "audiomae", "img_size": [1024, 128], "in_chans": 1}
PORT = {
    "architecture": "vit_base_patch16_224",
    "pretrained_cfg": {"tag": "audiomae_as2m", "input_size": [1, 1024, 128]},
}


def save(folder: Path, tensors, config) -> Path:
    folder.mkdir()
    write_tensors(folder / "model.safetensors", tensors, {})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def to_mel(hz):
    return 1127 * np.log(1 + hz / 700)


def filterbank(wave: np.ndarray) -> np.ndarray:
    """Kaldi's log filterbank of 128 bands of a waveform at 16 kHz, from its documentation [frame, band]."""
    window = np.hanning(400)
    edges = np.linspace(to_mel(20), to_mel(8000), 130)
    bins = to_mel(np.arange(257) * 16_000 / 512)
    weights = np.zeros((257, 128))
    for band in range(128):
        low, centre, high = edges[band : band + 3]
        weights[:, band] = np.maximum(0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)))
    frames = []
    for start in range(0, len(wave) - 400 + 1, 160):
        frame = wave[start : start + 400] - wave[start : start + 400].mean()
        frame = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
        power = np.abs(np.fft.rfft(frame * window, 512)) ** 2
        frames.append(np.log(np.maximum(power @ weights, 1.192092955078125e-07)))
    return np.stack(frames)


def model_input(wave: np.ndarray) -> np.ndarray:
    """Zero-padded to 1,024 frames, and normalised [time, mel]."""
    frames = filterbank(wave.astype(np.float64))
    padded = np.zeros((1024, 128))
    padded[: len(frames)] = frames
    return (padded - MEAN) / (2 * STD)


@pytest.fixture(scope="module")
def tensors():
    """In AudioMAE the first axis of the image is time, so that its table of positions says frequency first."""
    return published_tensors("encoder", num_mels=1024, num_frames=128, dim=64, depth=1)


@pytest.fixture(scope="module")
def wave():
    return (0.1 * np.random.default_rng(0).standard_normal(40_000)).astype(np.float32)


@pytest.mark.parametrize("named_as", ["hf:{}", "{}"])
def test_the_vector_is_the_mean_of_the_normed_patches(named_as, tensors, wave, tmp_path):
    folder = save(tmp_path / "audiomae", {f"encoder.{name}": one for name, one in tensors.items()}, OWN)
    encoder = melmask.load(named_as.format(folder))
    assert encoder.name == "hf:audiomae" and encoder.sample_rate_hz == 16_000 and encoder.spec is None
    expected = features(tensors, model_input(wave), num_heads=1)[1:].mean(axis=0)
    np.testing.assert_allclose(encoder.embed(wave, 16_000), expected, atol=1e-4)


def test_a_port_that_norms_after_the_mean(tensors, wave, tmp_path):
    named = {f"fc_{name}" if name.startswith("norm.") else name: one for name, one in tensors.items()}
    encoder = melmask.load(save(tmp_path / "port", named, PORT))
    before = features(tensors, model_input(wave), num_heads=1, is_normed=False)
    weights = {name: one.double().numpy() for name, one in tensors.items()}
    expected = layer_norm(weights, "norm", before[1:].mean(axis=0)[None])[0]
    np.testing.assert_allclose(encoder.embed(wave, 16_000), expected, atol=1e-4)


def test_what_its_front_end_does_not_fit_refuses_it(tensors, tmp_path):
    folder = save(tmp_path / "audiomae", tensors, OWN)
    for read in (EncoderFile.load, PretrainedEncoder.load):
        with pytest.raises(ValueError, match=f"front end of its own: it can only be named as hf:{folder}"):
            read(folder)
