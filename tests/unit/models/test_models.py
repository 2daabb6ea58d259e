"""Trained models: saved and loaded they predict as before, on recordings of any length, and say how sure they are."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from pyarrow import parquet

import melmask
from labelled import arrays, clusters
from melmask.cli.main import main
from melmask.data.prepare import prepare
from melmask.detect.events import make_event_task, merge, read_events
from melmask.detect.linear import predict
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.encoders.registry import load, name_encoders
from melmask.evaluation.for_use import is_official, split_for_use
from melmask.evaluation.metrics import score_of
from melmask.evaluation.run import EvaluationSettings, evaluate_table
from melmask.files import read_tensors, write_tensors
from melmask.finetune.model import FinetunedModel
from melmask.models.base import PredictSettings
from melmask.models.classifier import Classifier
from melmask.models.file import MODEL, load_model, of_finetuned, save_model
from melmask.models.held_out import HeldOut
from melmask.models.training import classifier_for_use, detector_for_use
from melmask.models.windows import Windows
from melmask.probes import PROBES, make_probe
from melmask.probes.base import Probe
from melmask.probes.run import LabelledFeatures, fit_for_use

SHORT = {"linear": ":max_epochs=3", "mlp": ":max_epochs=3,hidden_dim=8", "attentive": ":max_epochs=3"}


@pytest.fixture(scope="module")
def model(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the command evaluate saved a probe in."""
    folder = tmp_path_factory.mktemp("models") / "chirps"
    probe = ["--probe", "logistic", "--save-probe", str(folder), "--workers", "0", "--no-baselines"]
    main(["evaluate", "untrained:micro", "--task", str(recordings), *probe])
    return folder


@pytest.mark.parametrize("name", PROBES)
def test_every_probe_predicts_from_its_tensors_as_it_does_in_evaluation(name: str) -> None:
    probe = make_probe(name + SHORT.get(name, ""))
    (train_x, train_y, valid_x, valid_y, test_x), settings = arrays(spread=0.5)
    whole = probe.fit_predict(train_x, train_y, valid_x, valid_y, test_x, **settings)
    state = probe.train(train_x, train_y, valid_x, valid_y, **settings)
    assert all(tensor.dtype in (torch.float32, torch.float64, torch.int64) for tensor in state.values())
    np.testing.assert_allclose(probe.predict(state, test_x, multilabel=False), whole, atol=1e-6)


def test_a_probe_for_use_is_standardised_as_in_evaluation_and_one_without_a_state_says_so() -> None:
    features, task = clusters(spread=0.5)
    data = LabelledFeatures(features, task.flags, task.classes, False)
    split = split_for_use(task)
    fitted = fit_for_use(make_probe("ridge"), data, split.train, split.valid, score=score_of)
    assert (fitted.predict(make_probe("ridge"), features, False).argmax(axis=1) == task.targets).mean() > 0.97
    assert len(split.train) + len(split.valid) == 240 and not len(split.test) and len(split.valid) > 12

    class Alone(Probe):
        def fit_predict(self, *arrays, **settings):
            return arrays[0]

    with pytest.raises(ValueError, match="Alone cannot be saved: define train and predict"):
        fit_for_use(Alone(), data, split.train, split.valid, score=score_of)


