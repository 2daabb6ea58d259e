"""The reader: a file of any format -> its mono sound at the wanted rate, block by block, to its real end."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import soxr
from jaxtyping import Float

from melmask.audio.channels import Mix, OtherChannels
from melmask.audio.facts import (
    NOT_AUDIO,
    SAMPLE_RATES_HZ,
    UNSUPPORTED,
    AudioError,
    Note,
    Noted,
    ignore,
    is_out_of_memory,
    no_access,
)
from melmask.audio.formats import Content, foreign_codec
from melmask.audio.hdf5 import Hdf5Waveform
from melmask.audio.libav import Libav, pyav
from melmask.audio.places import dataset_at, opened_content
from melmask.audio.sndfile import SndFile
from melmask.audio.unseen import Energy

T = TypeVar("T")
Blocks = Iterator[np.ndarray]
RESAMPLED_VALUES = 2**21  # at a time
Source = SndFile | Libav | Hdf5Waveform  # an opened file: its rate, its channels, and its blocks of samples


def read_audio(path: Path, sample_rate_hz: int, noted: Noted = ignore) -> Float[np.ndarray, " sample"]:
    """Decode an audio file to mono: channels are averaged, and soxr resamples.

    The file is decoded, mixed and resampled block by block, so that only the result is in memory as a whole.

    Args:
        path: WAV, FLAC, Ogg Vorbis, Opus, MP3 or another format of libsndfile, of any rate and number of channels; with
            the extra `av` also M4A, WebM, WMA and others.
        sample_rate_hz: of the result, in Hz.
        noted: called with what was found, where the file is used all the same; see `decode`.

    Returns:
        The waveform in float32, full scale 1.

    Raises:
        AudioError: see `decode`.
        ValueError: sample_rate_hz is not positive.
    """
    return decode(path, sample_rate_hz, joined, noted)


def decode(
    path: Path,
    sample_rate_hz: int,
    use: Callable[[Blocks], T],
    noted: Noted = ignore,
    energy: Energy | None = None,
) -> T:
    """Decode an audio file to mono, block by block, and use the blocks where they are decoded.

    Where a header claims less than its file holds, or was never finished, the file is read to its end. Channels are
    averaged; dead ones are left out, and if they cancel each other, the loudest is kept alone.

    Args:
        path, sample_rate_hz: as of `read_audio`.
        use: takes the blocks of float32 samples; it must take all. It is called again, from the start, if the mean of
            all channels turns out not to be the sound of the file.
        noted: called after that with each note about the file.
        energy: counts what a front end cannot see of it.

    Returns:
        What ``use`` returned.

    Raises:
        AudioError: the file is missing, not audio, of an unsupported codec, empty, damaged, truncated, silent, or has
            samples that are NaN, infinite or far outside -1..1. A file is silent if all samples of the mix are equal.
            FLAC, WAV, AIFF and MP4 declare their length and must hold it. Ogg and MP3 are streams without a declared
            length: a truncated one is read as far as it goes.
        ValueError: sample_rate_hz is not positive.
    """
    if sample_rate_hz < 1:
        raise ValueError(f"the sample rate must be positive, got {sample_rate_hz} Hz")
    chosen: tuple[int, ...] = ()
    found: list[Note] = []
    while True:
        notes = list(found)
        with _opened(path) as source:
            _check_rate(path, source.rate_hz)
            if energy is not None:
                energy.start(source.rate_hz)
            mix = Mix(path, source.rate_hz, source.num_channels, chosen)
            blocks = mix.of(_guarded(path, source.blocks(notes.append)))
            try:
                result = use(_resampled(path, blocks, source.rate_hz, sample_rate_hz, energy))
            except OtherChannels as other:
                chosen, found = other.chosen, [other.note]
                continue
        for note in notes:
            noted(note)
        return result


@contextmanager
def _opened(path: Path) -> Iterator[Source]:
    """The recording as a source, opened by the library that decodes it.

    Raises:
        AudioError: it cannot be opened, or read.
    """
    dataset = dataset_at(path)
    if dataset is not None:
        yield Hdf5Waveform(path, dataset)
        return
    with opened_content(path) as content:
        source = _source(path, content)
        try:
            yield source
        finally:
            source.close()


def _source(path: Path, content: Content) -> Source:
    try:
        codec = foreign_codec(content)
        if codec:
            return Libav(path, content, codec)
        try:
            return SndFile(path, content)
        except AudioError as error:
            if error.reason == UNSUPPORTED:
                return Libav(path, content, "a codec that libsndfile lacks")
            if error.reason != NOT_AUDIO or pyav() is None:
                raise
            try:
                return Libav(path, content, "its format")
            except AudioError:
                raise error from None
    except OSError as error:  # the disk or the network does not answer
        raise no_access(path, error) from error
    except AudioError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error


def _guarded(path: Path, blocks: Blocks) -> Blocks:
    """The blocks; what a library raises of a damaged file, whatever it is, is an AudioError."""
    try:
        yield from blocks
    except (AudioError, OSError):
        raise
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> AudioError:
    if is_out_of_memory(error):
        detail = "memory ran out while it was decoded. Close other programs, or use fewer processes."
        return AudioError("out of memory", path, detail, is_transient=True)
    return AudioError("unreadable", path, f"{type(error).__name__}: {error}. Fetch it again, or convert it to WAV.")


def _check_rate(path: Path, rate_hz: int) -> None:
    low, high = SAMPLE_RATES_HZ
    if not low <= rate_hz <= high:
        detail = f"its header says {rate_hz} Hz, not within {low} to {high} Hz. Export it again."
        raise AudioError("implausible sample rate", path, detail)


def _resampled(path: Path, blocks: Blocks, from_hz: int, to_hz: int, energy: Energy | None) -> Blocks:
    """The blocks at the rate ``to_hz``."""
    if from_hz == to_hz:
        for block in blocks:
            if energy is not None:
                energy.add_after(block)
            yield block
        return
    stream = soxr.ResampleStream(from_hz, to_hz, num_channels=1, dtype="float32")
    num_samples, size = 0, max(1, RESAMPLED_VALUES * from_hz // to_hz)
    for is_last, block in _marked_last(blocks):
        if energy is not None:
            energy.add_before(block)
        for start in range(0, max(1, len(block)), size):  # of a low rate a block becomes many times as long
            resampled = stream.resample_chunk(block[start : start + size], last=is_last)
            if len(resampled):
                num_samples += len(resampled)
                if energy is not None:
                    energy.add_after(resampled)
                yield resampled
    if num_samples == 0:
        raise AudioError("too short", path, f"not one sample is left at {to_hz} Hz. Remove it.")


def _marked_last(blocks: Blocks) -> Iterator[tuple[bool, np.ndarray]]:
    """Each block, and an empty one at the end that says that it is the last."""
    for block in blocks:
        yield False, block
    yield True, np.zeros(0, np.float32)


def joined(blocks: Blocks) -> np.ndarray:
    """All blocks in one."""
    whole = list(blocks)
    return whole[0] if len(whole) == 1 else np.concatenate(whole)
