"""Encoder files: weights in half precision, and the feature settings that a file states."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from melmask.encoders.features import FeatureSettings
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.encoders.registry import load, with_baselines
from melmask.files import read_tensors, write_tensors
from melmask.logmel import LogMelSpec
from melmask.nn.encoder_file import Beside, EncoderFile, FrontEnd
from melmask.nn.vit import Size, random_encoder

FRONT_END = FrontEnd(LogMelSpec(), -7.1, 4.2)


def encoder_file(**features) -> EncoderFile:
    return EncoderFile(random_encoder(Size(64, 4, 2), (8, 16)), FRONT_END, 208, **features)


def test_half_precision_halves_the_file_and_hardly_changes_embeddings(store, tmp_path):
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    encoder_file().save(whole)
    encoder_file().save(half, torch.float16)
    assert half.stat().st_size < 0.53 * whole.stat().st_size
    assert {tensor.dtype for tensor in read_tensors(half)[0].values()} == {torch.float16}
    exact, rounded = PretrainedEncoder.load(whole), PretrainedEncoder.load(half)
    assert {parameter.dtype for parameter in rounded.encoder.parameters()} == {torch.float32}
    assert rounded.front_end == exact.front_end and rounded.identity != exact.identity
    expected, found = exact.embed_store(store), rounded.embed_store(store)
    assert found.dtype == np.float32
    # Each weight is rounded by at most 2^-11 of its size, at random; what was measured is 6e-4 of the deviation.
    error = np.sqrt(np.mean((found - expected) ** 2)) / expected.std()
    assert 0 < error < 2**-9, error


def test_weights_beyond_half_precision_are_refused(tmp_path):
    large = encoder_file()
    with torch.no_grad():
        large.encoder.norm.bias.fill_(1e6)
    with pytest.raises(ValueError, match=r"norm\.bias are beyond the range of torch\.float16"):
        large.save(tmp_path / "large.safetensors", torch.float16)
    assert not (tmp_path / "large.safetensors").exists()


def test_a_file_may_hold_the_decoder_too_which_embeddings_do_not_depend_on(store, tmp_path):
    alone, both = tmp_path / "alone.safetensors", tmp_path / "both.safetensors"
    weights = {"decoder.embed.weight": torch.tensor([[1.0, 2.0]]), "decoder.embed.bias": torch.tensor([0.5])}
    beside = Beside("msm-mae", Size(32, 1, 2), weights)
    encoder_file().save(alone)
    encoder_file(beside=beside).save(both, torch.float16)
    found = EncoderFile.load(both)
    assert (found.beside.framework, found.beside.decoder) == ("msm-mae", Size(32, 1, 2))
    assert {name: (value.dtype, value.tolist()) for name, value in found.beside.weights.items()} == {
        name: (torch.float32, value.tolist()) for name, value in weights.items()
    }
    assert found.encoder.state_dict().keys() == EncoderFile.load(alone).encoder.state_dict().keys()
    assert EncoderFile.load(alone).beside is None
    encoder_file(beside=beside).save(both)
    assert load(both).identity == load(alone).identity


@pytest.mark.parametrize("drop", ["tensors", "metadata"])
def test_a_decoder_of_which_a_part_is_lost_is_refused(drop, tmp_path):
    path = tmp_path / "birds.safetensors"
    encoder_file(beside=Beside("msm-mae", Size(32, 1, 2), {"decoder.norm.bias": torch.zeros(32)})).save(path)
    tensors, metadata = read_tensors(path)
    if drop == "tensors":
        del tensors["beside.decoder.norm.bias"]
    else:
        del metadata["beside"]
    metadata = {name: value for name, value in metadata.items() if name in ("format", "form", "front_end", "beside")}
    write_tensors(path, tensors, metadata)
    with pytest.raises(
        ValueError, match=r"birds\.safetensors is no melmask encoder: its tensors and its metadata differ"
    ):
        EncoderFile.load(path)


@pytest.mark.parametrize("layers", ["last", "all", (2, 4)])
def test_a_file_states_how_its_features_are_best_read(layers, store, tmp_path):
    path = tmp_path / "birds.safetensors"
    encoder_file(layers=layers, pooling="mean+std").save(path)
    encoder = load(path)
    assert encoder.settings == FeatureSettings(layers, "mean+std", whitened="no") and encoder.name == "birds"
    assert encoder.untrained().settings == encoder.settings and encoder.untrained().name == "birds untrained"
    assert load(f"untrained-of:{path}").settings == encoder.settings
    explicit = load(path, layers, "mean+std")
    assert (explicit.name, explicit.identity) == ("birds", encoder.identity)
    assert np.array_equal(explicit.embed_store(store), encoder.embed_store(store))
    named = with_baselines([str(path)])
    assert [one.name for one in named] == ["birds", "birds untrained", "log-mel statistics"]
    assert [one.settings for one in named] == [str(encoder.settings), str(encoder.settings), ""]


def test_what_is_asked_for_wins_over_what_the_file_states(tmp_path):
    path = tmp_path / "birds.safetensors"
    encoder_file(layers=(2, 4), pooling="mean+std").save(path)
    assert load(path, "last").settings == FeatureSettings("last", "mean+std", whitened="no")
    assert load(path, pooling="mean").name == "birds (layers 2, 4, mean)"


def test_a_file_that_states_nothing_is_read_and_written_as_before(tmp_path):
    path = tmp_path / "birds.safetensors"
    encoder_file().save(path)
    tensors, metadata = read_tensors(path)
    assert set(metadata) == {"format", "form", "front_end"}
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert load(path).settings == FeatureSettings("last", "mean", whitened="no") and load(path).name == "birds"


def test_a_file_of_a_later_version_is_refused_by_name(tmp_path, as_for_users):
    path = tmp_path / "birds.safetensors"
    encoder_file(pooling="mean+std").save(path)
    tensors, metadata = read_tensors(path)
    write_tensors(path, tensors, metadata | {"features": '{"layers": "last", "pooling": "median"}'})
    with pytest.raises(ValueError, match=r"birds\.safetensors is of another version of melmask: no pooling 'median'"):
        load(path)


@pytest.mark.parametrize(
    ("part", "change", "fault"),
    [
        (
            "form",
            {"size": {"dim": 10**9, "depth": 2, "heads": 2}},
            "not the form of its tensors: 4 blocks of width 64",
        ),
        ("form", {"size": {"dim": 32, "depth": 2, "heads": 0}}, "width must be a multiple"),
        ("form", {"size": {"dim": 32}}, "no field 'depth'"),
        ("form", {"patch_shape": [16]}, r"field 'patch_shape' is \[16\], not a list of 2"),
        ("form", {"crop_frames": "long"}, "field 'crop_frames' is \"long\", not a whole number"),
        ("front_end", {"std": 0.0}, "field 'std' is 0.0, not a positive number"),
        ("front_end", {"mean": math.nan}, "field 'mean' is NaN, not a finite number"),
        ("front_end", {"spec": {}}, "a LogMelSpec has the settings"),
        ("front_end", {"spec": {**LogMelSpec().to_dict(), "n_fft": 2**40}}, "n_fft 1099511627776 times num_mels 80 is"),
        ("front_end", None, "as to its front_end: Expecting value"),
        ("tensors", math.nan, "tensor 'norm.weight' has values that are not finite"),
    ],
)
def test_a_damaged_encoder_file_is_named_with_the_part_and_the_remedy(part, change, fault, tmp_path):
    """Without a checksum, as files of earlier versions are."""
    path = tmp_path / "birds.safetensors"
    encoder_file().save(path)
    tensors, metadata = read_tensors(path)
    if part == "tensors":
        tensors["norm.weight"][3] = change
    else:
        metadata[part] = json.dumps({**json.loads(metadata[part]), **change}) if change else ""
    save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match=rf"birds\.safetensors is no melmask encoder(?s:.*){fault}(?s:.*); restore it"):
        EncoderFile.load(path)
