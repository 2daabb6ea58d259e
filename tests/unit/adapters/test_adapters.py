"""Our encoders under the interfaces of others: the rules that each publishes, and the features that a store gives."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from melmask.adapters import hear, mteb, xares
from melmask.adapters.sklearn import MelmaskEmbedder
from melmask.audio import read_audio
from melmask.data.manifest import read_manifest
from melmask.data.store import Store
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.encoders.registry import as_encoder
from melmask.logmel import LogMelSpec
from melmask.nn.encoder_file import EncoderFile, FrontEnd
from melmask.nn.vit import SIZES, Encoder

ROUNDING = 1e-5  # of float32: a store's clips are embedded in batches, an adapter's by themselves


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("encoder") / "mine.safetensors"
    torch.manual_seed(0)
    EncoderFile(Encoder(SIZES["micro"], (16, 16)), FrontEnd(LogMelSpec(), -7.1, 4.2), crop_frames=96).save(path)
    return str(path)


def noise(num_sounds: int, seconds: float, seed: int = 0) -> torch.Tensor:
    return 2 * torch.rand((num_sounds, int(seconds * 16_000)), generator=torch.Generator().manual_seed(seed)) - 1


def waves_of(store: Store, rows: range) -> list[np.ndarray]:
    return [read_audio(store.clips[row].clip.path, 16_000) for row in rows]


# HEAR. Rules as checked by the package hearvalidator 2021.0.2, in its order.


def test_hear_load_model(weights: str) -> None:
    assert next(iter(inspect.signature(hear.load_model).parameters)) == "model_file_path"
    model = hear.load_model(weights)
    assert isinstance(model, torch.nn.Module) and not model.training
    assert model.to("cpu") is model
    with pytest.raises(ValueError, match="name a run's folder"):
        hear.load_model()


def test_hear_attributes(weights: str) -> None:
    model = hear.load_model(weights)
    assert model.sample_rate in (16_000, 22_050, 44_100, 48_000)
    assert type(model.scene_embedding_size) is int and type(model.timestamp_embedding_size) is int


def test_hear_timestamp_embeddings(weights: str) -> None:
    model = hear.load_model(weights)
    audio = noise(16, 2.0)
    embeddings, timestamps_ms = hear.get_timestamp_embeddings(audio, model)
    assert embeddings.dtype == torch.float32 and len(embeddings) == 16
    assert embeddings.shape[:2] == timestamps_ms.shape and embeddings.shape[2] == model.timestamp_embedding_size
    apart_ms = torch.diff(timestamps_ms)
    assert (apart_ms - apart_ms.mean()).abs().max() < 1e-3
    assert apart_ms[0, 0] == 160 and timestamps_ms[0, 0] == 75  # 16 frames of 10 ms, centred on 0, 10, ... 150 ms
    assert 2_000 - 160 < timestamps_ms[0, -1] <= 2_000
    embeddings, timestamps_ms = hear.get_timestamp_embeddings(noise(1, 2.3), model)  # the last step holds 60 ms
    assert timestamps_ms[0, -1] == 2155 and embeddings.shape[1] == timestamps_ms.shape[1]
    _, centres_s = model.pretrained.embed_frames(noise(1, 2.3)[0], model.sample_rate)
    assert centres_s[-2:] == pytest.approx([2.155, 2.27])  # frames centred on 2.24 to 2.30 s


def test_hear_embeds_a_sound_the_same_alone_and_with_others(weights: str) -> None:
    model, sounds = hear.load_model(weights), noise(3, 1.7)
    together = hear.get_scene_embeddings(sounds, model)
    assert all(torch.equal(hear.get_scene_embeddings(sounds[[i]], model)[0], together[i]) for i in range(3))
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_hear_scene_embeddings(weights: str) -> None:
    model = hear.load_model(weights)
    embeddings = hear.get_scene_embeddings(noise(8, 3.74), model)
    assert embeddings.dtype == torch.float32 and embeddings.shape == (8, model.scene_embedding_size)


def test_our_hear_module_is_an_encoder_like_any_other(weights: str, store: Store) -> None:
    encoder = as_encoder(f"hear:melmask.adapters.hear@{weights}")
    assert np.allclose(
        encoder.embed_store(store), PretrainedEncoder.load(Path(weights)).embed_store(store), atol=ROUNDING
    )


# X-ARES. Rules as checked by its audio_encoder_checker, version 0.1.3, in its order.


def test_xares_encoder(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [name for name in dir(xares) if name.endswith("Encoder")] == ["MelmaskEncoder"]
    monkeypatch.setenv("MELMASK_ENCODER", weights)
    encoder = xares.MelmaskEncoder()
    assert isinstance(encoder, torch.nn.Module)
    assert encoder.sampling_rate == 16_000 and encoder.hop_size_in_ms == 160
    encoded = encoder(torch.randn(2, 50_000))
    assert encoded.ndim == 3 and len(encoded) == 2 and encoded.shape[2] == encoder.output_dim
    assert encoded.shape[1] == -(-(1 + 50_000 // 160) // 16)
    monkeypatch.delenv("MELMASK_ENCODER")
    with pytest.raises(ValueError, match="MELMASK_ENCODER"):
        xares.MelmaskEncoder()


# MTEB. Its EncoderProtocol, version 2.26: encode over a loader of rows.


def test_mteb_rows_of_any_length_rate_and_number_of_channels(weights: str, store: Store) -> None:
    waves = waves_of(store, range(4))
    rows: list[dict[str, Any]] = [{"audio": {"array": wave, "sampling_rate": 16_000}} for wave in waves]
    rows[1]["audio"]["array"] = np.stack([waves[1] + 0.1, waves[1] - 0.1])
    rows[2]["audio"] = {"array": np.repeat(waves[2], 2), "sampling_rate": 32_000}
    loader = torch.utils.data.DataLoader(rows, batch_size=3)
    model = mteb.MelmaskModel(weights)
    vectors = model.encode(loader, task_metadata=None, hf_split="test", hf_subset="default")
    expected = PretrainedEncoder.load(Path(weights)).embed_store(store, range(4))
    assert vectors.shape == expected.shape and vectors.dtype == np.float32
    assert np.allclose(vectors[[0, 3]], expected[[0, 3]], atol=ROUNDING)
    assert np.allclose(vectors[1], expected[1], atol=0.01)  # the mean of two channels rounds its samples
    assert np.abs(vectors[2] - expected[2]).mean() < 0.1  # repeated samples are not quite the same sound
    with pytest.raises(ValueError, match="no audio"):
        model.encode(torch.utils.data.DataLoader([{"text": "hello"}], batch_size=1))


# scikit-learn.


@pytest.mark.filterwarnings("ignore")  # its own about checks that it skips
def test_check_estimator(weights: str, as_for_users: None) -> None:
    beyond = {"check_fit_idempotent": "its samples reach 100, which is refused as no sound"}
    results = check_estimator(MelmaskEmbedder(weights), on_skip=None, expected_failed_checks=beyond)
    assert len(results) > 40
    not_passed = {result["check_name"] for result in results if result["status"] != "passed"}
    assert not_passed <= {"check_array_api_input", *beyond}  # of arrays that are not NumPy's, which are switched on


def test_fitting_again_changes_nothing(weights: str) -> None:
    waves = 0.1 * np.random.default_rng(0).standard_normal((4, 3000)).astype(np.float32)
    embedder = MelmaskEmbedder(weights).fit(waves)
    assert np.array_equal(embedder.transform(waves), embedder.fit(waves).transform(waves))


def test_embedder_in_a_pipeline_on_files(weights: str, recordings: Path, store: Store) -> None:
    clips = read_manifest(recordings)
    paths, labels = [str(clip.path) for clip in clips], [clip.label for clip in clips]
    pipeline = make_pipeline(MelmaskEmbedder(weights), StandardScaler(), LogisticRegression())
    assert pipeline.fit(paths, labels).score(paths, labels) > 0.7
    vectors = pipeline[0].transform(paths)
    assert np.allclose(vectors, PretrainedEncoder.load(Path(weights)).embed_store(store), atol=ROUNDING)
    assert vectors.shape[1] == len(pipeline[0].get_feature_names_out())
    ragged = pipeline[0].transform([read_audio(clip.path, 16_000) for clip in clips])
    assert np.array_equal(ragged, vectors)
    assert np.array_equal(pipeline[0].transform(np.array(paths)), vectors)


def test_embedder_has_parameters_to_search_over(weights: str) -> None:
    embedder = clone(MelmaskEmbedder(weights, pooling="mean+std")).set_params(layers="all")
    assert embedder.get_params() == {"run": weights, "layers": "all", "pooling": "mean+std"}
    assert embedder.fit_transform(noise(2, 0.5).numpy()).shape == (2, 2 * 2 * 5 * 32)


@pytest.mark.parametrize("recordings_", [[np.array([0.1, np.nan] * 500)], [np.zeros((2, 500))]])
def test_embedder_refuses_what_is_no_waveform(recordings_: list[np.ndarray], weights: str) -> None:
    with pytest.raises(ValueError, match="recording 0"):
        MelmaskEmbedder(weights).fit(recordings_).transform(recordings_)


def test_embedder_names_a_file_that_cannot_be_read(weights: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "fine.wav", noise(1, 0.5)[0].numpy(), 16_000)
    with pytest.raises(ValueError, match=r"gone\.wav"):
        MelmaskEmbedder(weights).fit_transform([tmp_path / "fine.wav", tmp_path / "gone.wav"])
