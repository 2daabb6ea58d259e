"""Sounds to measure on: coloured noise in files, and what is made of them. Speed does not depend on what is heard."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from melmask.data.prepare import prepare
from melmask.data.store import Store


def write_noise(folder: Path, durations_s: Sequence[float], rate_hz: int = 16_000, kind: str = "wav") -> Path:
    """A file of noise for every duration, in 16 bits; its power falls with the square of the frequency."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i, duration_s in enumerate(durations_s):
        noise = np.cumsum(rng.standard_normal(int(duration_s * rate_hz), dtype=np.float32))
        noise -= np.linspace(noise[0], noise[-1], len(noise), dtype=np.float32)
        noise = 0.5 * noise / np.abs(noise).max() + 1e-3 * rng.standard_normal(len(noise), dtype=np.float32)
        soundfile.write(folder / f"{i:05}.{kind}", noise, rate_hz, subtype="PCM_16")
    return folder


def noise_store(folder: Path, durations_s: Sequence[float]) -> Store:
    """A store of such files."""
    return prepare([write_noise(folder / "noise", durations_s)], folder / "store", num_workers=0)


def write_clip_files(store: Store, folder: Path) -> Path:
    """The store's clips in the plain form: float32 [mel, frame], one .npy file each."""
    folder.mkdir(parents=True)
    for row in range(len(store)):
        np.save(folder / f"{row:05}.npy", np.ascontiguousarray(store.log_mel(row).T, dtype=np.float32))
    return folder
