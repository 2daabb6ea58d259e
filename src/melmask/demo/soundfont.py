"""Samples of a SoundFont (.sf2), read with sf2utils and played at any pitch.

A SoundFont holds short recordings of real instruments, its samples. A preset assigns samples to keys and sets their
tuning, the loop that is repeated while a key is held, and the volume envelope. These are implemented here; filters,
vibrato and layers are not. The tuning is that of the first layer of a preset that uses the sample.

Source: SoundFont Technical Specification 2.04 (Creative Technology, 2006), sections 8.1 and 9.1.
"""

import importlib.util
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from jaxtyping import Float

REMEDY = "pip install 'melmask[demo]'"

# Presets of General MIDI, counted from 0, by family. A sample that several presets use belongs to the first of them.
FAMILIES: dict[str, tuple[int, ...]] = {
    "keys": (0, 2, 4, 5),  # acoustic and electric pianos
    "organ": (16, 17, 18, 19),  # drawbars and pipes
    "guitar": (24, 25, 26, 27),  # nylon, steel, jazz, clean electric
    "distorted_guitar": (29, 30),
    "bass": (32, 33, 34, 35, 36, 37),  # acoustic, fingered, picked, fretless, slapped
    "strings": (40, 42, 43, 44, 49),  # bowed: violin, cello, double bass, sections
    "brass": (56, 57, 58, 59, 60, 61),  # trumpet, trombone, tuba, muted trumpet, horns, section
    "reed": (64, 65, 66, 67, 68, 69, 70, 71),  # saxophones, oboe, English horn, bassoon, clarinet
    "flute": (72, 73, 74, 75, 79),  # piccolo, flute, recorder, pan flute, ocarina
    "voice": (52, 53),  # choirs that sing "ah" and "doo"
}
# Further presets with a clear pitch, for chroma: harpsichord, clavinet, mallets, harp and lutes, synthesisers.
OTHERS = (6, 7, 10, 11, 12, 13, 28, 45, 46, 50, 51, 62, 96, 105, 106, 107, 108, 109, 111, 114)
# Samples of the drum kits, which have no pitch: drums with a skin; cymbals, bells, blocks and shakers.
PERCUSSIVE: dict[str, tuple[str, ...]] = {
    "drums": (
        *("Bass Drum New", "Kick Verb", "Snare 1", "Snare 2", "Snare Verb", "Brush Snare", "E Snare", "808 Snare"),
        *("Acoustic Tom", "Syn Drum Wave", "Timp Drum A1", "Taiko Drum", "M Bongo Tone", "E Bongo Rim", "Quinto Tone"),
        *("QuintoClosedSlap", "Low Tumba Tone", "Timbale Strike", "Quica Hi Tone", "Quica Downstroke"),
    ),
    "percussion": (
        *("High Hat Closed", "High Hat Foot", "Open High Hat", "808 Hat", "Med Crash Cymbal", "ChinaCrashCymb"),
        *("Ride Ping", "Ride Bell", "Brass Tambourine", "Cowbell", "Cowbell 808", "Agogo Bell", "Cabasa", "Maracas"),
        *("Guiro Up", "Guiro Down", "Rosewood Claves", "Wood Block", "Mute Triangle", "Sleigh Bells", "Bell Tree"),
        *("Castanets", "Drum Stick", "Rim Shot", "Claps 808ish"),
    ),
}
# Samples of tuba and trombone among the horns, of a synthesiser among the strings, and high notes of basses.
EXCLUDED = {
    *("Tuba A#2", "Tuba D2", "Tuba F#2", "Tuba F#3", "Trombone C5", "Trombone G4", "SynthStringsC4"),
    *("Acoustic Bass A31", "Fingered Bass G3", "Pick Bass D4", "Fretless BassDb4", "Slap Bass 2 C4"),
}


@dataclass(frozen=True)
class RecordedNote:
    """A sample of a preset, and how the preset plays it.

    Args:
        name: of the sample in the SoundFont.
        wave: the recording, full scale 1.
        rate_hz: its sample rate.
        lowest_key: first MIDI key that the preset plays with it.
        highest_key: last MIDI key that the preset plays with it.
        root_key: the MIDI key, as a fraction, of its pitch when played at rate_hz.
        loop: [start, stop) of the wave, repeated while the key is held; None if it is played once.
        attack_s: time from silence to full level.
        hold_s: time at full level.
        decay_s: time in which the level falls by 100 dB.
        sustain_db: attenuation at which the decay ends.
    """

    name: str
    wave: Float[np.ndarray, " sample"]
    rate_hz: int
    lowest_key: int
    highest_key: int
    root_key: float
    loop: tuple[int, int] | None
    attack_s: float
    hold_s: float
    decay_s: float
    sustain_db: float


def find_soundfont() -> Path:
    """Find TimGM6mb.sf2 in the installed package pretty_midi, without importing it.

    Raises:
        ImportError: pretty_midi, or the SoundFont in it, is missing.
    """
    package = importlib.util.find_spec("pretty_midi")
    fonts = sorted(Path(package.origin).parent.rglob("TimGM6mb.sf2")) if package and package.origin else []
    if not fonts:
        raise ImportError(f"the demo corpus needs the SoundFont TimGM6mb.sf2 that pretty_midi ships: {REMEDY}")
    return fonts[0]


