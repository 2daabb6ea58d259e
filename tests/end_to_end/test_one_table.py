"""Encoders of every make in one table, on the same clips, splits and probes, by the command."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import transformers

from melmask.cli import console, main
from melmask.data.clip_table import ClipTable
from melmask.data.prepare import prepare
from melmask.data.store import Store
from melmask.encoders.features import FeatureSettings
from melmask.encoders.registry import NamedEncoder, specs_of, with_baselines
from melmask.encoders.waveform import wrap
from melmask.evaluation.results import read_results
from melmask.evaluation.run import EvaluationSettings, evaluate_stores
from melmask.logmel import LogMelSpec
from melmask.nn.encoder_file import ENCODER, EncoderFile, FrontEnd
from melmask.nn.vit import SIZES, Encoder


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELMASK_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders of two encoders of one form, one of the two with a front end of half the bands."""
    folder = tmp_path_factory.mktemp("runs")
    for seed, (name, num_mels) in enumerate([("one", 80), ("two", 80), ("narrow", 40)]):
        (folder / name).mkdir()
        torch.manual_seed(seed)
        front_end = FrontEnd(LogMelSpec(num_mels=num_mels), -7.1, 4.2)
        EncoderFile(Encoder(SIZES["micro"], (8, 16)), front_end, 96).save(folder / name / ENCODER)
    return [folder / name for name in ("one", "two", "narrow")]


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_encoders_of_every_make_share_one_table(
    runs: list[Path], recordings: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8),
        conv_stride=(20, 16), conv_kernel=(20, 16), num_feat_extract_layers=2, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    transformers.Wav2Vec2Model(config).save_pretrained(tmp_path / "speech")
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "speech")
    encoders = [str(runs[0]), str(runs[1]), "untrained:micro", f"hear:melmask.adapters.hear@{runs[0]}"]
    encoders.append(f"hf:{tmp_path / 'speech'}")
    out = tmp_path / "all.jsonl"
    monkeypatch.setattr(console.console, "width", 200)  # no name goes over several lines
    options = ["--probe", "ridge", "knn:num_neighbours=3", "--out", str(out), "--workers", "0"]
    main.main(["evaluate", *encoders, "--task", str(recordings), *options, "--details", str(tmp_path / "details")])
    printed = capsys.readouterr().out

    names = [
        "one",
        "two",
        "micro untrained",
        "hear:melmask.adapters.hear",
        "hf:speech",
        "one untrained",
        "log-mel statistics",
    ]
    lines = lines_of(out)
    assert [(line["encoder"], line["probe"]) for line in lines] == [
        (name, probe) for name in names for probe in ("ridge", "knn:num_neighbours=3")
    ]
    assert {(line["num_clips"], line["num_classes"], line["metric"]) for line in lines} == {(24, 2, "accuracy")}
    for line in lines:
        assert line["encoder"] in printed and f"{100 * line['score']:.1f}" in printed
        assert 0 <= line["low"] <= line["score"] <= line["high"] <= 1
        assert (line["settings"] == "last layer, mean") == (line["encoder"].split()[0] in ("one", "two", "micro"))
    # The two runs are of one form, so they share an untrained baseline; each keeps its own lines and its baselines'.
    for run in runs[:2]:
        own = lines_of(run / "results.jsonl")
        assert [line["features"] for line in own[::2]] == ["encoder", "untrained", "log-mel statistics"]
        assert own[0]["encoder"] == run.name and own == [line for line in lines if line in own]
    assert len(list((tmp_path / "details").glob("chirps-*/per_class.md"))) == len(lines)


def test_without_baselines_and_without_a_place_for_the_results(recordings: Path, capsys) -> None:
    main.main(["evaluate", "logmel-stats", "--task", str(recordings), "--no-baselines", "--workers", "0"])
    printed = capsys.readouterr().out
    assert "log-mel statistics" in printed and "untrained" not in printed and "not saved" in printed


def test_layers_and_pooling_are_those_of_all_melmask_encoders(
    runs: list[Path], recordings: Path, tmp_path: Path
) -> None:
    options = ["--layers", "1", "2", "--pooling", "mean+std", "--probe", "knn", "--out", str(tmp_path / "r.jsonl")]
    main.main(["evaluate", str(runs[0] / ENCODER), "--task", str(recordings), *options, "--workers", "0"])
    lines = lines_of(tmp_path / "r.jsonl")
    assert [line["settings"] for line in lines] == ["layers 1, 2, mean+std"] * 2 + [""]
    assert [line["num_dims"] for line in lines] == [2 * 2 * 10 * 32] * 2 + [560]


