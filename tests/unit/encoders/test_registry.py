"""How encoders are named, loaded and told apart, and which baselines stand beside them."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from melmask.encoders.base import AudioEncoder, ClipEncoder
from melmask.encoders.baselines import LogMelStatistics
from melmask.encoders.features import FeatureSettings
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.encoders.registry import as_encoder, load, name_encoders, with_baselines
from melmask.encoders.waveform import WaveformEncoder, wrap
from melmask.logmel import LogMelSpec
from melmask.nn.encoder_file import ENCODER, EncoderFile, FrontEnd
from melmask.nn.vit import SIZES, Encoder
from melmask.train.run_folder import kept_encoder

OUTSIDE = """
class Loudness:
    sample_rate_hz = 8000

    def encode(self, batch, sample_rate):
        return abs(batch).mean(axis=1, keepdims=True)


quiet = Loudness()
"""


class Loudness:
    sample_rate = 22_050

    def encode(self, batch: np.ndarray, sample_rate: int) -> np.ndarray:
        return np.abs(batch).mean(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "birds"
    folder.mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        EncoderFile(Encoder(SIZES["micro"], (16, 16)), FrontEnd(LogMelSpec(), -7.1, 4.2), 96).save(folder / ENCODER)
    return folder


def test_a_run_is_named_by_its_folder_as_str_or_path_or_file(run):
    for name in (run, str(run), run / ENCODER, str(run / ENCODER)):
        encoder = load(name)
        assert isinstance(encoder, AudioEncoder) and encoder.name == "birds" and encoder.has_untrained
        assert encoder.run == (run if Path(name) == run else None)
    assert load(run).identity == load(str(run / ENCODER)).identity
    assert load(run, (1, 2), "mean+max").settings == FeatureSettings((1, 2), "mean+max", whitened="no")


def test_an_encoder_that_was_kept_along_a_run_is_named_by_its_step(run):
    kept = kept_encoder(run, 20)
    kept.parent.mkdir(exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        EncoderFile(Encoder(SIZES["micro"], (16, 16)), FrontEnd(LogMelSpec(), -7.1, 4.2), 96).save(kept)
    encoder = load(f"{run}@20")
    assert (encoder.name, encoder.run, encoder.step, load(run).step) == ("birds@20", run, 20, None)
    assert encoder.identity == load(str(kept)).identity != load(run).identity
    named = with_baselines([f"{run}@20", str(run)])
    assert [one.name for one in named] == ["birds@20", "birds", "birds@20 untrained", "log-mel statistics"]
    assert {path for one in named for path in one.runs} == {run}
    with pytest.raises(ValueError, match="birds keeps no encoder of step 30; it keeps: 20"):
        load(f"{run}@30")


def test_the_untrained_form_of_a_run_has_its_front_end_and_none_of_its_weights(run):
    untrained = load(f"untrained-of:{run}")
    assert untrained.name == "birds untrained" and untrained.identity == load(run).untrained().identity
    assert untrained.spec == load(run).spec and untrained.identity != load(run).identity
    for encoder in (untrained, load("untrained:micro")):
        assert not encoder.has_untrained
        with pytest.raises(ValueError, match="random weights itself"):
            encoder.untrained()


@pytest.mark.parametrize("name", ["nowhere", "untrained-of:nowhere", "nowhere:Class", "untrained", "math:nothing"])
def test_names_of_nothing_are_refused(name):
    with pytest.raises(ValueError, match=name.replace("untrained-of:", "")):
        load(name)


def test_a_class_from_outside_is_loaded_by_its_name(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "encoders_of_a_test", raising=False)
    (tmp_path / "encoders_of_a_test.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("encoders_of_a_test:Loudness", "encoders_of_a_test:quiet"):
        encoder = load(name)
        assert isinstance(encoder, WaveformEncoder) and (encoder.name, encoder.sample_rate_hz) == ("Loudness", 8_000)
        assert encoder.embed(np.full(1600, 0.25, np.float32), 8_000) == pytest.approx([0.25])


def test_objects_are_wrapped_and_encoders_left_as_they_are(run, as_for_users):
    wrapped = as_encoder(Loudness())
    assert isinstance(wrapped, WaveformEncoder) and wrapped.sample_rate_hz == 22_050
    for encoder in (PretrainedEncoder.load(run), wrapped, LogMelStatistics()):
        assert isinstance(encoder, AudioEncoder) and as_encoder(encoder, FeatureSettings("all")) is encoder
    with pytest.raises(ValueError, match="is no encoder: give a name, or an object with encode"):
        as_encoder(7)

    class NoRate:
        def encode(self, batch, sample_rate):
            return batch

    with pytest.raises(ValueError, match="NoRate has no attribute sample_rate_hz"):
        as_encoder(NoRate())


def test_encoders_have_names_that_tell_them_apart(run):
    first, second = Loudness(), Loudness()
    named = name_encoders([run, f"untrained-of:{run}", first, second, "logmel-stats"])
    names = ["birds", "birds untrained", "Loudness 3", "Loudness 4", "log-mel statistics"]
    assert [one.name for one in named] == names
    features = ["encoder", "birds untrained", "Loudness", "Loudness", "log-mel statistics"]
    assert [one.features for one in named] == features
    assert [one.settings for one in named] == ["last layer, mean"] * 2 + [""] * 3
    assert [one.runs for one in named] == [(run,), (), (), (), ()]
    two_names = name_encoders([run, run / ENCODER])
    assert [one.name for one in two_names] == [str(run), str(run / ENCODER)]


@pytest.mark.parametrize("twice", [lambda run: [run, str(run)], lambda run: [Loudness()] * 2])
def test_one_encoder_given_twice_is_refused(twice, run):
    with pytest.raises(ValueError, match=r"given twice.*compared with itself"):
        name_encoders(twice(run))


def test_a_loaded_encoder_has_the_baselines_of_its_name(run):
    by_name, loaded = with_baselines([run]), with_baselines([load(run)])
    for named in (by_name, loaded):
        assert [one.name for one in named] == ["birds", "birds untrained", "log-mel statistics"]
        assert [one.features for one in named] == ["encoder", "untrained", "log-mel statistics"]
        assert [one.runs for one in named] == [(run,)] * 3
    assert [one.name for one in with_baselines([wrap(Loudness())])] == ["Loudness", "log-mel statistics"]


def test_an_encoder_of_clips_has_all_but_five_members(store):
    class Length(ClipEncoder):
        name = identity = "length"
        spec = None

        def embed(self, audio, sample_rate_hz=None):
            raise NotImplementedError

        def embed_store(self, store, rows=None, progress=lambda done, total: None):
            return np.ones((len(store), 1), np.float32)

    (length, _) = with_baselines([Length()])
    assert isinstance(length.encoder, Length) and (length.name, length.features) == ("length", "length")
    for call in (
        length.encoder.untrained,
        lambda: length.encoder.time_steps(store),
        lambda: length.encoder.num_steps(1),
    ):
        with pytest.raises(ValueError, match=r"untrained form|no time steps"):
            call()
