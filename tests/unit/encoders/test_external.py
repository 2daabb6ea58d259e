"""Encoders of any make: their input, what they may return, and that batching changes no vector."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
import torch
import transformers
from onnx import TensorProto, helper

from melmask.audio import read_audio
from melmask.data.prepare import prepare
from melmask.data.store import Store
from melmask.encoders.base import AudioEncoder
from melmask.encoders.baselines import logmel_statistics
from melmask.encoders.cache import cached_embed
from melmask.encoders.features import FeatureSettings
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.encoders.registry import as_encoder
from melmask.encoders.waveform import WaveformEncoder, wrap
from melmask.logmel import LogMelSpec
from melmask.nn.encoder_file import EncoderFile, FrontEnd
from melmask.nn.vit import SIZES, Encoder


class Loudness:
    """Mean magnitude, largest magnitude and length; it records the shapes and rates of its input."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, int]] = []
        self.rates: set[int] = set()

    def encode(self, batch: np.ndarray, sample_rate: int) -> torch.Tensor:
        self.shapes.append(batch.shape)
        self.rates.add(sample_rate)
        assert batch.dtype == np.float32 and np.abs(batch).max() <= 1
        length = np.full(len(batch), batch.shape[1])
        return torch.tensor(np.stack([np.abs(batch).mean(axis=1), np.abs(batch).max(axis=1), length], axis=1))


def path_of(store: Store, row: int) -> Path:
    return store.clips[row].clip.path


