"""Audio files -> mono float32 waveforms at a given sample rate, or an `AudioError` with the reason."""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

# Formats that libsndfile decodes. Folders are searched for these; a manifest may list files of any name.
AUDIO_EXTENSIONS = frozenset(
    ".wav .flac .ogg .oga .opus .mp3 .aif .aiff .aifc .au .snd .caf .rf64 .w64 .sph".split()  # noqa: SIM905
)
SAMPLE_RATES_HZ = (100, 1_600_000)  # outside, the header is damaged, and resampling would exhaust the memory
BLOCK_VALUES = 2**20  # decoded at a time, over all channels: 4 MiB as float32
WRONG_SIZE_BYTES = 64  # some programs miscount a WAV's data by the size of a header; if more is missing, it is audio
UNKNOWN_SIZE_BYTES = 0x7FFF0000  # programs that write WAV to a pipe declare at least this size for "until the end"
PCM_16_STEP = np.float32(2**-15)  # a 16-bit sample as a float, exactly
UNKNOWN_FRAMES = 2**62  # libsndfile reports this for a FLAC of undeclared length, and cannot read it


class AudioError(ValueError):
    """An audio file that cannot be used.

    Args:
        reason: short, and the same for every file with this fault, e.g. "silent".
        path: the file.
        detail: what was found, and the remedy.
    """

    def __init__(self, reason: str, path: Path, detail: str) -> None:
        super().__init__(reason, path, detail)  # all three, so that the error can be pickled
        self.reason, self.path, self.detail = reason, path, detail

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}: {self.detail}"


def read_audio(path: Path, sample_rate_hz: int) -> Float[np.ndarray, " sample"]:
    """Decode an audio file to mono: channels are averaged, and soxr resamples.

    The file is decoded, mixed and resampled block by block, so that only the result is in memory as a whole.

    Args:
        path: WAV, FLAC, Ogg Vorbis, Opus, MP3 or another format of libsndfile, of any rate and number of channels.
        sample_rate_hz: of the result, in Hz.

    Returns:
        The waveform in float32, full scale 1.

    Raises:
        AudioError: the file is missing, not audio, empty, damaged, truncated, silent, or has NaN or infinite samples.
            A file is silent if all samples of the mix are equal. FLAC, WAV and AIFF declare their length and must hold
            it. Ogg and MP3 are streams without a declared length: a truncated one is read as far as it goes.
        ValueError: sample_rate_hz is not positive.
    """
    if sample_rate_hz < 1:
        raise ValueError(f"the sample rate must be positive, got {sample_rate_hz} Hz")
    _check_file(path)
    try:
        # As bytes, because soundfile cannot encode the names of files that are not valid UTF-8.
        with soundfile.SoundFile(os.fsencode(path)) as file:
            _check_header(path, file)
            return _resample(path, _mono_blocks(path, file), file.samplerate, sample_rate_hz)
    except (
        soundfile.LibsndfileError,
        TypeError,
    ) as error:  # TypeError: a .raw file, headerless by its name
        reason, remedy = _diagnose(error)
        raise AudioError(reason, path, f"{getattr(error, 'error_string', error)} {remedy}") from error


def _diagnose(error: Exception) -> tuple[str, str]:
    """Reason and remedy for an error of libsndfile, by its error code."""
    code = getattr(error, "code", 1)
    if code == 1:
        return "not audio", "Convert it to WAV or FLAC, or remove it."
    if code == 2:
        return "unreadable", "Check its permissions and its disk."
    return "truncated or damaged", "Fetch or export it again."


def _check_file(path: Path) -> None:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # reading a pipe could block for ever
            raise AudioError("not audio", path, "it is not a regular file. Remove it from the list.")
    except OSError as error:  # FileNotFoundError, a dangling or circular link, no permission
        missing = isinstance(error, FileNotFoundError)
        raise AudioError(
            "missing file" if missing else "unreadable", path, f"{error.strerror}. Check the path."
        ) from error
    if found.st_size == 0:
        raise AudioError("empty file", path, "it has 0 bytes. Fetch or export it again.")


def _check_header(path: Path, file: soundfile.SoundFile) -> None:
    low, high = SAMPLE_RATES_HZ
    if not low <= file.samplerate <= high:
        detail = f"its header says {file.samplerate} Hz, not within {low} to {high} Hz. Export it again."
        raise AudioError("implausible sample rate", path, detail)
    if file.frames > UNKNOWN_FRAMES:
        detail = (
            "its header does not say how many samples it has, as after encoding to a pipe. Encode it again to a file."
        )
        raise AudioError("unknown length", path, detail)
    # libsndfile reads a truncated WAV or AIFF without an error, and only notes it in its log.
    for declared, found in re.findall(r"^ ?(?:data|SSND) : (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE):
        missing_bytes = int(declared) - int(found)
        if missing_bytes > WRONG_SIZE_BYTES and int(declared) < UNKNOWN_SIZE_BYTES:
            detail = f"{missing_bytes} of {declared} bytes of audio are missing. Fetch or export it again."
            raise AudioError("truncated or damaged", path, detail)


def _mono_blocks(path: Path, file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """The mean over the channels, block by block, checked for NaN, silence and missing samples."""
    num_frames = 0
    low, high = np.inf, -np.inf
    # libsndfile spends most of its time on converting 16-bit samples to floats; ours are the same and faster.
    dtype = "int16" if file.subtype == "PCM_16" else "float32"
    # Not file.blocks(), which zero-pads a file that ends early to its declared length.
    while len(block := file.read(max(1, BLOCK_VALUES // file.channels), dtype=dtype, always_2d=True)):
        mono = _mixed(block * PCM_16_STEP if dtype == "int16" else block)
        low, high = min(low, mono.min()), max(high, mono.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            detail = f"the first is near {num_frames / file.samplerate:.1f} s. Export it again."
            raise AudioError("contains NaN or infinite samples", path, detail)
        num_frames += len(mono)
        yield mono
    if file.format == "FLAC" and num_frames < file.frames:
        detail = f"{num_frames} of {file.frames} samples could be decoded. Fetch or export it again."
        raise AudioError("truncated or damaged", path, detail)
    if num_frames == 0:
        raise AudioError("empty file", path, "it holds no samples. Record or export it again.")
    if low == high:
        raise AudioError("silent", path, f"all {num_frames} samples are equal. Remove it, or record it again.")


def _mixed(block: np.ndarray) -> np.ndarray:
    """The mean over the channels, by adding them up: NumPy's mean over so short an axis takes 30 times as long."""
    mono = block[:, 0]
    if block.shape[1] > 1:
        with np.errstate(all="ignore"):
            mono = mono + block[:, 1]
            for channel in range(2, block.shape[1]):
                mono += block[:, channel]
            mono /= block.shape[1]
    return mono


def _resample(path: Path, blocks: Iterator[np.ndarray], from_hz: int, to_hz: int) -> np.ndarray:
    """Concatenate the blocks, resampled to the rate ``to_hz``."""
    if from_hz == to_hz:
        whole = list(blocks)
        return whole[0] if len(whole) == 1 else np.concatenate(whole)
    stream = soxr.ResampleStream(from_hz, to_hz, num_channels=1, dtype="float32")
    resampled = [stream.resample_chunk(block) for block in blocks]
    resampled.append(stream.resample_chunk(np.zeros(0, np.float32), last=True))
    wave = np.concatenate(resampled)
    if len(wave) == 0:
        raise AudioError("too short", path, f"not one sample is left at {to_hz} Hz. Remove it.")
    return wave
