"""Log-mels in .npy files, as other preparations leave them: their shape and their values are checked."""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tokenize import TokenError
from typing import IO

import numpy as np
from jaxtyping import Float16

from melmask.audio import AudioError, archive_of
from melmask.audio.places import opened_content
from melmask.logmel import LogMelSpec

BLOCK_FRAMES = 2**13
TOLERANCE = 0.1  # of float16, at the value of silence
MAX_LOG_MEL = 20.0  # full scale gives about 9
STANDARDISED_MIN, STANDARDISED_STD = -2.5, 2.5  # of what was divided by the deviation of a data set already
NOT_LOG_MELS = "not log-mels"


def log_mel_blocks(path: Path, spec: LogMelSpec) -> Iterator[Float16[np.ndarray, "frame mel"]]:
    """The frames of a .npy file in blocks; the file is not read as a whole.

    Args:
        path: of an array [mel, frame], [1, mel, frame] or [frame, mel]: natural logarithms of the power in mel bands,
            not normalised.
        spec: the front end that they are of.

    Raises:
        AudioError: the file is no array of that shape, has NaN or infinite values, is constant, or its values are no
            natural logarithms of the power of sound of full scale 1: in decibels, or normalised.

    Source: M2D (arXiv 2210.14648), whose preparation keeps [1, mel, frame] in float32 with one file a clip.
    """
    array = _array(path, spec)
    size = array.num_frames * spec.num_mels
    low, high, total, squares = np.inf, -np.inf, 0.0, 0.0
    for start, block in array.blocks():
        values = block.astype(np.float64)
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        if not (np.isfinite(low) and np.isfinite(high)):
            raise AudioError("contains NaN or infinite samples", path, f"near frame {start}. Make it again.")
        total, squares = total + float(values.sum()), squares + float(np.square(values).sum())
        yield block.astype(np.float16)
    if low == high:
        raise AudioError("silent", path, f"all {size} values are equal. Remove it.")
    mean = total / size
    std = max(0.0, squares / size - mean**2) ** 0.5
    found = f"from {low:.2f} to {high:.2f}, mean {mean:.2f}, deviation {std:.2f}"
    if low < spec.silence - TOLERANCE or high > MAX_LOG_MEL:
        wanted = f"natural logarithms lie between {spec.silence:.2f}, of silence, and {MAX_LOG_MEL:g}"
        raise AudioError(
            NOT_LOG_MELS, path, f"its values are {found}; {wanted}. Convert them from decibels, or make it again."
        )
    if low > STANDARDISED_MIN and std < STANDARDISED_STD:
        raise AudioError(
            NOT_LOG_MELS, path, f"its values are {found}, as if normalised already. Give them before that."
        )


@dataclass(frozen=True)
class _Array:
    """Where the values of a .npy file lie.

    Args:
        path: for messages.
        file: that holds them.
        start: of the first value, in bytes.
        dtype: of the values.
        num_frames, num_mels: its sides.
        by_band: whether the frames of one band lie together, and not the bands of one frame.
    """

    path: Path
    file: Path
    start: int
    dtype: np.dtype
    num_frames: int
    num_mels: int
    by_band: bool

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """The first frame of each block, and its values [frame, mel]. A map would end the process if it shrank."""
        with self.file.open("rb", buffering=0) as file:
            for start in range(0, self.num_frames, BLOCK_FRAMES):
                num = min(BLOCK_FRAMES, self.num_frames - start)
                if self.by_band:
                    bands = [self._read(file, band * self.num_frames + start, num) for band in range(self.num_mels)]
                    yield start, np.stack(bands, axis=1)
                else:
                    values = self._read(file, start * self.num_mels, num * self.num_mels)
                    yield start, values.reshape(num, self.num_mels)

    def _read(self, file: IO[bytes], first: int, num: int) -> np.ndarray:
        file.seek(self.start + first * self.dtype.itemsize)
        values = np.fromfile(file, self.dtype, num)
        if len(values) < num:
            raise AudioError("truncated or damaged", self.path, "it became shorter while it was read. Fetch it again.")
        return values


def _array(path: Path, spec: LogMelSpec) -> _Array:
    """The array [frame, mel] of a .npy file."""
    with opened_content(path) as content:
        head, start, num_bytes = BytesIO(content.head), content.start, content.num_bytes
    try:
        version = np.lib.format.read_magic(head)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(head)
    except (ValueError, TypeError, KeyError, SyntaxError, TokenError, OverflowError, RecursionError) as error:
        raise AudioError(NOT_LOG_MELS, path, f"it is no .npy array: {error}. Make it again.") from error
    sides = shape[1:] if len(shape) == 3 and shape[0] == 1 else shape
    if dtype.kind != "f" or len(sides) != 2 or spec.num_mels not in sides or 0 in sides:
        wanted = (
            f"[{spec.num_mels}, frame] of floats; --front-end num_mels={min(sides, default=0)} may be what it is of"
        )
        raise AudioError(NOT_LOG_MELS, path, f"an array of shape {shape} and type {dtype}, not {wanted}.")
    if head.tell() + dtype.itemsize * int(np.prod(shape)) > num_bytes:
        raise AudioError("truncated or damaged", path, f"it ends before its {shape} values. Fetch it again.")
    place = archive_of(path)
    is_bands_first = sides[0] == spec.num_mels
    num_frames = sides[1] if is_bands_first else sides[0]
    file = place[0] if place else path
    return _Array(path, file, start + head.tell(), dtype, num_frames, spec.num_mels, is_bands_first != is_fortran)
