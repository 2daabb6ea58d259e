"""Four sounds: speech, a bird, a machine and music, synthesised without a download as the built-in corpus is."""

import dataclasses

import numpy as np
from jaxtyping import Float

from melmask.demo.espeak import Synthesiser
from melmask.demo.soundfont import RecordedNote, find_soundfont, play, read_soundfont

Wave = Float[np.ndarray, " _sample"]  # of any length; lengths in one call may differ

LENGTH_S = 6.08  # 38 columns of patches
SENTENCES = (
    "Good morning, how are you today?",
    "The train leaves at eight o'clock.",
    "Thank you, that is all.",
)
# Presets of General MIDI, counted from 0.
PIANO, BASS, FLUTE, BIRD, HELICOPTER = 0, 32, 73, 123, 125
# (beat, MIDI key, beats held); C, A minor, F and G at two beats each, 80 beats a minute.
MELODY = (
    *((0.0, 76, 1.0), (1.0, 79, 0.5), (1.5, 77, 0.5), (2.0, 76, 1.5)),
    *((3.5, 74, 0.5), (4.0, 72, 1.0), (5.0, 77, 1.0), (6.0, 79, 2.0)),
)
CHORDS = ((0.0, (60, 64, 67)), (2.0, (57, 60, 64)), (4.0, (60, 65, 69)), (6.0, (59, 62, 67)))
BASS_KEYS = ((0.0, 36), (1.0, 43), (2.0, 45), (3.0, 40), (4.0, 41), (5.0, 48), (6.0, 43), (7.0, 47))
BEAT_S = 0.75


def four_sounds(sample_rate_hz: int = 16_000, seed: int = 0) -> dict[str, Wave]:
    """The sounds by name, each `LENGTH_S` long with a peak of 0.5.

    Args:
        sample_rate_hz: of the sounds.
        seed: of the background noise, the bird's song and the pitch of the helicopter.

    Raises:
        ImportError: the extra ``melmask[demo]`` is not installed.
        RuntimeError: the speech synthesiser does not start.
    """
    presets = read_soundfont(find_soundfont())
    rng = np.random.default_rng(seed)
    made = {
        "speech": (_speech(sample_rate_hz), -45.0),
        "bird": (_bird(presets[0, BIRD], sample_rate_hz, rng), -32.0),
        "machine": (_helicopter(presets[0, HELICOPTER], sample_rate_hz, rng), -30.0),
        "music": (_music(presets, sample_rate_hz), -60.0),
    }
    return {name: _in_noise(sound, level_db, sample_rate_hz, rng) for name, (sound, level_db) in made.items()}


def _speech(rate_hz: int) -> Wave:
    """Three sentences with pauses between them."""
    synthesiser, sound, start_s = Synthesiser(rate_hz), np.zeros(round(LENGTH_S * rate_hz)), 0.25
    for sentence in SENTENCES:
        spoken = synthesiser.say(sentence, "en-us+f3", words_per_minute=180)
        _add(sound, spoken, start_s, rate_hz)
        start_s += len(spoken) / rate_hz + 0.35
    return sound


def _bird(notes: list[RecordedNote], rate_hz: int, rng: np.random.Generator) -> Wave:
    """A song of two kinds of calls: long calls of one recording, and series of chirps of the other."""
    song, chirp = notes
    sound = np.zeros(round(LENGTH_S * rate_hz))
    for start_s, key in ((0.3, 41), (3.4, 44)):
        _add(sound, play(song, key + rng.uniform(-0.5, 0.5), 1.4, rate_hz), start_s, rate_hz)
    for start_s, key, count in ((1.95, 50, 5), (4.75, 53, 5)):
        for i in range(count):
            call = play(chirp, key + rng.uniform(-1, 1), 0.2, rate_hz)
            _add(sound, 0.7 * call, start_s + 0.24 * i + rng.uniform(0, 0.03), rate_hz)
    return sound


def _helicopter(notes: list[RecordedNote], rate_hz: int, rng: np.random.Generator) -> Wave:
    """A rotor that runs, slows down and speeds up."""
    (note,) = notes
    note = dataclasses.replace(note, attack_s=0.05)  # the preset's attack takes half of the note
    sound = np.zeros(round(LENGTH_S * rate_hz))
    for start_s, key, held_s in ((0.0, 102, 2.64), (2.6, 98, 1.14), (3.7, 105, 2.38)):
        _add(sound, play(note, key + rng.uniform(-0.3, 0.3), held_s, rate_hz), start_s, rate_hz)
    return sound


def _music(presets: dict[tuple[int, int], list[RecordedNote]], rate_hz: int) -> Wave:
    """A flute's melody over piano chords and a bass."""
    sound = np.zeros(round(LENGTH_S * rate_hz))

    def add(program: int, key: int, beat: float, beats: float, level: float) -> None:
        note = next(note for note in presets[0, program] if note.lowest_key <= key <= note.highest_key)
        played = play(note, float(key), beats * BEAT_S, rate_hz)
        _add(sound, level * played / np.abs(played).max(), beat * BEAT_S, rate_hz)

    for beat, key, beats in MELODY:
        add(FLUTE, key, beat, beats, 0.5)
    for beat, keys in CHORDS:
        for key in keys:
            add(PIANO, key, beat, 2.0, 0.35)
    for beat, key in BASS_KEYS:
        add(BASS, key, beat, 1.0, 0.5)
    return sound


def _add(sound: Wave, part: Wave, start_s: float, rate_hz: int) -> None:
    """Add a part to a sound from ``start_s`` on; what exceeds the end is cut."""
    start = round(start_s * rate_hz)
    part = part[: max(0, len(sound) - start)]
    sound[start : start + len(part)] += part


def _in_noise(sound: Wave, level_db: float, rate_hz: int, rng: np.random.Generator) -> Wave:
    """The sound in pink noise of ``level_db`` relative to its power, with a peak of 0.5."""
    spectrum = np.fft.rfft(rng.standard_normal(len(sound)))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    spectrum[0] = 0
    noise = np.fft.irfft(spectrum, len(sound))
    sound = sound + noise * 10 ** (level_db / 20) * np.sqrt(np.mean(sound**2) / np.mean(noise**2))
    return (0.5 * sound / np.abs(sound).max()).astype(np.float32)
