"""What is said of an audio file: why it cannot be used, or what was found and done about it."""

import errno
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SAMPLE_RATES_HZ = (100, 1_600_000)  # outside, the header is damaged, and resampling would exhaust the memory
UNSUPPORTED, NOT_AUDIO = "unsupported codec", "not audio"
AV_EXTRA = "pip install 'melmask[av]'"
OVERFLOWING = 1.8e19  # the square of such a sample is infinite in float32
# What the system says of a permission, a limit or a network. EIO is not among them, as FFmpeg says it of damage.
PASSING = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM, errno.ENOMEM, errno.ENOENT, errno.EAGAIN, errno.ETIMEDOUT)
)
MAX_PEAK = 10.0  # 20 dB above full scale; floats may exceed it, but nothing that is scaled to -1..1 does so by as much


class AudioError(ValueError):
    """An audio file that cannot be used.

    Args:
        reason: short, and the same for every file with this fault, e.g. "silent".
        path: the file.
        detail: what was found, and the remedy.
        is_transient: it is no fault of the file, or need not be: memory ran out, a disk did not answer, permission or
            an optional package is missing.
    """

    def __init__(self, reason: str, path: Path, detail: str, is_transient: bool = False) -> None:
        super().__init__(reason, path, detail, is_transient)  # all of them, so that the error can be pickled
        self.reason, self.path, self.detail, self.is_transient = reason, path, detail, is_transient

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}: {self.detail}"


@dataclass(frozen=True)
class Note:
    """Something about a file that is used all the same.

    Args:
        kind: short, and the same for every file of which it is true, e.g. "channels cancel".
        detail: what was found, and what was done.
    """

    kind: str
    detail: str


Noted = Callable[[Note], None]  # called with every note


def ignore(note: Note) -> None:
    """Takes a note, and does nothing."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, also for a thread's stack; torch says so of the CPU's in the words of a RuntimeError."""
    words = ("can't allocate memory", "can't start new thread", "Cannot allocate memory")
    return isinstance(error, MemoryError) or any(text in str(error) for text in words)


def no_access(path: Path, error: OSError) -> AudioError:
    """The error of the system as one of ours, which may pass."""
    reason = "missing file" if isinstance(error, FileNotFoundError) else "unreadable"
    detail = f"{error.strerror or error}. Check the path and its disk."
    return AudioError(reason, path, detail, is_transient=True)


def peak_fault(peak: float) -> str | None:
    """What is wrong with samples that reach so far, and the remedy; None if nothing is.

    >>> peak_fault(1.5), peak_fault(20_000.0)
    (None, 'they reach 20,000, as 16-bit integers do: divide them by 32,768, and export it again.')
    """
    if peak <= MAX_PEAK:
        return None
    if peak > OVERFLOWING:
        return "so large that their power overflows: scale them to -1..1."
    for num_bits in (16, 24, 32):
        full_scale = 2 ** (num_bits - 1)
        if peak <= full_scale:
            as_integers = f"as {num_bits}-bit integers do: divide them by {full_scale:,}"
            return f"they reach {peak:,.0f}, {as_integers}, and export it again."
    return f"they reach {peak:.3g}. Scale it to a full scale of 1, and export it again."
