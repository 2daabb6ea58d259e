"""Decoding by libsndfile: WAV, FLAC, Ogg Vorbis, Opus, MP3 and others, to their real ends."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from melmask.audio.ends import UNKNOWN_SIZE_BYTES, UNREAD_NOTE, WRONG_SIZE_BYTES, View, corrected
from melmask.audio.facts import AV_EXTRA, NOT_AUDIO, UNSUPPORTED, AudioError, Note, Noted
from melmask.audio.formats import Content

BLOCK_VALUES = 2**20  # decoded at a time, over all channels: 4 MiB as float32
PCM_16_STEP = np.float32(2**-15)  # a 16-bit sample as a float, exactly
UNKNOWN_FRAMES = 2**62  # libsndfile reports this for a FLAC of undeclared length, and cannot read it
STREAMS = ("FLAC", "OGG", "MP3")  # formats of frames, which are read as far as they are decoded
UNREAD_BYTES = 2**12  # what follows a stream may be tags; if more is left, it is likely sound
NO_FORMAT, NO_ACCESS, NO_CODEC, NO_STREAM = 1, 2, 4, 7  # error codes of libsndfile


class SndFile:
    """An opened audio file, as a source of blocks of samples.

    Args:
        path: for messages.
        content: the file's bytes.

    Raises:
        AudioError: libsndfile cannot read it, or its header is damaged.
    """

    def __init__(self, path: Path, content: Content) -> None:
        self.path, self.content = path, content
        self.view = corrected(content)
        if self.view is None and content.start:
            self.view = View(content, {}, content.num_bytes)
        try:
            self.file = soundfile.SoundFile(self.view or content.fd, closefd=False)
        except soundfile.LibsndfileError as error:
            raise self._diagnosed(error) from error
        self.rate_hz, self.num_channels = self.file.samplerate, self.file.channels

    def blocks(self, noted: Noted) -> Iterator[np.ndarray]:
        """Float samples [channel, sample], block by block, to the end.

        Raises:
            AudioError: the file is damaged or lacks samples.
        """
        file, num_frames = self.file, 0
        self._check_header()
        # libsndfile spends most of its time on converting 16-bit samples to floats; ours are the same and faster.
        dtype = "int16" if file.subtype == "PCM_16" else "float32"
        size = max(1, BLOCK_VALUES // file.channels)
        while True:
            # Not file.blocks(), which zero-pads a file that ends early to its declared length.
            try:
                block = file.read(size, dtype=dtype, always_2d=True)
            except soundfile.LibsndfileError as error:
                raise self._diagnosed(error) from error
            if not len(block):
                break
            num_frames += len(block)
            block = np.ascontiguousarray(block.T)
            yield block * PCM_16_STEP if dtype == "int16" else block
        if file.format == "FLAC" and num_frames < file.frames:
            detail = f"{num_frames} of {file.frames} samples could be decoded. Fetch or export it again."
            raise AudioError("truncated or damaged", self.path, detail)
        if self.view is not None and self.view.note is not None:
            noted(self.view.note)
        elif self.view is None or self.view.is_plain:
            self._note_unread(num_frames, noted)

    def close(self) -> None:
        """Free the decoder."""
        self.file.close()

    def _check_header(self) -> None:
        if self.file.frames > UNKNOWN_FRAMES:
            detail = "neither its header nor its last frame says how many samples it has. Encode it again to a file."
            raise AudioError("unknown length", self.path, detail)
        # libsndfile reads a truncated WAV or AIFF without an error, and only notes it in its log.
        log = self.file.extra_info
        for declared, found in re.findall(r"^ ?(?:data|SSND) : (\d+) \(should be (\d+)\)", log, re.MULTILINE):
            missing_bytes = int(declared) - int(found)
            if missing_bytes > WRONG_SIZE_BYTES and int(declared) < UNKNOWN_SIZE_BYTES:
                detail = f"{missing_bytes} of {declared} bytes of audio are missing. Fetch or export it again."
                raise AudioError("truncated or damaged", self.path, detail)

    def _note_unread(self, num_frames: int, noted: Noted) -> None:
        """Say how much of a stream lies behind the end that it claims."""
        if self.file.format not in STREAMS:
            return
        position = self.view.position if self.view else os.lseek(self.content.fd, 0, os.SEEK_CUR)
        num_bytes = self.content.num_bytes - position
        if num_bytes > UNREAD_BYTES and self.content.read(position, 8) != b"APETAGEX":
            end_s = num_frames / self.rate_hz
            detail = f"{num_bytes:,} bytes follow its end at {end_s:.1f} s, and were not read; export it again as one"
            noted(Note(UNREAD_NOTE, detail))

    def _diagnosed(self, error: soundfile.LibsndfileError) -> Exception:
        """The error of libsndfile as one of ours, by its code."""
        text = error.error_string
        if "malloc" in text:
            return MemoryError(text)
        if error.code == NO_ACCESS:
            return AudioError("unreadable", self.path, f"{text} Check its permissions and its disk.", is_transient=True)
        if error.code == NO_STREAM:
            text = "It starts as MPEG audio, but holds none."
        if error.code in (NO_FORMAT, NO_STREAM):
            hint = f"Remove it; if it is audio, convert it, or read it by the extra av: {AV_EXTRA}."
            return AudioError(NOT_AUDIO, self.path, f"{text} {hint}")
        if error.code == NO_CODEC:
            return AudioError(UNSUPPORTED, self.path, f"{text} Convert it to WAV or FLAC.")
        return AudioError("truncated or damaged", self.path, f"{text} Fetch or export it again.")