def test_the_command_evaluate_leaves_a_model_that_the_command_predict_applies(
    model: Path, recordings: Path, tmp_path: Path, capsys
) -> None:
    tensors, metadata = read_tensors(model / MODEL)
    about = json.loads(metadata["about"])
    assert metadata["kind"] == "classifier" and about["task"] == "chirps" and 0 < about["score"] <= 1
    assert about["num_clips"] == len(tensors["held_out.is_right"]) == 24
    folder, out = tmp_path / "new", tmp_path / "p.csv"
    folder.mkdir()
    for name in ("00.wav", "01.wav"):
        shutil.copy(recordings.parent / name, folder / name)
    (folder / "=broken.wav").write_text("no audio")
    with pytest.raises(SystemExit) as stopped:
        main(["predict", str(model), str(folder), "--out", str(out)])
    shown = capsys.readouterr().out
    assert stopped.value.code == 3 and "=broken.wav was left out" in shown
    assert f"3 found = 2 used + 1 rejected + 0 excluded; listed in {out}.rejected.csv" in shown
    assert f"next: melmask predict {model} {folder} --out tracks --format audacity" in shown
    found, rejected = melmask.predict(model, f"{folder}/0*.wav")  # a pattern, as on the command line
    assert [one.path.name for one in found] == ["00.wav", "01.wav"] and not rejected
    with pytest.raises(ValueError, match="no file matches"):
        melmask.predict(model, folder / "1*.wav")
    rows = list(csv.DictReader(out.read_text().splitlines()))
    loaded = load_model(model)
    expected = loaded.predict(folder / "00.wav", PredictSettings(), lambda note: None)
    assert [Path(row["path"]).name for row in rows] == ["00.wav", "01.wav"]
    assert rows[0]["label"] == expected.labels[0] and rows[0]["abstained"] == "false"
    values = [float(rows[0][f"p:{name}"]) for name in ("falling", "rising")]
    np.testing.assert_allclose(values, expected.probabilities[0], atol=1e-6)
    assert sum(values) == pytest.approx(1, abs=1e-5) and float(rows[0]["confidence"]) == max(values)

    (folder / "=broken.wav").unlink()
    main(
        ["predict", str(model), str(folder), "--out", str(tmp_path / "p.parquet"), "--window-s", "0.2", "--top-k", "1"]
    )
    table = parquet.read_table(tmp_path / "p.parquet").to_pydict()
    assert list(table) == ["path", "start_s", "end_s", "label", "confidence", "abstained", "label_1", "p_1"]
    assert table["label"] == table["label_1"] and len(table["path"]) > 4
    assert all(
        end - start == pytest.approx(0.2, abs=1e-4) for start, end in zip(table["start_s"], table["end_s"], strict=True)
    )
    tracks = tmp_path / "tracks"
    for kind, name in (("audacity", "00.txt"), ("raven", "00.selections.txt")):
        main(["predict", str(model), str(folder), "--out", str(tracks), "--format", kind])
        assert (tracks / name).exists()
    start_s, end_s, label = (tracks / "00.txt").read_text().splitlines()[0].split("\t")
    assert float(start_s) == 0 and float(end_s) > 0.3 and label.split()[0] in ("falling", "rising")
    header, line = (tracks / "00.selections.txt").read_text().splitlines()
    assert header.split("\t")[3] == "Begin Time (s)" and line.split("\t")[:4] == ["1", "Spectrogram 1", "1", "0.000000"]
    with pytest.raises(ValueError, match="a track is of one"):
        main_checked(["predict", str(model), str(folder), "--out", str(tmp_path / "all.txt")])


