"""The demo corpus: four small labelled sets of sampled instruments and synthesised speech, generated offline.

- ``instruments``: a few notes or beats of one sample; the label is the instrument family. No sample is in two folds.
- ``chroma``: one sustained note; the label is its pitch class. No instrument is in two folds.
- ``words``: an English digit, spoken; the label is the word. No voice is in two folds.
- ``speech_other``: short sentences; the label is the language. No voice is in two folds. Meant for pre-training only:
  with four sentences per language, a probe may learn the sentences.

Clips vary in pitch, length, level, reverberation and background noise; some have a quieter phrase of another instrument
in the background, whose sample is of the same fold. The folds of samples, instruments and voices do not depend on the
seed.

Nothing is redistributed: the sounds come, at run time only, from the optional extra ``melmask[demo]``. The SoundFont is
TimGM6mb.sf2 as shipped in PyPI's pretty_midi (GPL-2); sf2utils reads it (GPL-3), and espeak-ng speaks (GPL-3).
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
    EXCLUDED,
    FAMILIES,
    OTHERS,
    PERCUSSIVE,
    RecordedNote,
    find_soundfont,
    play,
    read_soundfont,
)
from melmask.extras import need
from melmask.files import atomic_write, write_text

Wave = Float[np.ndarray, " _sample"]  # of any length, also within one call

VERSION = 1  # of the clips: increase it with every change to them
SAMPLE_RATE_HZ = 16_000
NUM_FOLDS = 5
NUM_CLIPS = 480  # of each task, unless another number is asked for
MAX_SPEECH_SAMPLES = 40_000  # 2.5 s
MIN_CLIPS_PER_TASK = 60  # so that each of up to 12 labels is in each of 5 folds
FINISHED, UNFINISHED = "demo.json", "demo.unfinished.json"

KEYS = range(28, 88)  # E1 to D#6
MIN_SAMPLE_S = (
    0.01  # shorter ones are single cycles for the top of the keyboard, which do not sound like the instrument
)
PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


@dataclass(frozen=True)
class _Task:
    """A labelled set: the groups of each label, in a fixed order, and how to synthesise a clip."""

    groups: Mapping[str, Sequence[str]]
    synthesise: Callable[[str, str, str, np.random.Generator], Wave]  # (label, fold, group, rng) -> clip


def make_demo(
    out: Path, *, seed: int = 0, clips_per_task: int = NUM_CLIPS, progress: Callable[[int, int], None] | None = None
) -> list[Path]:
    """Make the demo corpus, unless it exists already; an incomplete one is made again.

    Args:
        out: folder for the manifests and, in a folder for each, the clips: 16 kHz, mono, 16 bit, 0.4 to 2.5 s.
        seed: of all random variation; the same seed and versions of the extras give the same bytes.
        clips_per_task: number of clips in each set; speech_other has half as many.
        progress: called with the number of clips made and in total.

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
    need("demo", "the built-in corpus")
    tasks = _tasks()
    _clear(out, manifests, settings)

    num_made = 0
    for number, (name, manifest) in enumerate(zip(num_clips, manifests, strict=True)):
        rows = []
        for index, (label, fold, group) in enumerate(_plan(tasks[name].groups, num_clips[name])):
            rng = np.random.default_rng([seed, number, index])
            path = out / name / f"{index:04d}.wav"
            soundfile.write(path, tasks[name].synthesise(label, fold, group, rng), SAMPLE_RATE_HZ, subtype="PCM_16")
            rows.append((path.relative_to(out).as_posix(), label, fold, group))
            num_made += 1
            if progress:
                progress(num_made, sum(num_clips.values()))
        with atomic_write(manifest) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([("path", "label", "fold", "group"), *rows])
    (out / UNFINISHED).replace(out / FINISHED)  # last and atomically, so that it marks a complete corpus
    return manifests


def _is_finished(out: Path, settings: str) -> bool:
    """Whether this corpus exists; an error if the folder holds something else, which must not be overwritten."""
    if (out / FINISHED).exists():
        if (out / FINISHED).read_text() != settings:
            raise ValueError(f"{out} holds a demo corpus with other settings: choose another folder, or remove it")
        return True
    if out.exists() and any(out.iterdir()) and not (out / UNFINISHED).exists():
        raise ValueError(f"{out} holds files that are not a demo corpus: choose an empty or a new folder")
    return False