@pytest.fixture(scope="module")
def alike(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Ten recordings: eight of one length, and two that differ from it by one sample."""
    folder, rng = tmp_path_factory.mktemp("alike"), np.random.default_rng(1)
    for i, num_samples in enumerate([16_000] * 8 + [15_999, 16_001]):
        soundfile.write(folder / f"{i}.wav", 0.3 * rng.standard_normal(num_samples).clip(-3, 3), 16_000)
    return prepare([folder], folder / "store", num_workers=0)


def test_an_object_is_given_each_recording_whole_and_at_its_rate(store: Store) -> None:
    loudness = Loudness()
    vectors = wrap(loudness, 8_000).embed_store(store)
    assert vectors.shape == (len(store), 3) and vectors.dtype == np.float32
    assert loudness.rates == {8_000}
    for row in range(len(store)):
        wave = read_audio(path_of(store, row), 8_000)
        assert vectors[row] == pytest.approx([np.abs(wave).mean(), np.abs(wave).max(), len(wave)], rel=1e-5)


def test_only_waveforms_of_exactly_one_length_share_a_batch(alike: Store) -> None:
    loudness = Loudness()
    seen: list[tuple[int, int]] = []
    wrap(loudness, 16_000).embed_store(alike, progress=lambda done, total: seen.append((done, total)))
    assert sorted(loudness.shapes) == [(1, 15_999), (1, 16_001), (8, 16_000)]
    assert seen[-1] == (10, 10)
    small = dataclasses.replace(wrap(loudness, 16_000), max_batch=3)
    loudness.shapes.clear()
    small.embed_store(alike)
    assert sorted(loudness.shapes) == [(1, 15_999), (1, 16_001), (2, 16_000), (3, 16_000), (3, 16_000)]


def test_rows_choose_and_order(store: Store) -> None:
    encoder = wrap(Loudness(), 16_000)
    assert np.array_equal(encoder.embed_store(store, [5, 0, 5]), encoder.embed_store(store)[[5, 0, 5]])


def test_a_recording_longer_than_the_longest_input_is_covered_by_windows(tmp_path: Path) -> None:
    ramp = np.linspace(-0.9, 0.9, 34_567, dtype=np.float32)
    soundfile.write(tmp_path / "ramp.wav", ramp, 16_000, subtype="FLOAT")
    store, windows = prepare([tmp_path], tmp_path / "store", num_workers=0), []

    def encode(waves: np.ndarray) -> np.ndarray:
        windows.extend(waves)
        return waves.mean(axis=1, keepdims=True)

    encoder = WaveformEncoder("w", "", 16_000, encode, max_samples=10_000)
    assert encoder.embed_store(store)[0, 0] == pytest.approx(np.mean([window.mean() for window in windows]), abs=1e-6)
    starts = [int(np.searchsorted(ramp, window[0])) for window in windows]
    assert starts == [0, 8_189, 16_378, 24_567]
    assert all(np.array_equal(window, ramp[a : a + 10_000]) for window, a in zip(windows, starts, strict=True))

    windows.clear()
    dataclasses.replace(encoder, max_samples=34_570, is_fixed=True).embed_store(store)
    assert len(windows) == 1 and np.array_equal(windows[0], np.concatenate([ramp, np.zeros(3)]))
    windows.clear()
    dataclasses.replace(encoder, max_samples=34_570).embed_store(store)
    assert len(windows) == 1 and np.array_equal(windows[0], ramp)


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda waves: waves.mean(axis=1), r"array of shape \(\d+,\)"),
        (lambda waves: np.zeros((len(waves) + 1, 4)), "one vector each"),
        (lambda waves: np.zeros((len(waves), waves.shape[1])), "different lengths"),
    ],
)
def test_an_object_that_breaks_its_contract_is_named(store: Store, give: Any, message: str) -> None:
    class Breaks:
        def encode(self, batch: np.ndarray, sample_rate: int) -> np.ndarray:
            return give(batch)

    with pytest.raises(ValueError, match=message) as error:
        wrap(Breaks(), 16_000, name="broken").embed_store(store)
    assert "broken" in str(error.value)


def test_only_what_has_an_identity_is_cached(store: Store, tmp_path: Path) -> None:
    loudness = Loudness()
    cached_embed(wrap(loudness, 16_000), store, tmp_path)
    num_calls = len(loudness.shapes)
    cached_embed(wrap(loudness, 16_000), store, tmp_path)
    assert len(loudness.shapes) == 2 * num_calls and not list(tmp_path.iterdir())
    named = wrap(loudness, 16_000, identity="loudness 1")
    first = cached_embed(named, store, tmp_path)
    assert np.array_equal(cached_embed(named, store, tmp_path), first) and len(loudness.shapes) == 3 * num_calls


def save_onnx(path: Path, shape: list[int | str], axes: int, rate: int | None = None, num_inputs: int = 1) -> Path:
    """A model that gives [b, 1], the mean of the samples, or [b, time, 1] of ``axes`` 3, frames of 100 samples."""
    nodes = [helper.make_node("ReduceMean", ["wave", "last"], ["y"], keepdims=1)]
    constants = [helper.make_tensor("last", TensorProto.INT64, [1], [axes - 1])]
    if axes == 3:
        constants.append(helper.make_tensor("frames", TensorProto.INT64, [3], [0, -1, 100]))
        nodes.insert(0, helper.make_node("Reshape", ["wave", "frames"], ["framed"]))
        nodes[1].input[0] = "framed"
    inputs = [helper.make_tensor_value_info("wave", TensorProto.FLOAT, shape)]
    if num_inputs == 2:
        inputs.append(helper.make_tensor_value_info("length", TensorProto.FLOAT, [1]))
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = helper.make_model(helper.make_graph(nodes, "mean", inputs, [output], constants), ir_version=10)
    model.opset_import[0].version = 18
    if rate:
        helper.set_model_props(model, {"sample_rate_hz": str(rate)})
    onnx.save(model, str(path))
    return path


def test_an_onnx_file_with_its_rate_in_it_or_beside_it(store: Store, tmp_path: Path) -> None:
    bare, with_rate = (
        save_onnx(tmp_path / "bare.onnx", ["b", "t"], 2),
        save_onnx(tmp_path / "a@1.onnx", ["b", "t"], 2, 8_000),
    )
    encoder = as_encoder(f"onnx:{with_rate}")
    assert encoder.name == "onnx:a@1.onnx" and isinstance(encoder, AudioEncoder)
    expected = [read_audio(path_of(store, row), 8_000).mean() for row in range(len(store))]
    assert encoder.embed_store(store)[:, 0] == pytest.approx(expected, abs=1e-6)
    other = as_encoder(f"onnx:{bare}@16000")
    assert other.identity != as_encoder(f"onnx:{bare}@8000").identity != encoder.identity
    with pytest.raises(ValueError, match=r"@16000"):
        as_encoder(f"onnx:{bare}")


def test_an_onnx_file_of_fixed_length_and_of_frames(store: Store, tmp_path: Path) -> None:
    fixed = as_encoder(f"onnx:{save_onnx(tmp_path / 'fixed.onnx', [1, 10_000], 2, 16_000)}")
    assert fixed.max_samples == 10_000 and fixed.is_fixed and fixed.max_batch == 1
    framed = as_encoder(f"onnx:{save_onnx(tmp_path / 'framed.onnx', ['b', 10_000], 3, 16_000)}")
    assert framed.embed_store(store, [0, 1]) == pytest.approx(fixed.embed_store(store, [0, 1]), abs=1e-6)
    short = min(range(len(store)), key=lambda row: store.clips[row].num_frames)
    wave = read_audio(path_of(store, short), 16_000)
    assert len(wave) < 10_000
    assert fixed.embed_store(store, [short])[0, 0] == pytest.approx(wave.sum() / 10_000, abs=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path, "no ONNX file"),
        (lambda path: path.write_text("no model") and path, "no ONNX model"),
        (lambda path: save_onnx(path, ["b", "t"], 2, 16_000, num_inputs=2), "one input"),
        (lambda path: save_onnx(path, ["b", 1, "t"], 2, 16_000), "one input"),
        (lambda path: save_onnx(path, [4, "t"], 2, 16_000), "batches of exactly 4"),
    ],
)
def test_an_onnx_file_with_another_interface_is_refused(make: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        as_encoder(f"onnx:{make(tmp_path / 'model.onnx')}")


HEAR_MODULE = """
import pathlib
import torch
class Model(torch.nn.Module):
    def __init__(self, path):
        super().__init__()
        self.sample_rate, self.scene_embedding_size = 22050, 2
        self.gain = float(pathlib.Path(path).read_text()) if path else 1.0
def load_model(path=""):
    return Model(path)
def get_scene_embeddings(audio, model):
    assert isinstance(audio, torch.Tensor) and audio.dtype == torch.float32 and not model.training
    return torch.stack([model.gain * audio.abs().mean(dim=1), audio.amax(dim=1)], dim=1)
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that modules are imported from."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_a_hear_module_with_and_without_weights(store: Store, modules: Path) -> None:
    (modules / "plain_hear.py").write_text(HEAR_MODULE)
    (modules / "gain.txt").write_text("3.0")
    plain, louder = as_encoder("hear:plain_hear"), as_encoder(f"hear:plain_hear@{modules / 'gain.txt'}")
    wave = read_audio(path_of(store, 3), 22_050)
    assert plain.embed_store(store, [3])[0] == pytest.approx([np.abs(wave).mean(), wave.max()], rel=1e-5)
    assert louder.embed_store(store, [3])[0, 0] == pytest.approx(3 * np.abs(wave).mean(), rel=1e-5)
    (modules / "gain.txt").write_text("4.0")
    assert len({plain.identity, louder.identity, as_encoder(f"hear:plain_hear@{modules / 'gain.txt'}").identity}) == 3
    (modules / "plain_hear.py").write_text(HEAR_MODULE + "# changed\n")
    assert as_encoder("hear:plain_hear").identity != plain.identity


def test_a_hear_model_that_is_not_of_pytorch_is_given_arrays(store: Store, modules: Path) -> None:
    code = HEAR_MODULE.replace("torch.nn.Module", "object").replace("torch.Tensor", "__import__('numpy').ndarray")
    code = code.replace(" and audio.dtype == torch.float32 and not model.training", "")
    code = code[: code.index("    return torch.stack")] + "    return abs(audio).mean(axis=1, keepdims=True)\n"
    (modules / "array_hear.py").write_text(code)
    assert as_encoder("hear:array_hear").embed_store(store, [0, 1]).shape == (2, 1)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (None, "no HEAR module"),
        ("", "no load_model and no get_scene_embeddings"),
        (HEAR_MODULE.replace("self.sample_rate,", "self.rate,"), "sample_rate"),
    ],
)
def test_a_module_without_hears_api_is_refused(code: str | None, message: str, modules: Path) -> None:
    if code is not None:
        (modules / "odd_hear.py").write_text(code)
    with pytest.raises(ValueError, match=message):
        as_encoder("hear:odd_hear")


TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
CONVOLUTIONS = {"conv_dim": (8, 8), "conv_stride": (20, 16), "conv_kernel": (20, 16), "num_feat_extract_layers": 2}
SPEECH = {**TINY, **CONVOLUTIONS, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}


def save_huggingface(kind: str, folder: Path) -> Path:
    """A tiny random encoder in Hugging Face's form."""
    torch.manual_seed(0)
    wave_extractor = transformers.Wav2Vec2FeatureExtractor(sampling_rate=16_000, do_normalize=True)
    if kind == "ast":
        config = transformers.ASTConfig(**TINY, num_mel_bins=32, max_length=64)
        model = transformers.ASTModel(config)
        extractor = transformers.ASTFeatureExtractor(num_mel_bins=32, max_length=64)
    elif kind == "whisper":
        config = transformers.WhisperConfig(
            d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
            encoder_ffn_dim=16, decoder_ffn_dim=16, num_mel_bins=32, max_source_positions=50, vocab_size=8,
            pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=3,
        )  # fmt: skip
        model = transformers.WhisperModel(config)
        extractor = transformers.WhisperFeatureExtractor(feature_size=32, chunk_length=1)
    elif kind == "hubert":
        model, extractor = transformers.HubertModel(transformers.HubertConfig(**SPEECH)), wave_extractor
    else:
        model, extractor = transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**SPEECH)), wave_extractor
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")
@pytest.mark.parametrize(
    ("kind", "longest"), [("ast", 10_240), ("whisper", 16_000), ("wav2vec2", None), ("hubert", None)]
)
def test_a_huggingface_folder_is_its_last_hidden_state_averaged(
    kind: str, longest: int | None, store: Store, tmp_path: Path
) -> None:
    encoder = as_encoder(f"hf:{save_huggingface(kind, tmp_path / kind)}")
    assert encoder.name == f"hf:{kind}" and encoder.max_samples == longest and encoder.sample_rate_hz == 16_000
    rows = [3, 4, 5]
    vectors = encoder.embed_store(store, rows)
    assert vectors.shape == (3, 16) and np.isfinite(vectors).all()
    model = transformers.AutoModel.from_pretrained(tmp_path / kind).eval()
    model = model.encoder if kind == "whisper" else model
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path / kind)
    for row, vector in zip(rows, vectors, strict=True):
        wave = read_audio(path_of(store, row), 16_000)
        length = longest or len(wave)
        starts = [0] if len(wave) <= length else np.linspace(0, len(wave) - length, -(-len(wave) // length)).round()
        windows = [wave[int(start) : int(start) + length] for start in starts]
        with torch.inference_mode():
            inputs = [extractor(window, sampling_rate=16_000, return_tensors="pt") for window in windows]
            means = [model(**one).last_hidden_state[0].mean(dim=0).numpy() for one in inputs]
        assert vector == pytest.approx(np.mean(means, axis=0), abs=1e-4)


def test_huggingface_folders_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no config"):
        as_encoder(f"hf:{tmp_path}")
    folder = save_huggingface("wav2vec2", tmp_path / "speech")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "no such thing"}))
    with pytest.raises(ValueError, match="no audio encoder that transformers reads"):
        as_encoder(f"hf:{folder}")
    own = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}}
    (folder / "config.json").write_text(json.dumps({**config, **own}))
    (folder / "mine.py").write_text("raise SystemExit('it was run')")
    with pytest.raises(ValueError, match=r"asks for code of its own .auto_map in its config.json., which is never run"):
        as_encoder(f"hf:{folder}")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="safetensors"):
        as_encoder(f"hf:{folder}")


