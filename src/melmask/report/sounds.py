"""Short sounds of recordings, for a page: compressed, so that some hundreds fit into it."""

import base64
import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float32

from melmask.audio import decode

SAMPLE_RATE_HZ = 16_000
MAX_S = 4.0  # of a recording; its middle
READ_S = 60.0  # of a longer recording only its first minute is decoded
PEAK = 0.7  # that every sound is scaled to: some recordings are too quiet to be heard beside others
FADE_S = 0.01


def excerpt(path: Path, start_s: float | None = None, length_s: float = MAX_S) -> Float32[np.ndarray, " _sample"]:
    """The middle of a recording, or of its first minute: at `SAMPLE_RATE_HZ`, scaled to one peak.

    Args:
        path: the recording.
        start_s: where the excerpt starts instead, in seconds.
        length_s: of the excerpt, at most.

    Raises:
        AudioError: the file cannot be read; see `melmask.audio.decode`.
    """
    first, wanted = round((start_s or 0.0) * SAMPLE_RATE_HZ), round(length_s * SAMPLE_RATE_HZ)
    wave = decode(path, SAMPLE_RATE_HZ, partial(_minute_from, first))
    start = max(0, (len(wave) - wanted) // 2) if start_s is None else 0
    cut = wave[start : start + wanted].astype(np.float32)
    peak = float(np.abs(cut).max(initial=0.0))
    cut = cut * np.float32(PEAK / peak) if peak > 0 else cut
    fade = min(round(FADE_S * SAMPLE_RATE_HZ), len(cut) // 2)
    if len(wave) > wanted and fade:
        ramp = np.linspace(0, 1, fade, dtype=np.float32)
        cut[:fade] *= ramp
        cut[-fade:] *= ramp[::-1]
    return cut


def as_url(wave: Float32[np.ndarray, " _sample"]) -> str:
    """A sound as a data URL, in MP3, which every browser plays: about 5.5 kB a second."""
    file = io.BytesIO()
    soundfile.write(file, wave, SAMPLE_RATE_HZ, format="MP3", subtype="MPEG_LAYER_III")
    return f"data:audio/mpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _minute_from(first: int, blocks: Iterator[np.ndarray]) -> np.ndarray:
    """`READ_S` from a sample on: all of a shorter recording, whose end is then checked as well."""
    taken: list[np.ndarray] = []
    num_samples = 0
    for block in blocks:
        skipped = min(first, len(block))
        first, block = first - skipped, block[skipped:]
        taken.append(block)
        num_samples += len(block)
        if num_samples >= READ_S * SAMPLE_RATE_HZ:
            break
    return np.concatenate(taken)[: round(READ_S * SAMPLE_RATE_HZ)]
