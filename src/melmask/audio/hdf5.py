"""Waveforms in HDF5 files, one data set a recording, as EAT packs AudioSet."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from melmask.audio.facts import AudioError, Note, Noted, no_access

BLOCK_SAMPLES = 2**20  # read at a time
RATE_NAMES = ("sample_rate", "sampling_rate", "samplerate", "sr", "rate", "fs")  # attributes, of data set or file
EAT_RATE_HZ = 32_000
MAX_CHANNELS = 64
RATE_NOTE = "sample rate assumed"


class Hdf5Waveform:
    """A data set of samples [sample], [channel, sample] or [sample, channel], as a source of blocks.

    Args:
        path: for messages.
        dataset: of h5py; floats in -1..1, or integers of 16 or 32 bits.

    Raises:
        AudioError: it holds no waveform.

    Source: EAT (arXiv 2401.03497), whose files hold data sets named after clips, at 32 kHz. Deviates: an attribute that
    names another rate is believed.
    """

    def __init__(self, path: Path, dataset: Any) -> None:
        self.path, self.dataset = path, dataset
        kind = dataset.dtype.name
        if kind not in ("float16", "float32", "float64", "int16", "int32") or dataset.ndim not in (1, 2):
            detail = f"a data set of shape {dataset.shape} and type {kind} is no waveform. Leave it out."
            raise AudioError("not audio", path, detail)
        self.scale = {"int16": 2.0**-15, "int32": 2.0**-31}.get(kind, 1.0)
        self.is_channels_last = dataset.ndim == 2 and dataset.shape[1] < dataset.shape[0]
        self.num_channels = 1 if dataset.ndim == 1 else min(dataset.shape)
        if self.num_channels > MAX_CHANNELS:
            raise AudioError("not audio", path, f"a data set of shape {dataset.shape} is no waveform. Leave it out.")
        told = [
            int(attrs[name]) for attrs in (dataset.attrs, dataset.file.attrs) for name in RATE_NAMES if name in attrs
        ]
        self.is_rate_told, self.rate_hz = bool(told), (told or [EAT_RATE_HZ])[0]

    def blocks(self, noted: Noted) -> Iterator[np.ndarray]:
        """Float samples [channel, sample], block by block, to the end."""
        num_samples, by_channel = max(self.dataset.shape), self.dataset.ndim == 2 and not self.is_channels_last
        for start in range(0, num_samples, BLOCK_SAMPLES):
            part = slice(start, start + BLOCK_SAMPLES)
            try:
                block = self.dataset[:, part] if by_channel else self.dataset[part]
            except OSError as error:
                raise no_access(self.path, error) from error
            channels = block[None] if block.ndim == 1 else block.T if self.is_channels_last else block
            yield np.ascontiguousarray(channels).astype(np.float32) * np.float32(self.scale)
        if not self.is_rate_told:
            noted(Note(RATE_NOTE, f"its HDF5 file names none: read as {EAT_RATE_HZ} Hz, as EAT's are"))

    def close(self) -> None:
        """Nothing: the file stays open for the next one."""