def test_the_words_for_our_own(store: Store, tmp_path: Path) -> None:
    statistics = as_encoder("logmel-stats")
    assert np.array_equal(statistics.embed_store(store, [2, 7])[1], logmel_statistics(store.log_mel(7)))
    untrained = as_encoder("untrained:micro", FeatureSettings("all", "mean+max"))
    assert isinstance(untrained, PretrainedEncoder) and untrained.embed_store(store, [0]).shape == (1, 2 * 2 * 5 * 32)
    assert untrained.identity == as_encoder("untrained:micro", FeatureSettings("all", "mean+max")).identity
    assert "micro" in untrained.name and "untrained" in untrained.name
    path = tmp_path / "mine.safetensors"
    EncoderFile(Encoder(SIZES["micro"], (16, 16)), FrontEnd(LogMelSpec(), -7.1, 4.2), 96).save(path)
    assert as_encoder(str(path)).name == "mine"


@pytest.mark.parametrize(
    "spec", ["nowhere", "untrained:huge", "untrained:", "beats:file", "hf:nowhere", "onnx:nowhere@8"]
)
def test_words_for_nothing_are_refused(spec: str) -> None:
    with pytest.raises(ValueError, match=spec.partition(":")[2].partition("@")[0] or spec):
        as_encoder(spec)


def test_a_missing_library_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "transformers", None)
    for spec, extra in (("onnx:model.onnx", "onnx"), (f"hf:{tmp_path}", "hf")):
        with pytest.raises(ImportError, match=rf"pip install 'melmask\[{extra}\]'"):
            as_encoder(spec)


def test_the_identity_of_an_onnx_file_with_brackets_in_its_name_is_its_own(tmp_path: Path) -> None:
    plain, named = tmp_path / "model1.onnx", tmp_path / "model[1].onnx"
    plain.write_bytes(save_onnx(named, ["b", "t"], 2, 16_000).read_bytes())
    before = as_encoder(f"onnx:{named}").identity
    plain.write_bytes(b"another")
    assert as_encoder(f"onnx:{named}").identity == before
    save_onnx(named, ["b", "t"], 2, 8_000)
    assert as_encoder(f"onnx:{named}").identity != before


def test_the_identity_of_a_hear_package_depends_on_its_weights(modules: Path) -> None:
    package = modules / "packaged_hear"
    package.mkdir()
    (package / "__init__.py").write_text(HEAR_MODULE)
    (package / "weights.bin").write_bytes(b"1")
    before = as_encoder("hear:packaged_hear").identity
    assert as_encoder("hear:packaged_hear").identity == before
    (package / "weights.bin").write_bytes(b"2")
    assert as_encoder("hear:packaged_hear").identity != before
