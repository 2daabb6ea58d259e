"""The cache of features: an entry is found if nothing has changed, and never otherwise."""

import io
import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from bounds import assert_features_close
from melmask.data.prepare import prepare
from melmask.data.store import Store
from melmask.encoders import cache
from melmask.encoders.baselines import LogMelStatistics
from melmask.encoders.cache import cached_embed, cached_features, cached_time_steps
from melmask.encoders.pretrained import FeatureSettings, PretrainedEncoder
from melmask.encoders.timesteps import TimeSteps
from melmask.nn.encoder_file import ENCODER, EncoderFile, FrontEnd
from melmask.nn.vit import SIZES, Encoder
from melmask.runtime import cache_folder


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """The calls of encoders that computed features, in their order."""
    calls: list[str] = []
    for name in ("embed_store", "time_steps"):
        monkeypatch.setattr(PretrainedEncoder, name, _spied(getattr(PretrainedEncoder, name), calls))
    return calls


def _spied(method: Callable, calls: list[str]) -> Callable:
    def noted(*arguments, **options):
        calls.append(method.__name__)
        return method(*arguments, **options)

    return noted


def frozen(store: Store, settings: FeatureSettings | None = None) -> PretrainedEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = Encoder(SIZES["micro"], (16, 16))
    return PretrainedEncoder(encoder, FrontEnd(store.spec, store.mean, store.std), 208, settings or FeatureSettings())


def test_features_are_computed_once(store, tmp_path, made):
    first = cached_embed(frozen(store), store, tmp_path)
    again = cached_embed(frozen(store), store, tmp_path)
    assert made == ["embed_store"] and np.array_equal(first, again) and again.dtype == np.float32
    assert np.array_equal(first, frozen(store).embed_store(store))


def test_a_changed_setting_or_weight_is_computed_anew(store, tmp_path, made):
    first = cached_embed(frozen(store), store, tmp_path)
    touched = frozen(store)
    with torch.no_grad():
        touched.encoder.norm.bias[0] += 1
    assert np.abs(cached_embed(touched, store, tmp_path) - first).max() == pytest.approx(1, abs=1e-4)
    for settings in (FeatureSettings((1,)), FeatureSettings("last", "mean+max"), FeatureSettings("last", "mean+std")):
        assert not np.array_equal(cached_embed(frozen(store, settings), store, tmp_path), first)
    touched.front_end = FrontEnd(store.spec, store.mean + 1, store.std)
    cached_embed(touched, store, tmp_path)
    assert made == ["embed_store"] * 6


def test_a_changed_table_is_computed_anew(recordings, store, tmp_path, made):
    first = cached_embed(frozen(store), store, tmp_path / "cache")
    table = recordings.parent / "reversed.csv"
    header, *lines = recordings.read_text().splitlines()
    try:
        table.write_text("\n".join([header, *lines[::-1]]) + "\n")
        other = prepare([table], tmp_path / "reversed", num_workers=0)
    finally:
        table.unlink()
    found = cached_embed(frozen(store), other, tmp_path / "cache")
    assert made == ["embed_store"] * 2
    assert_features_close(found, first[::-1], SIZES["micro"], num_patches=5 * 38)


def test_another_format_of_features_is_computed_anew(store, tmp_path, made, monkeypatch):
    cached_embed(frozen(store), store, tmp_path)
    monkeypatch.setattr(cache, "FORMAT", cache.FORMAT + 1)
    cached_embed(frozen(store), store, tmp_path)
    assert made == ["embed_store"] * 2


def test_time_steps_are_kept_by_rows_and_mapped(store, tmp_path, made):
    first = cached_time_steps(frozen(store), store, folder=tmp_path)
    again = cached_time_steps(frozen(store), store, folder=tmp_path)
    assert made == ["time_steps"] and np.array_equal(first.steps, again.steps)
    assert isinstance(again.steps.base, np.memmap) and not again.steps.flags.writeable
    some = cached_time_steps(frozen(store), store, [5, 3], folder=tmp_path)
    assert made == ["time_steps"] * 2 and len(some) == 2
    for number, row in enumerate((5, 3)):
        assert np.abs(some.clip(number) - first.clip(row)).max() < 4e-3
    cached_embed(frozen(store), store, tmp_path)
    assert made[2:] == ["embed_store"]


def test_time_steps_of_encoders_without_an_identity_are_not_cached(store, tmp_path, monkeypatch):
    expected = frozen(store).time_steps(store, [5, 3])
    monkeypatch.setattr(PretrainedEncoder, "identity", "")
    steps = cached_time_steps(frozen(store), store, [5, 3], folder=tmp_path)
    assert np.array_equal(steps.steps, expected.steps) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("reads", "name"), [("clips", "embed_store"), ("time steps", "time_steps")])
def test_a_probe_is_given_what_it_reads_if_the_encoder_has_it(reads, name, store, tmp_path, made):
    found = cached_features(reads, frozen(store), store, tmp_path)
    assert isinstance(found, TimeSteps) == (reads == "time steps") and made == [name]
    assert isinstance(cached_features(reads, LogMelStatistics(), store, tmp_path), np.ndarray)


