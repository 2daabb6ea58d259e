"""Clips of procedural sound: notes rendered in groups of a length, mixed, put into rooms, on a background."""

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from melmask.data.loader import random_state
from melmask.demo.procedural.families import FAMILIES
from melmask.demo.procedural.score import MARGIN_S, Note, score
from melmask.demo.procedural.signals import MODE_BLOCK, Notes, noise_table

VERSION = 1  # of the clips: increase it with every change to them
STREAM = 0x50  # of the random numbers of clips, among all that a seed gives
NUM_CLIP_PARAMETERS = 16
ROOM_S = 0.5  # longest response of a room
SHARE_IN_ROOMS, SHARE_WITHOUT_BACKGROUND = 0.6, 0.1
NUM_COLOURS = 256  # steps of spectral slopes, from 20 Hz to half the sample rate
SAMPLES_AT_ONCE, CLIPS_AT_ONCE = 2**17, 8  # on a CPU: what its cache holds
CPU = torch.device("cpu")
SILENT = 1e-6  # root mean square, below which a note is rounding


def synthesise(
    numbers: Sequence[int],
    seconds: float,
    sample_rate_hz: int = 16_000,
    *,
    seed: int = 0,
    device: torch.device = CPU,
    family: str | None = None,
) -> Float[Tensor, "clip sample"]:
    """Clips of procedural sound: one to five events of different families, in a room, on a background.

    Clip i of a seed is the same whatever clips are made beside it, but for the rounding of float32, which may depend on
    their number; and the same call gives the same bits on one device and number of threads.

    Args:
        numbers: which clips; any numbers from 0.
        seconds: length of each.
        sample_rate_hz: in Hz.
        seed: another gives other clips.
        device: to compute on.
        family: of all events, a name in `melmask.demo.procedural.families.FAMILIES`; None mixes all.

    Returns:
        float32 in [-1, 1]; sample = round(seconds * sample_rate_hz).

    Raises:
        ValueError: no such family, or clips of less than 50 ms.

    >>> synthesise(range(2), 0.5).shape
    torch.Size([2, 8000])
    """
    if family is not None and family not in FAMILIES:
        raise ValueError(f"no family {family!r} of procedural sound; there are: {', '.join(FAMILIES)}")
    num_samples = round(seconds * sample_rate_hz)
    if seconds < 0.05:
        raise ValueError(f"a clip of procedural sound takes at least 0.05 s, got {seconds}")
    rngs = [random_state(seed, STREAM, number) for number in numbers]
    v = np.array([rng.random(NUM_CLIP_PARAMETERS) for rng in rngs])
    scores = [score(rng, seconds, family)[1] for rng in rngs]
    at_once = CLIPS_AT_ONCE if device.type == "cpu" else len(rngs)
    with torch.inference_mode():
        dry = _mix(scores, num_samples, sample_rate_hz, device)
        finished = [
            _finish(dry[i : i + at_once], num_samples, v[i : i + at_once], sample_rate_hz)
            for i in range(0, len(rngs), at_once)
        ]
        return torch.cat(finished)


def leading_family(number: int, seconds: float, seed: int = 0) -> str:
    """The family of a clip's first and loudest event."""
    rng = random_state(seed, STREAM, number)
    rng.random(NUM_CLIP_PARAMETERS)
    return score(rng, seconds)[0]


