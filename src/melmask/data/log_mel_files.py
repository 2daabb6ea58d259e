"""Log-mels in .npy files, as other preparations leave them: their shape and their values are checked."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

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
    """The frames of a .npy file in blocks; the file is mapped and not read as a whole.

    Args:
        path: of an array [mel, frame], [1, mel, frame] or [frame, mel]: natural logarithms of the power in mel bands,
            not normalised.
        spec: the front end that they are of.

    Raises:
        AudioError: the file is no array of that shape, has NaN or infinite values, is constant, or its values are no
            natural logarithms of the power of sound of full scale 1: in decibels, or normalised.

    Source: M2D (arXiv 2210.14648), whose preparation keeps [1, mel, frame] in float32 with one file a clip.
    """
    log_mel = _mapped(path, spec)
    low, high, total, squares = np.inf, -np.inf, 0.0, 0.0
    for start in range(0, len(log_mel), BLOCK_FRAMES):
        block = np.ascontiguousarray(log_mel[start : start + BLOCK_FRAMES])
        values = block.astype(np.float64)
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        if not (np.isfinite(low) and np.isfinite(high)):
            raise AudioError("contains NaN or infinite samples", path, f"near frame {start}. Make it again.")
        total, squares = total + float(values.sum()), squares + float(np.square(values).sum())
        yield block.astype(np.float16)
    if low == high:
        raise AudioError("silent", path, f"all {log_mel.size} values are equal. Remove it.")
    mean = total / log_mel.size
    std = max(0.0, squares / log_mel.size - mean**2) ** 0.5
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


def _mapped(path: Path, spec: LogMelSpec) -> np.ndarray:
    """The array [frame, mel] of a .npy file."""
    with opened_content(path) as content:
        head, start, num_bytes = BytesIO(content.head), content.start, content.num_bytes
    try:
        version = np.lib.format.read_magic(head)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(head)
    except ValueError as error:
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
    array = np.memmap(
        place[0] if place else path, dtype, "r", start + head.tell(), shape, "F" if is_fortran else "C"
    ).reshape(sides)
    return array.T if sides[0] == spec.num_mels else array
