"""Detection of known events in synthesised mixtures, from recordings to scores, by the command line too."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from melmask.cli import main
from melmask.data.prepare import prepare
from melmask.data.store import Store
from melmask.detect.events import Event, EventTask, make_event_task, read_events
from melmask.detect.linear import Detection, detect
from melmask.detect.scoring import onset_counts
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.encoders.timesteps import TimeSteps
from melmask.nn.encoder_file import ENCODER, EncoderFile, FrontEnd
from melmask.nn.vit import SIZES, Encoder

RATE = 16_000
CLASSES = ("beep", "hiss", "whistle")


def synthesise(duration_s: float, rng: np.random.Generator) -> tuple[np.ndarray, list[Event]]:
    """A mixture of events over a noise floor; different classes may overlap, two of one class do not."""
    sound, events = 0.003 * rng.standard_normal(int(duration_s * RATE)), []
    for label in CLASSES:
        at_s = rng.uniform(0.2, 1.5)
        while at_s < duration_s - 0.5:
            length_s = float(min(rng.uniform(0.4, 1.2), duration_s - at_s))
            time_s = np.arange(int(length_s * RATE)) / RATE
            wave = {
                "beep": 0.2 * np.sin(2 * np.pi * 700 * time_s),
                "hiss": 0.1 * rng.standard_normal(len(time_s)),
                "whistle": 0.2 * np.sin(2 * np.pi * (2500 * time_s + 400 * time_s**2)),
            }[label]
            start = int(at_s * RATE)
            sound[start : start + len(wave)] += wave
            events.append(Event(float(at_s), float(at_s + length_s), label))
            at_s += length_s + rng.uniform(0.6, 2.0)
    return sound, events


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 18 mixtures of 6 s, one of them of 11 s, and one without events, in three folds."""
    folder, rng = tmp_path_factory.mktemp("mixtures"), np.random.default_rng(0)
    lines = ["path,onset_s,offset_s,label,fold"]
    for number in range(18):
        sound, events = synthesise(11.0 if number == 4 else 6.0, rng)
        if number == 7:
            sound, events = 0.003 * rng.standard_normal(6 * RATE), []
        soundfile.write(folder / f"{number}.wav", sound, RATE)
        rows = [f"{event.onset_s:.4f},{event.offset_s:.4f},{event.label}" for event in events] or [",,"]
        lines += [f"{number}.wav,{row},{('train', 'val', 'test')[number % 3]}" for row in rows]
    (folder / "mixtures.csv").write_text("\n".join(lines) + "\n")
    return folder / "mixtures.csv"


