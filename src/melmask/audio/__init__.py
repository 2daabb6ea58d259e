"""Audio files -> mono float32 waveforms at a given sample rate, or an `AudioError` with the reason."""

from melmask.audio.facts import (
    SAMPLE_RATES_HZ,
    UNSUPPORTED,
    AudioError,
    Note,
    Noted,
    is_out_of_memory,
    no_access,
    peak_fault,
)
from melmask.audio.formats import AUDIO_EXTENSIONS
from melmask.audio.places import ARCHIVE_EXTENSIONS, archive_of, find_in_archive, sha256_of
from melmask.audio.reader import decode, joined, read_audio
from melmask.audio.unseen import Energy

__all__ = [
    "ARCHIVE_EXTENSIONS",
    "AUDIO_EXTENSIONS",
    "SAMPLE_RATES_HZ",
    "UNSUPPORTED",
    "AudioError",
    "Energy",
    "Note",
    "Noted",
    "archive_of",
    "decode",
    "find_in_archive",
    "is_out_of_memory",
    "joined",
    "no_access",
    "peak_fault",
    "read_audio",
    "sha256_of",
]