def _flipped(content: bytes) -> bytes:
    return content[:1000] + bytes([content[1000] ^ 64]) + content[1001:]


def _three_columns(content: bytes) -> bytes:
    file = io.BytesIO()
    np.save(file, np.load(io.BytesIO(content))[:, :3])
    return file.getvalue() + content[-16:]


@pytest.mark.parametrize("reads", ["clips", "time steps"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"\x93NUMPY",
        lambda content: b"no array at all",
        lambda content: content[:-1],
        lambda content: content[:500] + bytes(len(content) - 516) + content[-16:],
        _flipped,
        _three_columns,
    ],
)
def test_a_damaged_entry_is_named_and_replaced(reads, store, tmp_path, made, damage):
    def features() -> np.ndarray:
        found = cached_features(reads, frozen(store), store, tmp_path)
        return np.array(found.steps if isinstance(found, TimeSteps) else found)

    first = features()
    entry = next(tmp_path.iterdir())
    entry.write_bytes(damage(entry.read_bytes()))
    with pytest.warns(UserWarning, match=rf"{entry.name} is damaged, and computed again: "):
        assert np.array_equal(features(), first)
    assert np.array_equal(features(), first) and len(made) == 2


def test_an_entry_of_an_earlier_version_is_computed_again_and_a_disk_that_can_only_be_read_is_no_error(
    store, tmp_path, made, monkeypatch
):
    first = cached_embed(frozen(store), store, tmp_path)
    np.save(next(tmp_path.iterdir()), first * 2)  # without a checksum
    assert np.array_equal(cached_embed(frozen(store), store, tmp_path), first)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    other = tmp_path / "other"
    assert np.array_equal(cached_embed(frozen(store), store, other), first) and not list(other.iterdir())
    cached_time_steps(frozen(store), store, folder=other)
    assert np.array_equal(cached_embed(frozen(store), store, tmp_path), first)
    assert not list(other.iterdir()) and made == ["embed_store"] * 3 + ["time_steps"]


def test_embeddings_that_are_not_finite_are_refused(store, tmp_path):
    encoder = frozen(store)
    with torch.no_grad():
        encoder.encoder.norm.bias[3] = float("nan")
    first = store.clips[0].clip.path
    for embed in (lambda: cached_embed(encoder, store, tmp_path), lambda: encoder.embed_store(store)):
        with pytest.raises(ValueError, match=rf"encoder gives NaN or infinite values for {first}, and for \d+ of"):
            embed()
    with pytest.raises(ValueError, match="encoder gives NaN or infinite values for recording 0"):
        encoder.embed(np.ones(8000, np.float32) * 0.1, 16_000)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_writer_leaves_nothing(store, tmp_path, monkeypatch):
    def half_written(file, array, **options):
        file.write(array.tobytes()[:100])
        file.flush()
        assert [path.suffix for path in tmp_path.iterdir()] == [".tmp"]  # nobody could find it yet
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", half_written)
    with pytest.raises(KeyboardInterrupt):
        cached_embed(frozen(store), store, tmp_path)
    assert not list(tmp_path.iterdir())
    encoder = frozen(store)
    with torch.no_grad():
        encoder.encoder.norm.bias.fill_(1e6)
    with pytest.raises(ValueError, match="half precision"):
        cached_time_steps(encoder, store, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_folder_of_the_cache_is_that_of_the_environment(store, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("MELMASK_CACHE", raising=False)
    assert cache_folder() == tmp_path / "xdg" / "melmask"
    monkeypatch.setenv("MELMASK_CACHE", str(tmp_path / "mine"))
    cached_embed(frozen(store), store)
    assert [path.parent for path in (tmp_path / "mine").rglob("*.npy")] == [tmp_path / "mine" / "features"]


@pytest.mark.slow
def test_processes_that_make_the_same_entry_do_not_disturb_each_other(store, tmp_path):
    encoder = frozen(store)
    EncoderFile(encoder.encoder, encoder.front_end, encoder.crop_frames).save(tmp_path / ENCODER)
    code = f"""
from pathlib import Path
from melmask.data.store import Store
from melmask.encoders.cache import cached_embed, cached_time_steps
from melmask.encoders.pretrained import PretrainedEncoder
encoder, store = PretrainedEncoder.load(Path({str(tmp_path / ENCODER)!r})), Store.open(Path({str(store.folder)!r}))
for number in range(5):
    folder = Path({str(tmp_path / "cache")!r}, str(number))
    print(number, cached_embed(encoder, store, folder).sum())
    print(number, cached_time_steps(encoder, store, folder=folder).steps.astype(float).sum())
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    printed = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    assert printed[0][0] == printed[1][0] and len(printed[0][0].splitlines()) == 10
    assert len(list((tmp_path / "cache").rglob("*.*"))) == 10