@pytest.fixture(scope="module")
def store(labels: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return prepare([labels], tmp_path_factory.mktemp("stores") / "mixtures", num_workers=0)


@pytest.fixture(scope="module")
def run(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose encoder is as it began: its features of a step still say what is in the step."""
    folder = tmp_path_factory.mktemp("runs") / "fresh"
    folder.mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = Encoder(SIZES["micro"], (16, 16))
    EncoderFile(encoder, FrontEnd(store.spec, store.mean, store.std), 208).save(folder / ENCODER)
    return folder


def test_the_command_detects_known_events(labels, run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MELMASK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.argv", ["melmask", "detect", "here"])
    out = tmp_path / "found" / "events.csv"
    main.main(["detect", str(run), "--task", str(labels), "--out", str(out), "--seeds", "2", "--workers", "0"])
    printed = capsys.readouterr().out
    assert "onsets within 200 ms" in printed and "whistle" in printed and "log-mel steps" in printed

    lines = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    assert [(line["features"], line["probe"]) for line in lines[:2]] == [
        ("encoder", "segments of 1 s"),
        ("encoder", "onsets within 200 ms"),
    ]
    assert len(lines) == 6 and {line["num_clips"] for line in lines} == {6}
    for line in lines:
        assert 0 < line["low"] < line["score"] < line["high"] <= 1 and line["metric"] == "F"
    assert lines[0]["score"] > 0.9 and lines[1]["score"] > 0.7

    clips, found = read_events(out)
    _, known = _of(labels, [clip.path for clip in clips])
    assert [clip.path.stem for clip in clips] == ["2", "5", "8", "11", "14", "17"]
    onset_f = float(onset_counts(known, found, CLASSES).f_score()[0, 0])
    assert onset_f == pytest.approx(lines[1]["score"], abs=0.1)  # of the first training, the line of both
    lasting = [event for events in found for event in events if event.offset_s - event.onset_s > 0.3]
    assert len(lasting) > 0.7 * sum(map(len, known))


def _of(labels: Path, paths: list[Path]) -> tuple[list[Path], list[tuple[Event, ...]]]:
    by_path = {clip.path: events for clip, events in zip(*read_events(labels), strict=True)}
    return paths, [by_path[path] for path in paths]


@pytest.fixture(scope="module")
def steps(labels: Path, store: Store, run: Path) -> tuple[EventTask, TimeSteps, PretrainedEncoder]:
    task, encoder = make_event_task(labels, store), PretrainedEncoder.load(run)
    return task, encoder.time_steps(store, task.rows), encoder


def _detect(
    steps: tuple[EventTask, TimeSteps, PretrainedEncoder], task: EventTask | None = None, **options
) -> Detection:
    own_task, features, encoder = steps
    centres_s = encoder.timestamps_s(int(features.length.max()))
    return detect(features, centres_s, encoder.step_s, task or own_task, num_seeds=1, **options)


def test_the_task_is_what_the_table_says(labels, store, steps):
    task = steps[0]
    assert task.task.classes == CLASSES and len(task.events) == 18 and task.num_rejected == 0
    assert sorted(task.task.folds.tolist()) == ["test"] * 6 + ["train"] * 6 + ["val"] * 6
    assert not task.events[7] and not task.task.targets[7].any()
    assert task.durations_s[4] == pytest.approx(11.0) and len(store.clips) > 18


def test_test_events_change_no_detection(steps):
    """Weights, thresholds and medians are chosen without them; only the scores depend on them."""
    task = steps[0]
    moved = [
        tuple(Event(event.onset_s + 0.45, event.offset_s + 0.45, "beep") for event in events)
        if fold == "test"
        else events
        for events, fold in zip(task.events, task.task.folds, strict=True)
    ]
    before = _detect(steps)
    after = _detect(steps, EventTask(task.task, task.rows, tuple(moved), task.durations_s, 0))
    assert before.events == after.events and sum(map(len, before.events.values())) > 10
    assert after.onset_f.value < before.onset_f.value - 0.3


def test_a_class_without_training_or_validation_events_is_noted(steps):
    task = steps[0]

    def without(part: str, label: str) -> EventTask:
        kept = [
            tuple(event for event in events if fold != part or event.label != label)
            for events, fold in zip(task.events, task.task.folds, strict=True)
        ]
        return EventTask(task.task, task.rows, tuple(kept), task.durations_s, 0)

    lacking = _detect(steps, without("train", "beep"))
    assert lacking.notes == ("fold test: no training events of beep: never detected",)
    assert not any(event.label == "beep" for events in lacking.events.values() for event in events)
    assert lacking.by_class["beep"][0].value == 0
    assert _detect(steps, without("val", "hiss")).notes == (
        "fold test: no validation events of hiss: its threshold is 1/2",
    )
    silent = [() if fold == "train" else events for events, fold in zip(task.events, task.task.folds, strict=True)]
    with pytest.raises(ValueError, match="fold test: no events in training recordings"):
        _detect(steps, EventTask(task.task, task.rows, tuple(silent), task.durations_s, 0))


def test_tables_that_cannot_be_trained_on_are_refused(labels, store, tmp_path):
    folder = labels.parent
    for lines, message in (
        ([f"{folder}/0.wav,,,,"], "has no events: detection needs some"),
        ([f"{folder}/0.wav,6.5,7,beep,1"], r"0\.wav ends at 7 s, but the recording lasts 6\.00 s.*in seconds"),
        ([f"{folder}/0.wav,1,2,beep,1", f"{folder}/1.wav,1,2,beep,"], r"1\.wav .* has no fold but others have"),
    ):
        table = tmp_path / "faulty.csv"
        table.write_text("\n".join(["path,onset_s,offset_s,label,fold", *lines]) + "\n")
        with pytest.raises(ValueError, match=message):
            make_event_task(table, store)


def test_recordings_that_could_not_be_read_are_counted(labels, store, tmp_path):
    table = tmp_path / "more.csv"
    lines = [f"{labels.parent}/0.wav,1,2,beep", f"{labels.parent}/gone.wav,1,2,beep"]
    table.write_text("\n".join(["path,onset_s,offset_s,label", *lines]) + "\n")
    task = make_event_task(table, store)
    assert task.num_rejected == 1 and task.task.folds is None and len(task.rows) == 1
