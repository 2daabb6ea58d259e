"""`embed` on files, waveforms and lists of them: one meaning for all, the features of a store, and clear refusals."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from bounds import assert_features_close
from melmask.audio import read_audio
from melmask.cli.main import main
from melmask.data.prepare import prepare
from melmask.data.store import Store
from melmask.encoders import pretrained, recordings
from melmask.encoders.baselines import LogMelStatistics
from melmask.encoders.features import FeatureSettings
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.encoders.recordings import log_mels
from melmask.encoders.registry import load
from melmask.encoders.waveform import wrap
from melmask.logmel import LogMelSpec
from melmask.nn.encoder_file import EncoderFile, FrontEnd
from melmask.nn.vit import SIZES, Encoder

RATES_HZ = (16_000, 44_100, 16_000, 22_050, 48_000)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Noise of 0.4 to 5 s, of several rates and forms, one of them stereo."""
    folder, rng = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    forms = [("PCM_16", 1), ("PCM_16", 2), ("FLOAT", 1), ("PCM_24", 1), ("PCM_16", 1)]
    for number, (seconds, rate_hz, (form, num_channels)) in enumerate(
        zip((1.0, 5.0, 2.3, 0.4, 1.0), RATES_HZ, forms, strict=True)
    ):
        time_s = np.arange(int(rate_hz * seconds)) / rate_hz
        sound = 0.1 * rng.standard_normal((len(time_s), num_channels)) * (0.1 + np.sin(3 * time_s) ** 2)[:, None]
        soundfile.write(folder / f"{number}.wav", sound, rate_hz, subtype=form)
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def noise_store(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Store:
    return prepare([files[0].parent], tmp_path_factory.mktemp("stores") / "noise", num_workers=0)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("encoder") / "mine.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        EncoderFile(Encoder(SIZES["micro"], (16, 16)), FrontEnd(LogMelSpec(), -7.1, 4.2), crop_frames=96).save(path)
    return path


@pytest.fixture(scope="module")
def encoder(weights: Path) -> PretrainedEncoder:
    return PretrainedEncoder.load(weights)


def wave_of(path: Path) -> tuple[np.ndarray, int]:
    wave, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    return wave.mean(axis=1), rate_hz


def test_files_embed_to_the_bit_as_the_command_writes_them(files, weights, encoder, tmp_path):
    main(["embed", str(weights), str(files[0].parent), "--out", str(tmp_path / "all.npz"), "--workers", "1"])
    with np.load(tmp_path / "all.npz") as written:
        assert [Path(path) for path in written["path"]] == files
        assert np.array_equal(encoder.embed(files), written["features"])
    for number, file in enumerate(files[:2]):
        table = tmp_path / f"{number}.csv"
        table.write_text(f"path\n{file}\n")
        main(["embed", str(weights), str(table), "--out", str(tmp_path / "one.npz"), "--workers", "0"])
        with np.load(tmp_path / "one.npz") as written:
            found = encoder.embed(file)
            assert found.shape == (encoder.num_dims,) and np.array_equal(found, written["features"][0])


@pytest.mark.parametrize("settings", [FeatureSettings(), FeatureSettings("all", "mean+max"), FeatureSettings((1,))])
def test_files_embed_to_the_bit_as_from_a_store(settings, files, weights, noise_store, monkeypatch):
    encoder = PretrainedEncoder.load(weights, settings)
    expected = encoder.embed_store(noise_store)
    assert np.array_equal(encoder.embed(files), expected)
    monkeypatch.setattr(pretrained, "CLIPS_AT_ONCE", 2)
    assert np.array_equal(encoder.embed(files), encoder.embed_store(noise_store))
    monkeypatch.setattr(recordings, "FRAMES_AT_ONCE", 1)  # each by itself
    assert_features_close(encoder.embed(files), expected, SIZES["micro"])


def test_log_mels_are_those_of_a_store_to_the_bit(files, noise_store):
    for row, log_mel in enumerate(log_mels(files, None, LogMelSpec())):
        assert log_mel.dtype == np.float16 and np.array_equal(log_mel, noise_store.log_mel(row))


def test_time_steps_of_a_file_are_those_of_the_store(files, encoder, noise_store):
    for row, file in enumerate(files):
        vectors, times_s = encoder.embed_frames(file)
        expected, expected_s = encoder.frames(noise_store.log_mel(row))
        assert np.array_equal(vectors, expected) and np.array_equal(times_s, expected_s)
        assert vectors.shape == (encoder.num_steps(noise_store.clips[row].num_frames), encoder.num_step_dims)
        assert_features_close(vectors.mean(axis=0), encoder.embed(file), SIZES["micro"])
    with pytest.raises(ValueError, match="call it for each"):
        encoder.embed_frames(files)


def test_a_waveform_embeds_as_its_file_does(files, encoder):
    for file in files:
        wave, rate_hz = wave_of(file)
        assert np.array_equal(encoder.embed(wave, rate_hz), encoder.embed(file))
        assert np.array_equal(encoder.embed_frames(wave, rate_hz)[0], encoder.embed_frames(file)[0])


def test_every_form_of_the_same_recordings_embeds_the_same(files, encoder):
    waves = [read_audio(file, 16_000) for file in files]
    expected = encoder.embed(files)
    assert np.array_equal(encoder.embed(waves, 16_000), expected)
    assert np.array_equal(encoder.embed([torch.from_numpy(wave) for wave in waves], 16_000), expected)
    assert np.array_equal(encoder.embed([str(files[0]), *waves[1:]], 16_000), expected)
    assert np.array_equal(encoder.embed(np.array([str(file) for file in files])), expected)
    equal = np.stack([waves[0], waves[4]])  # both of a second
    for form in (equal, equal.astype(np.float64), torch.from_numpy(equal), list(equal), tuple(equal)):
        found = encoder.embed(form, 16_000)
        assert found.shape == (2, encoder.num_dims) and np.array_equal(found, encoder.embed([files[0], files[4]]))
    one = encoder.embed(equal[:1], 16_000)
    assert one.shape == (1, encoder.num_dims) and np.array_equal(one[0], encoder.embed(equal[0], 16_000))


@pytest.mark.parametrize(("number", "dtype"), [(0, "int16"), (3, "int32")])
def test_pcm_samples_are_scaled_as_in_a_file(number, dtype, files, encoder):
    samples, rate_hz = soundfile.read(files[number], dtype=dtype)
    assert samples.dtype == dtype and np.abs(samples).max() > 1000
    assert np.array_equal(encoder.embed(samples, rate_hz), encoder.embed(files[number]))
    assert np.array_equal(encoder.embed(torch.from_numpy(samples), rate_hz), encoder.embed(files[number]))


def test_encoders_of_every_make_embed_recordings(files, noise_store):
    class Loudness:
        sample_rate_hz = 8_000

        def encode(self, batch, sample_rate):
            assert sample_rate == 8_000
            return np.stack([np.abs(batch).mean(axis=1), np.full(len(batch), batch.shape[1])], axis=1)

    loudness = wrap(Loudness())
    assert np.array_equal(loudness.embed(files), loudness.embed_store(noise_store))
    assert loudness.embed(*wave_of(files[1])) == pytest.approx(loudness.embed(files[1]))
    statistics = LogMelStatistics()
    assert np.array_equal(statistics.embed(files), statistics.embed_store(noise_store))
    for one in (loudness, statistics):
        assert one.embed(files[0]).ndim == 1 and one.embed(files[:1]).shape == (1, len(one.embed(files[0])))
        with pytest.raises(ValueError, match="no time steps"):
            one.embed_frames(files[0])


def test_the_encoder_of_a_name_embeds_recordings(files, weights, encoder):
    assert np.array_equal(load(weights).embed(files), encoder.embed(files))
    assert load(str(weights), "all", "mean+std").embed(files[0]).shape == (2 * 2 * 5 * 32,)


WAVE = np.sin(np.arange(8_000)).astype(np.float32)


@pytest.mark.parametrize(
    ("audio", "rate_hz", "message"),
    [
        (WAVE, None, r"needs its sample rate.*embed\(waveform, 44100\)"),
        ([WAVE, WAVE], None, "needs its sample rate"),
        (WAVE, 44.1, "sample rate of 44.1 Hz"),
        (WAVE, -16_000, "sample rate of -16000 Hz"),
        ([], 16_000, "list is empty"),
        (WAVE[:0], 16_000, "the waveform is empty"),
        (np.zeros((0, 8_000), np.float32), 16_000, "list is empty"),
        ([WAVE, WAVE[:0]], 16_000, "recording 1 is empty"),
        (np.stack([WAVE, WAVE], axis=1), 16_000, r"shape \(8000, 2\) is \[clip, sample\].*: .*average channels"),
        (WAVE[:1], 1_600_000, "not one sample is left"),
        (np.append(WAVE, np.nan).astype(np.float32), 16_000, "NaN or infinite"),
        ([WAVE, np.append(WAVE, np.inf)], 16_000, "recording 1 has NaN or infinite"),
        (WAVE * 1e30, 16_000, "so large that their power overflows"),
        (WAVE.astype(np.float64) * 1e300, 16_000, "NaN or infinite"),
        (np.zeros((1, 2, 8_000)), 16_000, r"recording 0 of shape \(2, 8000\) is no waveform"),
        (np.array(0.5), 16_000, r"shape \(\) is no waveform"),
        ((1000 * WAVE).astype(np.int64), 16_000, "type int64: give floats in -1..1, or PCM of type int16 or int32"),
        (WAVE > 0, 16_000, "type bool"),
        (WAVE.astype(complex), 16_000, "type complex128"),
        ([0.1, 0.2], 16_000, "recording 0 is a float"),
        ("gone.wav", None, "gone.wav: missing file"),
        ([WAVE, "gone.wav"], 16_000, "gone.wav: missing file"),
    ],
)
def test_what_cannot_be_embedded_is_refused_with_the_remedy(audio, rate_hz, message, encoder, as_for_users):
    with pytest.raises(ValueError, match=message):
        encoder.embed(audio, rate_hz)


@pytest.mark.parametrize("num_samples", [1, 200, 201, 800])
def test_a_short_waveform_is_embedded_as_a_short_file_is(num_samples, encoder, tmp_path):
    wave = WAVE[1 : 1 + num_samples]
    found = encoder.embed(wave, 16_000)
    padded = np.pad(wave, (0, 400 - num_samples)) if num_samples <= 200 else wave
    assert np.isfinite(found).all() and np.array_equal(found, encoder.embed(padded, 16_000))
    if num_samples > 1:  # one sample is a silent file
        soundfile.write(tmp_path / "short.wav", wave, 16_000, subtype="FLOAT")
        assert np.array_equal(found, encoder.embed(tmp_path / "short.wav"))


def test_a_silent_waveform_embeds_and_a_silent_file_is_refused(encoder, tmp_path):
    silence = np.zeros(16_000, np.float32)
    assert np.isfinite(encoder.embed(silence, 16_000)).all()
    soundfile.write(tmp_path / "silence.wav", silence, 16_000)
    with pytest.raises(ValueError, match="silent"):
        encoder.embed(tmp_path / "silence.wav")


def test_embedding_leaves_the_number_of_threads_and_the_random_numbers_as_they_were(files, encoder):
    state, before = torch.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        encoder.embed(files[0])
        load("untrained:micro")
        assert torch.get_num_threads() == 2 and torch.equal(torch.get_rng_state(), state)
    finally:
        torch.set_num_threads(before)


def test_it_computes_where_its_weights_are(encoder):
    assert encoder.to("cpu") is encoder and encoder.device == torch.device("cpu")