def main_checked(arguments: list[str]) -> None:
    """The command, with its error as it is raised."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MELMASK_DEBUG", "1")
        main(arguments)


def test_predict_takes_a_list_on_standard_input_and_names_what_is_not_there(model, recordings, tmp_path, monkeypatch):
    (tmp_path / "list.txt").write_text(f"{recordings.parent / '00.wav'}\n{tmp_path / 'gone.wav'}\n")
    with (tmp_path / "list.txt").open() as lines, pytest.raises(SystemExit) as stopped:
        monkeypatch.setattr("sys.stdin", lines)
        main(["predict", str(model), "-", "--out", str(tmp_path / "p.csv")])
    assert stopped.value.code == 3 and len((tmp_path / "p.csv").read_text().splitlines()) == 2
    assert "gone.wav" in (tmp_path / "p.csv.rejected.csv").read_text()


def test_a_whole_recording_is_predicted_as_in_evaluation_and_by_the_call(model: Path, recordings: Path) -> None:
    store = prepare([recordings], recordings.parent / "store", num_workers=0)
    loaded = load_model(model)
    features = loaded.encoder.embed_store(store)
    x = ((features - loaded.centre) * loaded.scale).astype(np.float32)
    by_store = loaded.probe.predict(loaded.state, x, multilabel=False)
    found, rejected = melmask.predict(loaded, recordings, accuracy=0.5)
    assert not rejected and [one.path for one in found] == [stored.clip.path for stored in store.clips]
    np.testing.assert_allclose(np.concatenate([one.probabilities for one in found]), by_store, atol=1e-5)
    shutil.rmtree(recordings.parent / "store")


def test_windows_are_those_of_the_whole_waveform_whatever_the_blocks() -> None:
    wave = np.random.default_rng(0).standard_normal(4567).astype(np.float32)
    for window_s, hop_s in ((1.0, 0.3), (0.5, 0.0), (0.2, 0.7), (4.5, 1.0)):
        windows, size = Windows(window_s, hop_s), round(window_s * 1000)
        for block in (1, 777, 5000):
            blocks = np.split(wave, range(block, len(wave), block)) if block > 1 else [wave[:1], wave[1:2], wave[2:]]
            found = list(windows.of(blocks, 1000))
            starts = [round(1000 * start) for start, _, _ in found]
            regular = list(range(0, len(wave) - size + 1, round(1000 * (hop_s or window_s))))
            rest = [len(wave) - size] if regular[-1] + size < len(wave) else []
            assert starts == regular + rest
            for start, (_, end_s, part) in zip(starts, found, strict=True):
                assert np.array_equal(part, wave[start : start + size]) and round(1000 * end_s) == start + size
    [(start_s, end_s, part)] = Windows(10.0).of([wave], 1000)
    assert (start_s, end_s, len(part)) == (0.0, 4.567, 4567)
    [(_, _, padded)] = Windows(10.0, pad=True).of([wave], 1000)
    assert len(padded) == 10_000 and np.array_equal(padded[2716 : 2716 + 4567], wave)
    for wrong in ((-1.0, 0.0), (0.0, 1.0), (1.0, 1e-9)):
        with pytest.raises(ValueError, match="give"):
            Windows(*wrong)


def test_the_threshold_is_the_smallest_confidence_that_is_right_often_enough() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0, 1, 2000).astype(np.float32)
    held_out = HeldOut(confidence, rng.uniform(0, 1, 2000) < confidence)
    threshold = held_out.threshold(0.8)
    assert 0.5 < threshold < 0.7 and held_out.kept(threshold)[1] >= 0.8  # the mean of U(t, 1) is 0.8 at t = 0.6
    below = float(confidence[confidence < threshold].max())
    assert held_out.kept(below)[1] < 0.8
    assert HeldOut(confidence, np.ones(2000, np.bool_)).threshold(0.99) == confidence.min()
    for wrong, message in ((1.5, "give a share"), (1.0, "ask for less")):
        with pytest.raises(ValueError, match=message):
            HeldOut(confidence, np.zeros(2000, np.bool_)).threshold(wrong)
    with pytest.raises(ValueError, match="too few"):
        HeldOut(confidence[:3], np.ones(3, np.bool_)).threshold(0.9)


def test_a_model_abstains_below_it(model: Path, recordings: Path) -> None:
    loaded = load_model(model)
    sure = replace(loaded, held_out=HeldOut(np.linspace(0.5, 1, 20, dtype=np.float32), np.arange(20) > 12))
    found = sure.predict(recordings.parent / "00.wav", PredictSettings(Windows(0.1), accuracy=0.99), lambda note: None)
    assert found.threshold == pytest.approx(0.5 + 13 / 38) and found.abstains.any()
    for label, abstains, row in zip(found.labels, found.abstains, found.rows(), strict=True):
        assert (label == "") == abstains == row[5]
    assert {region.label for region in found.regions()} >= {"?"}


def test_a_model_of_another_encoder_or_of_none_is_refused(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(model, other)
    tensors, metadata = read_tensors(other / "encoder.safetensors")
    write_tensors(other / "encoder.safetensors", {name: 2 * tensor for name, tensor in tensors.items()}, metadata)
    with pytest.raises(ValueError, match="was trained on another encoder"):
        load_model(other)
    with pytest.raises(ValueError, match=r"name one of the models in it, such as .*chirps"):
        load_model(model.parent)
    with pytest.raises(ValueError, match="name the folder of a trained model"):
        load_model(tmp_path / "none")
    assert load_model(model / MODEL).classes == ("falling", "rising")


def test_encoders_that_others_made_are_kept_by_name_and_official_tests_choose_no_threshold(recordings, tmp_path):
    table = recordings.parent / "official.csv"
    splits = ("train", "train", "train", "val", "test", "test")
    lines = [line.split(",") for line in recordings.read_text().splitlines()[1:]]
    rows = [f"{name},{label},{splits[i // 2 % 6]}" for i, (name, label, *_) in enumerate(lines)]
    table.write_text("\n".join(["path,label,split", *rows]) + "\n")
    named, settings = name_encoders(["logmel-stats"]), EvaluationSettings(("ridge",), clip_length=0.5)
    [evaluation] = evaluate_table(named, table, settings, num_workers=0)
    assert is_official(evaluation.task)
    made = classifier_for_use(evaluation, clip_s=0.5)
    assert len(made.held_out.confidence) == 4 and made.about.num_clips == 24
    save_model(made, tmp_path / "model", "logmel-stats")
    assert not (tmp_path / "model/encoder.safetensors").exists()
    loaded = load_model(tmp_path / "model")
    found = [m.predict(recordings.parent / "02.wav", PredictSettings(), lambda note: None) for m in (made, loaded)]
    assert np.array_equal(found[0].probabilities, found[1].probabilities)
    assert found[0].end_s[0] == 0.5  # windows of the length of the clips that it was trained on
    with pytest.raises(ValueError, match="has no name or identity"):
        save_model(made, tmp_path / "nameless")
    table.unlink()


@pytest.mark.parametrize("frequency", ["stacked", "mean"])
def test_a_fine_tuned_model_is_a_classifier_of_the_same_probabilities(frequency, store, tmp_path) -> None:
    start = load("untrained:micro", pooling="mean+std")
    assert isinstance(start, PretrainedEncoder)
    tuned = FinetunedModel(start, ["a", "b", "c"], False, frequency=frequency, loss="binary")
    torch.manual_seed(0)
    for tensor in (tuned.head.weight, tuned.head.bias, tuned.mean, tuned.scale):
        tensor.data.normal_()
    tuned.save(tmp_path / "tuned")
    made = load_model(tmp_path / "tuned")
    assert isinstance(made, Classifier) and made.is_binary and not made.is_multilabel
    save_model(of_finetuned(tuned), tmp_path / "model")
    paths = [stored.clip.path for stored in store.clips[:4]]
    for some in (made, load_model(tmp_path / "model")):
        found = [some.predict(path, PredictSettings(), lambda note: None).probabilities for path in paths]
        np.testing.assert_allclose(np.concatenate(found), tuned.predict(store, range(4)), atol=2e-5)


def test_a_detector_for_use_finds_events_in_a_long_recording(tmp_path: Path) -> None:
    """Tones in noise, in recordings of 6 s; applied to one of 30 s, in pieces."""
    rng, lines = np.random.default_rng(0), ["path,onset_s,offset_s,label"]

    def sound(seconds: float, onsets: list[float]) -> np.ndarray:
        wave = 0.01 * rng.standard_normal(round(seconds * 16_000))
        for onset_s in onsets:
            part = slice(round(onset_s * 16_000), round((onset_s + 1) * 16_000))
            wave[part] += 0.3 * np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
        return wave

    for i in range(12):
        onset_s = 0.5 + 0.3 * i
        soundfile.write(tmp_path / f"{i}.wav", sound(6, [onset_s]), 16_000)
        lines.append(f"{i}.wav,{onset_s},{onset_s + 1},tone")
    (tmp_path / "events.csv").write_text("\n".join(lines) + "\n")
    encoder = load("untrained:micro")
    assert isinstance(encoder, PretrainedEncoder)
    encoder.crop_frames = 96
    store = prepare([tmp_path / "events.csv"], tmp_path / "store", num_workers=0)
    task = make_event_task(tmp_path / "events.csv", store)
    made = detector_for_use(encoder, encoder.time_steps(store, task.rows), task)
    save_model(made, tmp_path / "model")
    soundfile.write(tmp_path / "long.wav", sound(30, [3.0, 11.0, 26.5]), 16_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("melmask.models.detector.PIECE_CHUNKS", 8)
        main(
            ["predict", str(tmp_path / "model"), str(tmp_path / "long.wav"), "--out", str(tmp_path / "events.out.csv")]
        )
    _, [events] = read_events(tmp_path / "events.out.csv")
    for middle_s in (3.5, 11.5, 27.0):
        assert any(event.onset_s < middle_s < event.offset_s for event in events)
    whole = prepare([tmp_path / "long.wav"], tmp_path / "whole", num_workers=0)
    steps = replace(encoder.time_steps(whole), centre=made.centre, scale=made.scale)
    [probabilities] = predict(made.weight, steps)
    centres_s = encoder.timestamps_s(len(probabilities))
    expected = merge(made.decoder(probabilities), ("tone",), centres_s, encoder.step_s, max_gap_s=0.2, duration_s=30.0)
    found = load_model(tmp_path / "model").predict(tmp_path / "long.wav", PredictSettings(), lambda note: None)
    assert [event for event, _ in found.events] == list(expected) and all(0 < score < 1 for _, score in found.events)
    with pytest.raises(ValueError, match="a detector finds the times"):
        made.check(PredictSettings(top_k=2))


def test_the_command_finetune_leaves_a_model(recordings: Path, shipped_tiny: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    short = ["--epochs", "2", "--seeds", "1", "--test-folds", "1", "--out", "tuned", "--workers", "0"]
    main(["finetune", "tiny", "--task", str(recordings), *short, "--save-model", "model"])
    made = load_model("model")
    assert isinstance(made, Classifier) and made.about is not None and made.about.num_clips == 24
    assert len(made.held_out.confidence) == 8  # of the fold that was tested
    main(["predict", "model", str(recordings), "--out", "p.csv"])
    assert len(Path("p.csv").read_text().splitlines()) == 25
