"""The demo corpus: four small labelled sets of sampled instruments and synthesised speech, made without a download.

- ``instruments``: a few notes or beats of one recording; the label is the family. No recording is in two folds.
- ``chroma``: one sustained note; the label is its pitch class. No instrument is in two folds.
- ``words``: an English digit, spoken; the label is the word. No voice is in two folds.
- ``speech_other``: short sentences; the label is the language. No voice is in two folds. Meant for pre-training only:
  with four sentences in each language, a probe may learn the sentences.

Clips vary in pitch, length, level, room and background noise; under some lies a quieter phrase of another instrument,
whose recording belongs to the same fold. A recording, instrument or voice has its fold whatever the seed.

Nothing is redistributed: sounds come, at run time only, from the optional extra ``melmask[demo]``. The SoundFont is
TimGM6mb.sf2 as PyPI's pretty_midi ships it (GPL-2), sf2utils reads it (GPL-3), and espeak-ng speaks (GPL-3).
"""

import csv
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from jaxtyping import Float
from scipy.signal import fftconvolve

from melmask.demo.espeak import ACCENTS, SENTENCES, VOICES, WORDS, Synthesiser
from melmask.demo.soundfont import (
    BEATEN,
    FAMILIES,
    LEFT_OUT,
    OTHERS,
    RecordedNote,
    find_soundfont,
    play,
    read_soundfont,
)

Wave = Float[np.ndarray, " _sample"]  # of any length; those of one call need not agree

VERSION = 1  # of what the clips sound like: count up with every change to it
SAMPLE_RATE_HZ = 16_000
NUM_FOLDS = 5
MAX_SPEECH_SAMPLES = 40_000  # 2.5 s
MIN_CLIPS_PER_TASK = 60  # then each of up to 12 labels is in each of 5 folds
FINISHED, UNFINISHED = "demo.json", "demo.unfinished.json"

KEYS = range(28, 88)  # E1 to D#6
SHORTEST_RECORDING_S = 0.01  # what is shorter is a single cycle for the top of the keyboard, that sounds like nothing
PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


@dataclass(frozen=True)
class _Task:
    """A set to be made: the groups that each label may be drawn from, in a fixed order, and how a clip is performed."""

    groups: Mapping[str, Sequence[str]]
    perform: Callable[[str, str, str, np.random.Generator], Wave]  # from label, fold, group


def make_demo(
    out: Path, *, seed: int = 0, clips_per_task: int = 480, progress: Callable[[int, int], None] | None = None
) -> list[Path]:
    """Make the demo corpus, unless it is there already; an unfinished one is made again.

    Args:
        out: folder for the manifests and, in a folder for each, the recordings: 16 kHz, mono, 16 bit, 0.4 to 2.5 s.
        seed: of everything that varies; the same seed and versions of the extras give the same bytes.
        clips_per_task: of each set; speech_other has half as many.
        progress: called with the number of clips made and of all clips.

    Returns:
        The manifests instruments.csv, chroma.csv, words.csv and speech_other.csv, with columns path,label,fold,group;
        folds are "1" to "5".

    Raises:
        ImportError: the extra is not installed.
        RuntimeError: the speech synthesiser does not start.
        ValueError: too few clips, or the folder holds another demo corpus or other files.
    """
    if clips_per_task < MIN_CLIPS_PER_TASK:
        raise ValueError(f"each label needs a clip in each fold, got {clips_per_task} clips: use {MIN_CLIPS_PER_TASK}")
    num_clips = dict.fromkeys(("instruments", "chroma", "words"), clips_per_task)
    num_clips["speech_other"] = clips_per_task // 2
    manifests = [out / f"{name}.csv" for name in num_clips]
    settings = json.dumps({"version": VERSION, "seed": seed, "clips_per_task": clips_per_task}, indent=2) + "\n"
    if _is_finished(out, settings):
        return manifests
    tasks = _tasks()
    _clear(out, manifests, settings)

    num_made = 0
    for number, (name, manifest) in enumerate(zip(num_clips, manifests, strict=True)):
        rows = []
        for index, (label, fold, group) in enumerate(_plan(tasks[name].groups, num_clips[name])):
            rng = np.random.default_rng([seed, number, index])
            path = out / name / f"{index:04d}.wav"
            soundfile.write(path, tasks[name].perform(label, fold, group, rng), SAMPLE_RATE_HZ, subtype="PCM_16")
            rows.append((path.relative_to(out).as_posix(), label, fold, group))
            num_made += 1
            if progress:
                progress(num_made, sum(num_clips.values()))
        with manifest.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([("path", "label", "fold", "group"), *rows])
    (out / UNFINISHED).replace(out / FINISHED)  # at once, so that a finished corpus is whole
    return manifests


