"""The demo corpus: its content, that it is reproducible, and that it sounds like its labels."""

import csv
import importlib.util
import json
import logging
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from jaxtyping import Float
from scipy.signal import butter, sosfilt

from melmask.demo import corpus as demo
from melmask.demo.corpus import make_demo
from melmask.demo.espeak import ACCENTS, SENTENCES, VOICES, WORDS, Synthesiser
from melmask.demo.soundfont import FAMILIES, RecordedNote, find_soundfont, play, read_soundfont

NUM_CLIPS = 60
NAMES = ("instruments", "chroma", "words", "speech_other")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("corpus") / "demo"
    seen: list[tuple[int, int]] = []
    manifests = make_demo(out, clips_per_task=NUM_CLIPS, progress=lambda done, total: seen.append((done, total)))
    assert manifests == [out / f"{name}.csv" for name in NAMES]
    assert seen == [(done, 210) for done in range(1, 211)]
    return out


@pytest.fixture(scope="module")
def presets() -> dict[tuple[int, int], list[RecordedNote]]:
    return read_soundfont(find_soundfont())


def rows_of(corpus: Path, name: str) -> list[dict[str, str]]:
    with (corpus / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def bytes_of(corpus: Path) -> dict[str, bytes]:
    return {path.relative_to(corpus).as_posix(): path.read_bytes() for path in corpus.rglob("*") if path.is_file()}


def key_of(sound: Float[np.ndarray, " sample"], sample_rate_hz: int = 16_000) -> float:
    """MIDI key, as a fraction, of a sound with one pitch, from the first high peak of its autocorrelation."""
    num = len(sound)
    spectrum = np.abs(np.fft.rfft((sound - sound.mean()) * np.hanning(num), 2 * num)) ** 2
    correlation = np.fft.irfft(spectrum) / np.fft.irfft(np.abs(np.fft.rfft(np.hanning(num), 2 * num)) ** 2)
    lags = np.arange(8, 600)
    value = correlation[lags]
    peaks = lags[(value > correlation[lags - 1]) & (value >= correlation[lags + 1])]
    lag = next(lag for lag in peaks if correlation[lag] > 0.9 * correlation[peaks].max())
    before, top, after = correlation[lag - 1 : lag + 2]
    period = lag + 0.5 * (before - after) / (before - 2 * top + after)
    return 69 + 12 * float(np.log2(sample_rate_hz / period / 440))


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("instruments", {*FAMILIES, "drums", "percussion"}),
        ("chroma", set(demo.PITCH_CLASSES)),
        ("words", set(WORDS)),
        ("speech_other", set(SENTENCES)),
    ],
)
def test_every_label_is_in_every_fold_and_no_group_in_two(corpus: Path, name: str, labels: set[str]) -> None:
    rows = rows_of(corpus, name)
    assert list(rows[0]) == ["path", "label", "fold", "group"]
    assert {row["label"] for row in rows} == labels
    if name != "speech_other":  # which has half as many clips
        assert {(row["label"], row["fold"]) for row in rows} == {(label, fold) for label in labels for fold in "12345"}
    fold_of_group = {row["group"]: row["fold"] for row in rows}
    assert all(fold_of_group[row["group"]] == row["fold"] for row in rows)
    assert len({row["path"] for row in rows}) == len(rows) == (30 if name == "speech_other" else NUM_CLIPS)


@pytest.mark.parametrize("name", NAMES)
def test_clips_are_audible_and_not_clipped(corpus: Path, name: str) -> None:
    for row in rows_of(corpus, name):
        info = soundfile.info(corpus / row["path"])
        assert (info.samplerate, info.channels, info.format, info.subtype) == (16_000, 1, "WAV", "PCM_16")
        assert 0.4 <= info.duration <= 2.5
        sound, _ = soundfile.read(corpus / row["path"])
        assert 0.09 < np.abs(sound).max() < 0.72
        assert np.sqrt(np.mean(sound**2)) > 1e-3


def test_a_finished_corpus_is_not_made_again(corpus: Path) -> None:
    before = bytes_of(corpus)
    assert json.loads(before["demo.json"]) == {"version": demo.VERSION, "seed": 0, "clips_per_task": NUM_CLIPS}

    def fail(done: int, total: int) -> None:
        raise AssertionError("made again")

    assert make_demo(corpus, clips_per_task=NUM_CLIPS, progress=fail) == [corpus / f"{name}.csv" for name in NAMES]
    assert bytes_of(corpus) == before


def test_an_unfinished_corpus_is_made_again_with_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    shutil.copytree(corpus, out)
    (out / "demo.json").rename(out / "demo.unfinished.json")
    (out / "words" / "0003.wav").write_bytes(b"cut short")
    (out / "words" / "9999.wav").write_bytes(b"of a larger corpus")
    (out / "chroma.csv").unlink()
    make_demo(out, clips_per_task=NUM_CLIPS)
    assert bytes_of(out) == bytes_of(corpus)


def test_an_interrupted_run_leaves_no_finished_corpus_and_another_seed_other_sounds(
    corpus: Path, tmp_path: Path
) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_demo(tmp_path, seed=1, clips_per_task=NUM_CLIPS, progress=interrupt)
    assert not (tmp_path / "demo.json").exists()
    assert (tmp_path / "demo.unfinished.json").exists()
    first = "instruments/0000.wav"
    assert (tmp_path / first).read_bytes() != (corpus / first).read_bytes()