def _clear(out: Path, manifests: Sequence[Path], settings: str) -> None:
    """Mark the folder as unfinished, then remove the clips of an earlier attempt."""
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / UNFINISHED, settings)
    for manifest in manifests:
        manifest.unlink(missing_ok=True)
        shutil.rmtree(manifest.with_suffix(""), ignore_errors=True)
        manifest.with_suffix("").mkdir()


def _plan(groups: Mapping[str, Sequence[str]], num_clips: int) -> Iterator[tuple[str, str, str]]:
    """Label, fold and group of each clip: labels and folds in turn, and each fold's groups spread over its clips.

    A group's fold is its index in the list modulo the number of folds, whatever the seed and the number of clips.

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


class _Instruments:
    """The samples of the SoundFont by family, each in one family only, and phrases played on them."""

    def __init__(self) -> None:
        presets = read_soundfont(find_soundfont())
        kits = {note.name: note for (bank, _), notes in presets.items() if bank == 128 for note in notes}
        taken = set(EXCLUDED)
        self.families: dict[str, dict[str, RecordedNote]] = {}
        self.instruments: dict[str, list[RecordedNote]] = {}
        for family, programs in [*FAMILIES.items(), ("other", OTHERS)]:
            for program in programs:
                notes = [note for note in presets[0, program] if note.name not in taken and _keys(note)]
                taken.update(note.name for note in notes)
                self.instruments[f"{family}-{program}"] = notes
                if family in FAMILIES:  # the two channels of a stereo sample are one
                    by_name = {note.name.removesuffix(" L").removesuffix(" R"): note for note in notes}
                    self.families.setdefault(family, {}).update(by_name)
        for family, names in PERCUSSIVE.items():
            self.families[family] = {name: kits[name] for name in names}
        self.groups = {family: list(notes) for family, notes in self.families.items()}
        # Instruments that can play all pitch classes.
        self.chromatic = [
            name for name, notes in self.instruments.items() if all(_choices(notes, c) for c in range(12))
        ]

    def phrase(self, family: str, group: str, duration_s: float, rng: np.random.Generator) -> Wave:
        """One to four notes or beats of one sample."""
        note, num_beats = self.families[family][group], int(rng.integers(1, 5))
        beat_s = duration_s / num_beats
        if family in PERCUSSIVE:
            keys = rng.uniform(note.lowest_key - 2, note.highest_key + 2, num_beats)
        else:
            keys = rng.choice(_keys(note), num_beats) + rng.uniform(-0.3, 0.3)
        beats = [play(note, key, beat_s, SAMPLE_RATE_HZ) for key in keys.tolist()]
        return np.concatenate([_fit_length(beat, round(beat_s * SAMPLE_RATE_HZ)) for beat in beats])

    def note(self, instrument: str, pitch_class: str, duration_s: float, rng: np.random.Generator) -> Wave:
        """One sustained note, at most 10 cents out of tune."""
        choices = _choices(self.instruments[instrument], PITCH_CLASSES.index(pitch_class))
        note, key = choices[rng.integers(len(choices))]
        sound = play(note, key + rng.uniform(-0.1, 0.1), duration_s, SAMPLE_RATE_HZ)
        return _fit_length(sound, round(duration_s * SAMPLE_RATE_HZ))

    def background(self, fold: str, families: Sequence[str], duration_s: float, rng: np.random.Generator) -> Wave:
        """A phrase of a random sample of a fold, for the background of a clip of that fold."""
        family = str(rng.choice(families))
        return self.phrase(family, str(rng.choice(self.groups[family][int(fold) - 1 :: NUM_FOLDS])), duration_s, rng)


def _tasks() -> dict[str, _Task]:
    """The four sets, which share the instruments and the speech synthesiser."""
    instruments, synthesiser = _Instruments(), Synthesiser(SAMPLE_RATE_HZ)

    def phrase(label: str, fold: str, group: str, rng: np.random.Generator) -> Wave:
        duration_s = rng.uniform(1.2, 2.0)
        others = [family for family in instruments.families if family != label]
        background = instruments.background(fold, others, duration_s, rng)
        return _mix(instruments.phrase(label, group, duration_s, rng), background, rng)

    def note(label: str, fold: str, group: str, rng: np.random.Generator) -> Wave:
        duration_s = rng.uniform(1.2, 2.0)
        background = instruments.background(fold, list(PERCUSSIVE), duration_s, rng)  # without a pitch
        return _mix(instruments.note(group, label, duration_s, rng), background, rng)

    def speak(text: str, voice: str, fold: str, rng: np.random.Generator) -> Wave:
        rate, pitch, pitch_range = (int(rng.integers(low, high)) for low, high in ((130, 220), (35, 66), (35, 66)))
        spoken = synthesiser.say(text, voice, words_per_minute=rate, pitch=pitch, pitch_range=pitch_range)
        before, after = (round(rng.uniform(0.1, 0.4) * SAMPLE_RATE_HZ) for _ in range(2))
        spoken = np.pad(spoken, (before, after))[:MAX_SPEECH_SAMPLES]
        background = instruments.background(fold, list(FAMILIES), len(spoken) / SAMPLE_RATE_HZ, rng)
        return _mix(spoken, background, rng)

    def word(label: str, fold: str, group: str, rng: np.random.Generator) -> Wave:
        return speak(label, f"{rng.choice(ACCENTS)}+{group}", fold, rng)

    def sentence(label: str, fold: str, group: str, rng: np.random.Generator) -> Wave:
        return speak(str(rng.choice(SENTENCES[label])), f"{label}+{group}", fold, rng)

    return {
        "instruments": _Task(instruments.groups, phrase),
        "chroma": _Task(dict.fromkeys(PITCH_CLASSES, instruments.chromatic), note),
        "words": _Task(dict.fromkeys(WORDS, VOICES), word),
        "speech_other": _Task(dict.fromkeys(SENTENCES, VOICES), sentence),
    }


def _keys(note: RecordedNote) -> range:
    """MIDI keys that a note sounds natural at: those of its preset, not too far from its own key; may be empty."""
    if len(note.wave) < MIN_SAMPLE_S * note.rate_hz:
        return range(0)
    lowest = max(note.lowest_key, KEYS.start, math.ceil(note.root_key - 20))
    return range(lowest, min(note.highest_key + 1, KEYS.stop, math.floor(note.root_key + 5)))


def _choices(notes: Sequence[RecordedNote], pitch_class: int) -> list[tuple[RecordedNote, int]]:
    """The notes and keys that give a pitch class."""
    return [(note, key) for note in notes for key in _keys(note) if key % 12 == pitch_class]


def _mix(sound: Wave, background: Wave, rng: np.random.Generator) -> Wave:
    """Add noise, in most cases reverberation, and in a quarter of cases the background; the peak is -20 to -3 dB."""
    sound = sound / _rms(sound)
    if rng.random() < 0.25:
        sound = sound + _gain(rng.uniform(-24, -10)) * _fit_length(background, len(sound)) / _rms(background)
    if rng.random() < 0.7:
        sound = _add_reverberation(sound, rng)
    noise = _noise(len(sound), rng)
    sound = sound + _rms(sound) * _gain(-rng.uniform(12, 40)) * noise / _rms(noise)
    return (sound / np.abs(sound).max() * _gain(rng.uniform(-20, -3))).astype(np.float32)


def _add_reverberation(sound: Wave, rng: np.random.Generator) -> Wave:
    """Add a short synthetic reverberation: a pre-delay, then exponentially decaying noise."""
    reverberation_s = rng.uniform(0.1, 0.7)  # time to decay by 60 dB
    time_s = np.arange(round(reverberation_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    response = rng.standard_normal(len(time_s)) * _gain(-60 * time_s / reverberation_s)
    response = np.pad(response, (int(rng.integers(0, 480)), 0))  # up to 30 ms
    wet = fftconvolve(sound, response)[: len(sound)]
    return sound + _gain(rng.uniform(-20, -3)) * _rms(sound) * wet / _rms(wet)


def _noise(num_samples: int, rng: np.random.Generator) -> Wave:
    """Coloured noise, from white to brown."""
    spectrum = np.fft.rfft(rng.standard_normal(num_samples))
    spectrum[1:] *= np.arange(1, len(spectrum)) ** -rng.uniform(0, 1)
    spectrum[0] = 0
    return np.fft.irfft(spectrum, num_samples)


def _fit_length(sound: Wave, num_samples: int) -> Wave:
    """Truncate or zero-pad at the end."""
    return np.pad(sound[:num_samples], (0, max(0, num_samples - len(sound))))


def _rms(sound: Wave) -> float:
    return float(np.sqrt(np.mean(np.square(sound, dtype=np.float64))))


def _gain(level_db: Any) -> Any:
    """The factor on the amplitude for a level in decibels."""
    return 10 ** (level_db / 20)