def _is_finished(out: Path, settings: str) -> bool:
    """Whether this very corpus is there; an error where something else is that should not be written over."""
    if (out / FINISHED).exists():
        if (out / FINISHED).read_text() != settings:
            raise ValueError(f"{out} holds a demo corpus with other settings: choose another folder or remove it")
        return True
    if out.exists() and any(out.iterdir()) and not (out / UNFINISHED).exists():
        raise ValueError(f"{out} holds files that are no demo corpus: choose an empty or a new folder")
    return False


def _clear(out: Path, manifests: Sequence[Path], settings: str) -> None:
    """Mark the folder as unfinished, then remove what an earlier attempt left there."""
    out.mkdir(parents=True, exist_ok=True)
    (out / UNFINISHED).write_text(settings)
    for manifest in manifests:
        manifest.unlink(missing_ok=True)
        shutil.rmtree(manifest.with_suffix(""), ignore_errors=True)
        manifest.with_suffix("").mkdir()


def _plan(groups: Mapping[str, Sequence[str]], num_clips: int) -> Iterator[tuple[str, str, str]]:
    """Label, fold and group of each clip: labels and folds in turn, and in each as many of its groups as it has clips.

    A group's fold is its place in the list modulo the number of folds, whatever the seed and the number of clips.

    >>> list(_plan({"a": "pqrstuv", "b": "pqrstuv"}, 12))[-4:]
    [('a', '5', 't'), ('b', '5', 't'), ('a', '1', 'u'), ('b', '1', 'u')]
    """
    labels = list(groups)
    num_rounds = -(-num_clips // (len(labels) * NUM_FOLDS))
    for index in range(num_clips):
        turn, label = index // len(labels), labels[index % len(labels)]
        fold = turn % NUM_FOLDS
        of_fold = groups[label][fold::NUM_FOLDS]
        yield label, str(fold + 1), of_fold[turn // NUM_FOLDS * len(of_fold) // num_rounds]


class _Orchestra:
    """The recordings of the SoundFont by family, each in one family only, and what they play."""

    def __init__(self) -> None:
        presets = read_soundfont(find_soundfont())
        kits = {note.name: note for (bank, _), notes in presets.items() if bank == 128 for note in notes}
        taken = set(LEFT_OUT)
        self.families: dict[str, dict[str, RecordedNote]] = {}
        self.instruments: dict[str, list[RecordedNote]] = {}
        for family, programs in [*FAMILIES.items(), ("other", OTHERS)]:
            for program in programs:
                notes = [note for note in presets[0, program] if note.name not in taken and _keys(note)]
                taken.update(note.name for note in notes)
                self.instruments[f"{family}-{program}"] = notes
                if family in FAMILIES:  # the sides of a stereo pair are one recording
                    by_name = {note.name.removesuffix(" L").removesuffix(" R"): note for note in notes}
                    self.families.setdefault(family, {}).update(by_name)
        for family, names in BEATEN.items():
            self.families[family] = {name: kits[name] for name in names}
        self.groups = {family: list(notes) for family, notes in self.families.items()}
        # Instruments that can play every pitch class.
        self.chromatic = [
            name for name, notes in self.instruments.items() if all(_choices(notes, c) for c in range(12))
        ]

    def phrase(self, family: str, group: str, duration_s: float, rng: np.random.Generator) -> Wave:
        """One to four notes or beats of one recording."""
        note, num_beats = self.families[family][group], int(rng.integers(1, 5))
        beat_s = duration_s / num_beats
        if family in BEATEN:
            keys = rng.uniform(note.lowest_key - 2, note.highest_key + 2, num_beats)
        else:
            keys = rng.choice(_keys(note), num_beats) + rng.uniform(-0.3, 0.3)
        beats = [play(note, key, beat_s, SAMPLE_RATE_HZ) for key in keys.tolist()]
        return np.concatenate([_fitted(beat, round(beat_s * SAMPLE_RATE_HZ)) for beat in beats])

    def note(self, instrument: str, pitch_class: str, duration_s: float, rng: np.random.Generator) -> Wave:
        """One sustained note, at most 10 cents out of tune."""
        choices = _choices(self.instruments[instrument], PITCH_CLASSES.index(pitch_class))
        note, key = choices[rng.integers(len(choices))]
        sound = play(note, key + rng.uniform(-0.1, 0.1), duration_s, SAMPLE_RATE_HZ)
        return _fitted(sound, round(duration_s * SAMPLE_RATE_HZ))

    def other(self, fold: str, families: Sequence[str], duration_s: float, rng: np.random.Generator) -> Wave:
        """A phrase of any recording of a fold, to be heard under a clip of that fold."""
        family = str(rng.choice(families))
        return self.phrase(family, str(rng.choice(self.groups[family][int(fold) - 1 :: NUM_FOLDS])), duration_s, rng)


def _tasks() -> dict[str, _Task]:
    """The four sets, on instruments that are loaded once."""
    orchestra, synthesiser = _Orchestra(), Synthesiser(SAMPLE_RATE_HZ)

    def instruments(label: str, fold: str, group: str, rng: np.random.Generator) -> Wave:
        duration_s = rng.uniform(1.2, 2.0)
        others = [family for family in orchestra.families if family != label]
        under = orchestra.other(fold, others, duration_s, rng)
        return _scene(orchestra.phrase(label, group, duration_s, rng), under, rng)

    def chroma(label: str, fold: str, group: str, rng: np.random.Generator) -> Wave:
        duration_s = rng.uniform(1.2, 2.0)
        under = orchestra.other(fold, list(BEATEN), duration_s, rng)  # nothing with a pitch
        return _scene(orchestra.note(group, label, duration_s, rng), under, rng)

    def speak(text: str, voice: str, fold: str, rng: np.random.Generator) -> Wave:
        rate, pitch, pitch_range = (int(rng.integers(low, high)) for low, high in ((130, 220), (35, 66), (35, 66)))
        spoken = synthesiser.say(text, voice, words_per_minute=rate, pitch=pitch, pitch_range=pitch_range)
        before, after = (round(rng.uniform(0.1, 0.4) * SAMPLE_RATE_HZ) for _ in range(2))
        spoken = np.pad(spoken, (before, after))[:MAX_SPEECH_SAMPLES]
        under = orchestra.other(fold, list(FAMILIES), len(spoken) / SAMPLE_RATE_HZ, rng)
        return _scene(spoken, under, rng)

    def words(label: str, fold: str, group: str, rng: np.random.Generator) -> Wave:
        return speak(label, f"{rng.choice(ACCENTS)}+{group}", fold, rng)

    def speech_other(label: str, fold: str, group: str, rng: np.random.Generator) -> Wave:
        return speak(str(rng.choice(SENTENCES[label])), f"{label}+{group}", fold, rng)

    return {
        "instruments": _Task(orchestra.groups, instruments),
        "chroma": _Task(dict.fromkeys(PITCH_CLASSES, orchestra.chromatic), chroma),
        "words": _Task(dict.fromkeys(WORDS, VOICES), words),
        "speech_other": _Task(dict.fromkeys(SENTENCES, VOICES), speech_other),
    }


def _keys(note: RecordedNote) -> range:
    """MIDI keys at which a note sounds like itself: those of its preset, not too far from the recording; maybe none."""
    if len(note.wave) < SHORTEST_RECORDING_S * note.rate_hz:
        return range(0)
    lowest = max(note.lowest_key, KEYS.start, math.ceil(note.root_key - 20))
    return range(lowest, min(note.highest_key + 1, KEYS.stop, math.floor(note.root_key + 5)))


def _choices(notes: Sequence[RecordedNote], pitch_class: int) -> list[tuple[RecordedNote, int]]:
    """The ways to play a pitch class."""
    return [(note, key) for note in notes for key in _keys(note) if key % 12 == pitch_class]


def _scene(sound: Wave, under: Wave, rng: np.random.Generator) -> Wave:
    """A sound in a room with noise and, in a quarter of cases, something quieter under it; the peak is -20 to -3 dB."""
    sound = sound / _rms(sound)
    if rng.random() < 0.25:
        sound = sound + _db(rng.uniform(-24, -10)) * _fitted(under, len(sound)) / _rms(under)
    if rng.random() < 0.7:
        sound = _reverberated(sound, rng)
    noise = _noise(len(sound), rng)
    sound = sound + _rms(sound) * _db(-rng.uniform(12, 40)) * noise / _rms(noise)
    return (sound / np.abs(sound).max() * _db(rng.uniform(-20, -3))).astype(np.float32)


def _reverberated(sound: Wave, rng: np.random.Generator) -> Wave:
    """With a short synthetic reverberation: noise that decays exponentially, after a moment of silence."""
    reverberation_s = rng.uniform(0.1, 0.7)  # until it is 60 dB down
    time_s = np.arange(round(reverberation_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    response = rng.standard_normal(len(time_s)) * _db(-60 * time_s / reverberation_s)
    response = np.pad(response, (int(rng.integers(0, 480)), 0))  # up to 30 ms
    wet = fftconvolve(sound, response)[: len(sound)]
    return sound + _db(rng.uniform(-20, -3)) * _rms(sound) * wet / _rms(wet)


def _noise(num_samples: int, rng: np.random.Generator) -> Wave:
    """Coloured noise, anywhere from white to brown."""
    spectrum = np.fft.rfft(rng.standard_normal(num_samples))
    spectrum[1:] *= np.arange(1, len(spectrum)) ** -rng.uniform(0, 1)
    spectrum[0] = 0
    return np.fft.irfft(spectrum, num_samples)


def _fitted(sound: Wave, num_samples: int) -> Wave:
    """Cut, or with silence added, to a number of samples."""
    return np.pad(sound[:num_samples], (0, max(0, num_samples - len(sound))))


def _rms(sound: Wave) -> float:
    return float(np.sqrt(np.mean(np.square(sound, dtype=np.float64))))


def _db(level: Any) -> Any:
    """Decibels to an amplitude."""
    return 10 ** (level / 20)