def test_the_clip_length_of_a_task_is_that_of_all_encoders_unless_another_is_asked_for(
    runs: list[Path], recordings: Path, tmp_path: Path, capsys
) -> None:
    table = tmp_path / "units.csv"
    lines = recordings.read_text().splitlines()
    table.write_text("\n".join([lines[0], *(f"{recordings.parent}/{line}" for line in lines[1:])]) + "\n")
    (tmp_path / "units.task.json").write_text(json.dumps({"clip_s": 1.2}))
    command = ["evaluate", str(runs[0]), "--task", str(table), "--probe", "knn", "--workers", "0", "--out"]
    for number, options in enumerate(([], ["--clip-s", "0"], ["--clip-s", "0.8"], ["--clip-s", "task"])):
        main.main([*command, str(tmp_path / f"{number}.jsonl"), *options])
    found = [lines_of(tmp_path / f"{number}.jsonl") for number in range(4)]
    assert [{line["clip_s"] for line in lines} for lines in found] == [{1.2}, {0}, {0.8}, {1.2}]
    assert [line["score"] for line in found[0]] == [line["score"] for line in found[3]]
    assert "clips of 1.2 s" in capsys.readouterr().out
    kept = read_results(runs[0])
    assert {result.clip_s for result in kept if result.task == "units"} == {0, 0.8, 1.2}  # none replaces another
    main.main(["compare", str(runs[0]), "logmel-stats", "--task", str(table), "--clip-s", "0.8", "--workers", "0"])
    assert "clips of 0.8 s" in capsys.readouterr().out


def test_baselines_come_once_and_equal_names_are_told_apart(runs: list[Path], tmp_path: Path) -> None:
    encoders = with_baselines(["logmel-stats", str(runs[0]), str(runs[1])], FeatureSettings())
    assert [one.name for one in encoders] == ["one", "two", "one untrained", "log-mel statistics"]
    assert [len(one.runs) for one in encoders] == [1, 1, 2, 2]
    twin = tmp_path / "one"
    twin.symlink_to(runs[1])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "one").mkdir()
    (tmp_path / "other" / "one" / ENCODER).write_bytes((runs[1] / ENCODER).read_bytes())
    specs = [str(runs[0]), str(tmp_path / "other" / "one")]
    assert [one.name for one in with_baselines(specs, FeatureSettings(), baselines=False)] == specs
    for wrong, message in (([], "no encoder"), ([specs[0]] * 2, "twice")):
        with pytest.raises(ValueError, match=message):
            with_baselines(wrong, FeatureSettings())


def test_encoders_with_other_front_ends_are_evaluated_on_the_same_clips(runs: list[Path], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = tmp_path / "noises.csv"
    lines = ["path,label"]
    for i in range(20):
        sound = rng.standard_normal(12_000) if i % 2 else np.repeat(rng.standard_normal(3_000), 4)
        soundfile.write(tmp_path / f"{i}.wav", 0.1 * sound, 16_000)
        lines.append(f"{i}.wav,{i % 2}")
    table.write_text("\n".join(lines) + "\n")
    encoders = with_baselines([str(runs[0]), str(runs[2])], FeatureSettings())
    specs = specs_of(encoders)
    assert [spec.num_mels for spec in specs] == [80, 40]
    stores = [prepare([table], tmp_path / f"store{spec.num_mels}", spec=spec, num_workers=0) for spec in specs]
    stores[1].clips = ClipTable.of_clips(stores[1].clips[::-1])  # the order of a store's rows must not matter
    settings = EvaluationSettings(["ridge"])
    found = [one.result for one in evaluate_stores(encoders, table, stores, settings)]
    assert [line.num_dims for line in found] == [320, 160, 320, 160, 560]
    narrow = prepare([table], tmp_path / "store40", spec=specs[1], num_workers=0)
    [alone] = evaluate_stores(encoders[1:2], table, [narrow], settings)
    assert found[1].score == alone.result.score
    stores[1].clips = ClipTable.of_clips(stores[1].clips[3:])
    found = [one.result for one in evaluate_stores(encoders, table, stores, settings)]
    assert {(line.num_clips, line.rejected) for line in found} == {(17, 3)}


def test_a_python_object_is_evaluated_like_any_other(store: Store, recordings: Path) -> None:
    class Brightness:
        """The zero crossings of ten parts: enough to tell rising from falling."""

        def encode(self, batch: np.ndarray, sample_rate: int) -> np.ndarray:
            parts = np.array_split(np.diff(np.signbit(batch), axis=1), 10, axis=1)
            return np.stack([part.mean(axis=1) for part in parts], axis=1)

    one = NamedEncoder(wrap(Brightness(), 16_000), "brightness", "brightness")
    (line,) = (one.result for one in evaluate_stores([one], recordings, [store]))
    assert line.features == line.encoder == "brightness" and line.num_dims == 10 and line.identity == ""
    assert line.score > 0.8


def test_the_example_in_the_docs_runs(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "peers.md").read_text()
    (example,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "encode(" in block]
    header, *rows = recordings.read_text().splitlines()
    (tmp_path / "birds.csv").write_text("\n".join([header, *(f"{recordings.parent}/{row}" for row in rows)]))
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    assert re.fullmatch(r"(\S.* logistic 0\.\d{3} \[.*\]\n){2}", capsys.readouterr().out)