def _mix(
    scores: Sequence[Sequence[Note]], num_samples: int, rate_hz: int, device: torch.device
) -> Float[Tensor, "clip padded"]:
    """All notes of all clips, rendered in groups of one family and length, with room for what rings on behind."""
    groups: dict[tuple[str, int], list[tuple[int, Note]]] = defaultdict(list)
    longest = num_samples + round(MARGIN_S * rate_hz)
    for clip, notes in enumerate(scores):
        for note in notes:
            wanted = min(note.duration_s * rate_hz, num_samples - note.onset_s * rate_hz)
            groups[note.family, _rendered(wanted, longest)].append((clip, note))
    mixed = torch.zeros(len(scores), _fast_length(num_samples + round(ROOM_S * rate_hz)), device=device)
    for (family, length), members in sorted(groups.items(), key=lambda item: item[0]):
        at_once = max(1, SAMPLES_AT_ONCE // length) if device.type == "cpu" else len(members)
        for i in range(0, len(members), at_once):
            some = members[i : i + at_once]
            for sound, (clip, note) in zip(
                _render(family, [n for _, n in some], length, rate_hz, device), some, strict=True
            ):
                start = round(note.onset_s * rate_hz)
                first, last = max(start, 0), min(start + length, num_samples)
                if first < last:
                    mixed[clip, first:last] += sound[first - start : last - start]
    return mixed


def _rendered(num_samples: float, longest: int) -> int:
    """The samples to render for a note: 1, 2, 3, 4, 6, 8, 12... blocks, so that many notes have one length."""
    size, following = MODE_BLOCK, 2 * MODE_BLOCK
    while size < min(num_samples, longest):
        size, following = following, size * 2 if size > MODE_BLOCK else 3 * MODE_BLOCK
    return min(size, -(-longest // MODE_BLOCK) * MODE_BLOCK)


def _render(
    family: str, notes: Sequence[Note], num_samples: int, rate_hz: int, device: torch.device
) -> Float[Tensor, "note sample"]:
    """Notes of one family at their levels."""
    u = np.stack([note.u for note in notes])
    duration_s, level = torch.tensor([[note.duration_s, note.level] for note in notes], device=device).split(1, dim=1)
    sound = FAMILIES[family].render(Notes(u, duration_s, num_samples, rate_hz, device))
    rms = sound.norm(dim=1, keepdim=True) / (duration_s * rate_hz).clamp(max=num_samples).sqrt()
    return sound.mul_(level / rms.clamp(min=SILENT))


def _finish(
    dry: Float[Tensor, "clip padded"], num_samples: int, v: Float[np.ndarray, "clip parameter"], rate_hz: int
) -> Float[Tensor, "clip sample"]:
    """Each clip in a room, through a microphone, with background and level, by its random numbers."""
    size, device = dry.shape[1], dry.device
    dry_level = dry[:, :num_samples].norm(dim=1, keepdim=True) / num_samples**0.5
    spectrum = torch.fft.rfft(dry)
    in_room = np.flatnonzero(v[:, 0] < SHARE_IN_ROOMS)
    if len(in_room):
        spectrum[torch.from_numpy(in_room).to(device)] *= torch.fft.rfft(_rooms(v[in_room], size, rate_hz, device))
    octaves, nearest = _colour_grid(size, rate_hz, device)

    def column(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32))[:, None].to(device)

    def coloured(db_an_octave: np.ndarray) -> Tensor:
        """A gain for the real and the imaginary part of each bin."""
        return (10 ** (column(db_an_octave) * octaves / 20)).index_select(1, nearest)

    background = _slices(torch.view_as_real(noise_table(device)).flatten(), v[:, 4], 2 * spectrum.shape[1])
    background.mul_(coloured(1 - 9 * v[:, 3]))
    has_background = v[:, 1] >= SHARE_WITHOUT_BACKGROUND
    wanted = column(has_background * 10 ** (-40 * v[:, 2] / 20)) * dry_level
    background.mul_(wanted * size / 2**0.5 / background.norm(dim=1, keepdim=True))
    total = torch.view_as_real(spectrum).flatten(1).add_(background).mul_(coloured(6 * v[:, 5] - 3))
    sound = torch.fft.irfft(torch.view_as_complex(total.view(len(v), -1, 2)), size)[:, :num_samples]
    peak = torch.maximum(sound.amax(dim=1), -sound.amin(dim=1))[:, None].clamp(min=SILENT)
    return sound * (column(10 ** ((-24 + 23 * v[:, 6]) / 20)) / peak)


def _rooms(v: Float[np.ndarray, "clip parameter"], size: int, rate_hz: int, device: torch.device) -> Tensor:
    """Responses of rooms: the direct sound, three reflections and noise that decays by 60 dB in 0.05 to 1 s."""
    length = round(ROOM_S * rate_hz)
    time_s = torch.arange(length, device=device) / rate_hz
    decay_s, delay_s, wet = torch.from_numpy(
        np.stack([0.05 * 20 ** v[:, 7], 0.03 * v[:, 9], 10 ** ((-20 + 26 * v[:, 10]) / 20)], axis=1).astype(np.float32)
    ).to(device).split(1, dim=1)  # fmt: skip
    tail = _slices(torch.view_as_real(noise_table(device)).flatten(), v[:, 8], length)
    tail.mul_((time_s * (-6.9 / decay_s)).exp_()).mul_(time_s >= delay_s)
    response = torch.zeros(len(v), size, device=device)
    response[:, :length] = tail * (wet / tail.norm(dim=1, keepdim=True).clamp(min=SILENT))
    places = torch.from_numpy((v[:, 11:14] ** 2 * 0.04 * rate_hz).astype(np.int64) + 1).to(device)
    response.scatter_add_(1, places, wet * torch.from_numpy((1.4 * v[:, 13:16] - 0.7).astype(np.float32)).to(device))
    response[:, 0] += 1
    return response


def _slices(table: Tensor, place: np.ndarray, length: int) -> Float[Tensor, "clip value"]:
    """A piece of a table for each clip, from a random place on."""
    starts = (place * (len(table) - length)).astype(np.int64) // 2 * 2
    return torch.stack([table[start : start + length] for start in starts.tolist()])


@lru_cache(maxsize=8)
def _colour_grid(size: int, rate_hz: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Octaves from 1 kHz on a coarse grid, and the nearest place on it of each bin's real and imaginary part."""
    octaves = torch.linspace(math.log2(20 / 1000), math.log2(rate_hz / 2000), NUM_COLOURS)
    bins = (torch.linspace(0, rate_hz / 2, size // 2 + 1).clamp(min=20.0) / 1000).log2()
    nearest = ((bins - octaves[0]) / (octaves[1] - octaves[0])).round().int().repeat_interleave(2)
    return octaves.to(device), nearest.to(device)


def _fast_length(num_samples: int) -> int:
    """A length for Fourier transforms: the next of 8, 9, 10, 12, 15 or 16 times a power of two."""
    power = 2 ** max(0, (num_samples - 1).bit_length() - 4)
    return next(m * power for m in (8, 9, 10, 12, 15, 16) if m * power >= num_samples)
