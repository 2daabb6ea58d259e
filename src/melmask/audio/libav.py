"""Decoding by PyAV, the extra `av`: AAC, MP4, WebM, WMA and whatever else FFmpeg's libraries read."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np

from melmask.audio.ends import View
from melmask.audio.facts import (
    AV_EXTRA,
    NOT_AUDIO,
    PASSING,
    UNSUPPORTED,
    AudioError,
    Noted,
    is_out_of_memory,
    no_access,
)
from melmask.audio.formats import Content

BLOCK_VALUES = 2**20  # handed on at a time, over all channels


def pyav() -> ModuleType | None:
    """The package, or None where it is not installed."""
    try:
        import av
    except ImportError:
        return None
    av.logging.set_level(av.logging.PANIC)  # errors are raised, and are not to be printed as well
    return av


class Libav:
    """An opened audio file, as a source of blocks of samples.

    Args:
        path: for messages.
        content: the file's bytes.
        codec: what it seems to hold, for messages.

    Raises:
        AudioError: PyAV is not installed, or cannot read it.
    """

    def __init__(self, path: Path, content: Content, codec: str) -> None:
        self.path, self.codec = path, codec
        av = pyav()
        if av is None:
            detail = f"{codec} needs the extra av: {AV_EXTRA}. Or convert it to WAV or FLAC."
            raise AudioError(UNSUPPORTED, path, detail, is_transient=True)  # until it is installed
        self._av = av
        try:
            # As a path where it can be, since a format may be known by its name only.
            file = View(content, {}, content.num_bytes) if content.start else path
            self.container = av.open(file, metadata_errors="ignore")
        except av.error.FFmpegError as error:
            raise self._unreadable(error) from error
        self.stream = self.container.streams.best("audio")
        if self.stream is None:
            self.container.close()
            raise AudioError(NOT_AUDIO, path, f"{codec} without a sound track. Remove it.")
        if self.stream.codec_context is None:
            self.container.close()
            raise AudioError(UNSUPPORTED, path, f"FFmpeg has no decoder for its {codec}. Convert it to WAV.")
        self.rate_hz, self.num_channels = self.stream.codec_context.sample_rate, self.stream.codec_context.channels

    def blocks(self, noted: Noted) -> Iterator[np.ndarray]:
        """Float samples [channel, sample], block by block, to the end.

        Raises:
            AudioError: the file is damaged or lacks samples.
        """
        stream, num_packets = self.stream, 0
        layout = stream.codec_context.layout
        as_floats = self._av.AudioResampler(format="fltp", layout=layout, rate=self.rate_hz)
        frames: list[np.ndarray] = []
        size = max(1, BLOCK_VALUES // max(1, self.num_channels))
        try:
            for packet in self.container.demux(stream):
                num_packets += packet.size > 0
                for frame in packet.decode():
                    frames += [converted.to_ndarray() for converted in as_floats.resample(frame)]
                if sum(block.shape[1] for block in frames) >= size:
                    yield np.concatenate(frames, axis=1)
                    frames = []
            frames += [converted.to_ndarray() for converted in as_floats.resample(None)]
        except self._av.error.FFmpegError as error:
            raise self._unreadable(error) from error
        if frames and sum(block.shape[1] for block in frames):
            yield np.concatenate(frames, axis=1)
        if "mp4" in self.container.format.name and num_packets < stream.frames:  # others do not declare them
            detail = (
                f"{num_packets} of {stream.frames} packets of its {self.codec} are there. Fetch or export it again."
            )
            raise AudioError("truncated or damaged", self.path, detail)

    def close(self) -> None:
        """Free the decoder."""
        self.container.close()

    def _unreadable(self, error: Exception) -> Exception:
        if is_out_of_memory(error):
            return error
        if isinstance(error, OSError) and error.errno in PASSING:
            return no_access(self.path, error)
        detail = f"{self.codec}: {getattr(error, 'strerror', None) or error}. Fetch or export it again."
        return AudioError("truncated or damaged", self.path, detail)
