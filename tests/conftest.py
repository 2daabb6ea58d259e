"""Shared by all tests: small recordings, and a store made of them by the real preparation."""

import os
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import soundfile
import torch

import shapes
from melmask.data.prepare import prepare
from melmask.data.store import Store
from melmask.logmel import LogMelSpec
from melmask.nn import shipped
from melmask.nn.encoder_file import EncoderFile, FrontEnd
from melmask.nn.shipped import SHIPPED
from melmask.nn.vit import Size, random_encoder


@pytest.fixture(autouse=True, scope="session")
def few_threads():
    """One thread, or MELMASK_TEST_THREADS: tiny tensors are slower on many, and the runner may run elsewhere too."""
    before = torch.get_num_threads()
    torch.set_num_threads(int(os.environ.get("MELMASK_TEST_THREADS", "1")))
    yield
    torch.set_num_threads(before)


def pytest_configure(config: pytest.Config) -> None:
    """The hooks of shapes also hold for doctests, which do not lie under this folder."""
    config.pluginmanager.register(shapes, "shapes")


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of this process's tests, as the user's may hold what another process or an earlier run left there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MELMASK_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def as_for_users():
    """Without the type checks of the tests, which would refuse a wrong choice before the code's own check can."""
    shapes.check_again()
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def chirp(seconds: float, low_hz: float, high_hz: float, rng: np.random.Generator) -> np.ndarray:
    """A gliding tone in noise."""
    time_s = np.arange(int(seconds * 16_000)) / 16_000
    phase = 2 * np.pi * (low_hz * time_s + (high_hz - low_hz) * time_s**2 / (2 * seconds))
    return (0.3 * np.sin(phase) + 0.02 * rng.standard_normal(len(time_s))).astype(np.float32)


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 24 recordings of 0.4 to 3 s: rising and falling chirps, in three folds and six groups."""
    folder, rng = tmp_path_factory.mktemp("recordings"), np.random.default_rng(0)
    lines = ["path,label,fold,group"]
    for i in range(24):
        low, high = sorted(rng.uniform(200, 5000, 2))
        rising = i % 2 == 0
        sound = chirp(rng.uniform(0.4, 3.0), low if rising else high, high if rising else low, rng)
        soundfile.write(folder / f"{i:02}.wav", sound, 16_000)
        lines.append(f"{i:02}.wav,{'rising' if rising else 'falling'},{i // 2 % 3 + 1},g{i // 2 % 6}")
    (folder / "chirps.csv").write_text("\n".join(lines) + "\n")
    return folder / "chirps.csv"


@pytest.fixture(scope="session")
def store(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The recordings, prepared."""
    return prepare([recordings], tmp_path_factory.mktemp("stores") / "chirps", num_workers=0)


@pytest.fixture
def shipped_tiny(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the encoder ``tiny`` that comes with melmask: random weights in a form that computes quickly."""
    folder = tmp_path_factory.mktemp("weights")
    encoder = random_encoder(Size(32, 2, 2), (16, 16), seed=1)
    file = EncoderFile(encoder, FrontEnd(LogMelSpec(), -7.1, 4.2), 208, layers=(1, 2), pooling="mean+std")
    file.save(folder / SHIPPED["tiny"], torch.float16)
    monkeypatch.setattr(shipped, "WEIGHTS", folder)
    return folder / SHIPPED["tiny"]


@pytest.fixture(scope="session")
def real_audio() -> Path:
    """The folder of labelled recordings beside the checkout, ``shared/audio``; tests that need it are skipped without.

    Recordings are not part of the repository.
    """
    found = [parent / "shared" / "audio" for parent in Path(__file__).parents]
    folders = [folder for folder in found if (folder / "esc50.csv").is_file()]
    if not folders:
        pytest.skip("there are no real recordings: no shared/audio/esc50.csv beside the checkout")
    return folders[0]