def read_soundfont(path: Path) -> dict[tuple[int, int], list[RecordedNote]]:
    """Read the notes of all presets, each sample once per preset, ordered by key.

    Args:
        path: an .sf2 file.

    Returns:
        Notes by (bank, program); bank 0 has the melodic presets, bank 128 the drum kits.

    Raises:
        ImportError: sf2utils, or on Python 3.13 and later the audioop module that it needs, is missing.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it imports audioop
            from sf2utils.sf2parse import Sf2File
    except ImportError as error:
        raise ImportError(
            f"the demo corpus reads its SoundFont with sf2utils ({error}): {REMEDY}; "
            "from Python 3.13 on, also pip install audioop-lts"
        ) from error

    with path.open("rb") as file, _quiet_logging():
        presets = [preset for preset in Sf2File(file).presets if preset.name != "EOP"]
        return {(preset.bank, preset.preset): _notes_of(preset) for preset in presets}


def play(note: RecordedNote, key: float, duration_s: float, sample_rate_hz: int) -> Float[np.ndarray, " sample"]:
    """Play a note at any pitch.

    Args:
        note: to play.
        key: MIDI key; fractions are allowed.
        duration_s: how long the key is held, in seconds. A sample without a loop may end earlier.
        sample_rate_hz: of the result, in Hz.

    Returns:
        At most duration_s of sound, faded out over the last 30 ms.

    Deviates from the specification: band-limited resampling for interpolation, a short fade for the release phase.
    """
    played_rate_hz = note.rate_hz * 2.0 ** ((key - note.root_key) / 12)
    num_needed = math.ceil(duration_s * played_rate_hz)
    wave = note.wave
    if note.loop and num_needed > note.loop[1]:
        start, stop = note.loop
        wave = np.concatenate([wave[:stop], np.resize(wave[start:stop], num_needed - stop)])
    sound = soxr.resample(wave[:num_needed], played_rate_hz, sample_rate_hz)
    sound = sound * _envelope(note, len(sound), sample_rate_hz)
    num_faded = min(len(sound), round(0.03 * sample_rate_hz))
    sound[len(sound) - num_faded :] *= np.linspace(1, 0, num_faded)
    return sound.astype(np.float32)


def _envelope(note: RecordedNote, num_samples: int, sample_rate_hz: int) -> Float[np.ndarray, " sample"]:
    """Linear attack, hold, then a decay at constant dB per second to the sustain level."""
    time_s = np.arange(num_samples) / sample_rate_hz
    fallen_db = (time_s - note.attack_s - note.hold_s).clip(0) * 100 / note.decay_s
    return (time_s / note.attack_s).clip(0, 1) * 10 ** (-fallen_db.clip(0, note.sustain_db) / 20)


def _notes_of(preset: Any) -> list[RecordedNote]:
    """The samples that a preset uses; zones of one sample with equal tuning are one note with all their keys."""
    notes: dict[str, RecordedNote] = {}
    for layer in preset.bags:
        for zone in layer.instrument.bags if layer.instrument else []:
            if zone.sample is None:
                continue
            note = _note_of(zone)
            known = notes.get(note.name, note)
            if known.root_key == note.root_key:
                lowest = min(known.lowest_key, note.lowest_key)
                highest = max(known.highest_key, note.highest_key)
                notes[note.name] = replace(known, lowest_key=lowest, highest_key=highest)
    return sorted(notes.values(), key=lambda note: (note.lowest_key, note.name))


def _note_of(zone: Any) -> RecordedNote:
    """A zone of a preset as a note."""
    sample = zone.sample
    wave = np.frombuffer(bytes(sample.raw_sample_data), dtype=np.int16) / np.float32(32768)
    root = sample.original_pitch if zone.base_note is None else zone.base_note
    shift_cents = 100 * (zone.tuning or 0) + (zone.fine_tuning or 0) + sample.pitch_correction
    start, stop = max(0, zone.cooked_loop_start), min(len(wave), zone.cooked_loop_end)
    lowest, highest = zone.key_range or (0, 127)
    return RecordedNote(
        name=sample.name.strip(),
        wave=wave,
        rate_hz=sample.sample_rate,
        lowest_key=lowest,
        highest_key=highest,
        root_key=root - shift_cents / 100,
        loop=(start, stop) if zone.sample_loop and stop - start > 1 else None,
        attack_s=zone.volume_envelope_attack or 1e-3,
        hold_s=zone.volume_envelope_hold or 0.0,
        decay_s=zone.volume_envelope_decay or 1e-3,
        sustain_db=zone.volume_envelope_sustain or 0.0,
    )


@contextmanager
def _quiet_logging() -> Iterator[None]:
    """Silence sf2utils, whose warnings about short loops use the root logger and so configure logging globally."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