def test_a_folder_with_other_files_is_left_unchanged(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="other settings"):
        make_demo(corpus, seed=1, clips_per_task=NUM_CLIPS)
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "mine.wav").write_bytes(b"precious")
    with pytest.raises(ValueError, match="empty or a new folder"):
        make_demo(tmp_path)
    assert (tmp_path / "words" / "mine.wav").read_bytes() == b"precious"
    with pytest.raises(ValueError, match="got 59"):
        make_demo(tmp_path / "few", clips_per_task=59)


# Struck, plucked, bowed, blown and sung; played at other pitches than recorded.
@pytest.mark.parametrize("program", [0, 4, 12, 16, 24, 29, 40, 44, 52, 56, 65, 68, 73])
@pytest.mark.parametrize("key", [59, 65, 70, 77])
def test_notes_have_the_pitch_of_their_key(
    presets: dict[tuple[int, int], list[RecordedNote]], program: int, key: int
) -> None:
    note = next(note for note in presets[0, program] if note.lowest_key <= key <= note.highest_key)
    measured = key_of(play(note, float(key), 0.7, 16_000)[1600:9600])
    octaves = round((measured - key) / 12)  # organs sound an octave lower by design; only the pitch class matters
    assert abs(measured - key - 12 * octaves) < 0.3


def test_held_notes_repeat_their_loop_and_others_end(
    presets: dict[tuple[int, int], list[RecordedNote]],
) -> None:
    violin = next(note for note in presets[0, 40] if note.lowest_key <= 60 <= note.highest_key)
    assert len(violin.wave) < violin.rate_hz / 10
    held = play(violin, 60.0, 3.0, 16_000)
    assert len(held) == 48_000
    assert np.sqrt(np.mean(held[-8000:-800] ** 2)) > 0.3 * np.sqrt(np.mean(held[8000:16000] ** 2))
    snare = next(note for note in presets[128, 0] if note.name == "Snare 1")
    assert snare.loop is None
    assert len(play(snare, 38.0, 3.0, 16_000)) < 8000


def test_struck_notes_decay(presets: dict[tuple[int, int], list[RecordedNote]]) -> None:
    marimba = next(note for note in presets[0, 12] if note.lowest_key <= 60 <= note.highest_key)
    struck = play(marimba, 60.0, 2.0, 16_000)
    assert np.abs(struck[-8000:]).max() < 0.05 * np.abs(struck[:4000]).max()


def test_reading_a_soundfont_leaves_logging_alone(presets: dict[tuple[int, int], list[RecordedNote]]) -> None:
    assert logging.root.manager.disable == logging.NOTSET
    assert sum(len(notes) for notes in presets.values()) > 500


def test_every_voice_speaks() -> None:
    synthesiser = Synthesiser()
    spoken = {voice: synthesiser.say("seven", f"en-us+{voice}") for voice in VOICES}
    assert all(0.2 < len(sound) / 16_000 < 1.2 for sound in spoken.values())
    assert len({sound.tobytes() for sound in spoken.values()}) == len(VOICES)
    assert all(0.02 < np.abs(sound).max() < 0.99 for sound in spoken.values())
    accents = {accent: synthesiser.say("nine", accent) for accent in ACCENTS}
    assert len({sound.tobytes() for sound in accents.values()}) == len(ACCENTS)
    assert all(0.5 < len(synthesiser.say(texts[0], language)) / 16_000 < 3 for language, texts in SENTENCES.items())


def test_speech_does_not_depend_on_other_synthesisers() -> None:
    first = Synthesiser()
    expected = [first.say(word, "en-us+f2") for word in WORDS[:3]]
    second, third = Synthesiser(), Synthesiser()
    for word, sound in zip(WORDS, expected, strict=False):
        third.say("something else", "en+m3")
        np.testing.assert_array_equal(second.say(word, "en-us+f2"), sound)


def test_speech_has_the_requested_rate_and_pitch() -> None:
    synthesiser = Synthesiser()
    slow, fast = (synthesiser.say("seven", "en-us+m1", words_per_minute=rate) for rate in (100, 250))
    assert len(slow) > 1.5 * len(fast)
    fundamental = butter(4, 300, fs=16_000, output="sos")  # without the formants
    low, high = (synthesiser.say("nine", "en-us+m1", pitch=pitch, pitch_range=0) for pitch in (20, 80))
    assert key_of(sosfilt(fundamental, high)[1600:4800]) - key_of(sosfilt(fundamental, low)[1600:4800]) > 4


def test_unknown_voices_and_empty_texts_are_refused() -> None:
    with pytest.raises(ValueError, match="no voice 'xx-zz'"):
        Synthesiser().say("one", "xx-zz")
    with pytest.raises(ValueError, match="silent"):
        Synthesiser().say("", "en")


def test_missing_extras_are_named_with_their_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    soundfont = find_soundfont()
    for module in [name for name in sys.modules if name.split(".")[0] == "sf2utils"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "sf2utils", None)
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(ImportError, match=r"sf2utils.*melmask\[demo\]"):
        read_soundfont(soundfont)
    with pytest.raises(ImportError, match=r"espeakng-loader.*melmask\[demo\]"):
        Synthesiser()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pretty_midi.*melmask\[demo\]"):
        make_demo(tmp_path / "demo")
    assert not (tmp_path / "demo").exists()
