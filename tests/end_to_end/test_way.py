"""The whole way as a user goes it: recordings -> store -> run -> embeddings, evaluation and report, by the commands."""

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from bounds import assert_features_close
from melmask.cli import main
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.nn.vit import SIZES
from melmask.train.run_folder import read_log

OUTSIDE = "melmask.masking.lines:TimeLines"  # a name as for a strategy from outside the package


@pytest.fixture(scope="module")
def way(recordings, tmp_path_factory):
    """A folder with a store, and two small runs on it, made by the commands."""
    folder = tmp_path_factory.mktemp("way")
    main.main(["prepare", str(recordings), "--out", str(folder / "store"), "--workers", "1"])
    for recipe, strategy in (("micro-m2d", "dwm"), ("micro-msm-mae", "random")):
        settings = ["--recipe", recipe, "--strategy", strategy, "--steps", "20", "--out", str(folder / recipe)]
        main.main(["pretrain", str(folder / "store"), *settings])
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("MELMASK_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def test_training_left_a_log_in_the_run(way):
    lines = read_log(way / "micro-m2d")
    assert lines[-1]["step"] == 20 and lines[-1]["loss"] < lines[0]["loss"]


def test_embed_writes_one_vector_a_clip_and_says_what_was_rejected(way, recordings, tmp_path, capsys):
    folder = tmp_path / "clips"
    folder.mkdir()
    for i in range(3):
        samples, rate = soundfile.read(recordings.parent / f"{i:02}.wav")
        soundfile.write(folder / f"{i}.flac", samples, rate)
    (folder / "broken.wav").write_text("no audio")
    with pytest.raises(SystemExit) as exit_:
        main.main(["embed", str(way / "micro-m2d"), str(folder), "--out", str(tmp_path / "e.npz"), "--workers", "0"])
    assert exit_.value.code == 3
    with np.load(tmp_path / "e.npz") as written:
        assert written["features"].shape == (3, 5 * 32) and np.isfinite(written["features"]).all()
        assert [path.rsplit("/", 1)[1] for path in written["path"]] == ["0.flac", "1.flac", "2.flac"]
    printed = capsys.readouterr().out
    assert "broken.wav" in printed and "4 found = 3 used + 1 rejected + 0 excluded" in printed
    assert "broken.wav" in (tmp_path / "e.npz.rejected.csv").read_text()


def test_evaluate_prints_both_floors_and_appends_the_figures(way, recordings, capsys):
    run = way / "micro-msm-mae"
    main.main(["evaluate", str(run), "--task", str(recordings), "--probe", "logistic", "knn", "--workers", "0"])
    printed = capsys.readouterr().out
    lines = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    expected = {(f, p) for f in ("encoder", "untrained", "log-mel statistics") for p in ("logistic", "knn")}
    assert {(line["features"], line["probe"]) for line in lines} == expected
    for line in lines:
        assert line["encoder"] in printed and f"{100 * line['score']:.1f}" in printed
        assert 0 <= line["low"] <= line["score"] <= line["high"] <= 1
        assert line["task"] == "chirps" and line["num_clips"] == 24 and line["num_classes"] == 2
    floor = next(line for line in lines if (line["features"], line["probe"]) == ("log-mel statistics", "logistic"))
    assert floor["score"] > 0.6  # rising and falling chirps differ in their segments' means


def test_the_report_is_one_page_about_all_runs(way, recordings, tmp_path):
    main.main(["evaluate", str(way / "micro-m2d"), "--task", str(recordings), "--workers", "0"])
    main.main(["report", str(way / "micro-m2d"), str(way / "micro-msm-mae"), "--out", str(tmp_path / "report")])
    (page,) = (tmp_path / "report").glob("*.html")
    text = page.read_text()
    score = json.loads((way / "micro-m2d" / "results.jsonl").read_text().splitlines()[0])["score"]
    assert f"{100 * score:.1f}" in text and "micro-m2d" in text and "micro-msm-mae" in text
    assert "data:image/" in text and 'src="http' not in text


def test_encoders_along_a_run_are_evaluated_and_drawn(way, recordings, tmp_path, capsys):
    run = tmp_path / "run"
    settings = ["--recipe", "micro-msm-mae", "--steps", "4", "--keep-every", "2", "--log-every", "1"]
    main.main(["pretrain", str(way / "store"), *settings, "--out", str(run)])
    assert sorted(path.name for path in (run / "encoders").iterdir()) == ["2.safetensors", "4.safetensors"]
    main.main(["evaluate", f"{run}@2", str(run), "--task", str(recordings), "--workers", "0", "--no-baselines"])
    assert "run@2" in capsys.readouterr().out
    lines = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    assert [(line["encoder"], line["step"]) for line in lines] == [("run@2", 2), ("run", None)]
    main.main(["report", str(run), "--out", str(tmp_path / "report")])
    assert (tmp_path / "report" / "scores-over-steps.png").exists()
    for command, message in (("evaluate", "keeps no encoder of step 3; it keeps: 2, 4"), ("finetune", "name the run")):
        with pytest.raises(SystemExit):
            main.main([command, f"{run}@{3 if command == 'evaluate' else 2}", "--task", str(recordings)])
        assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("run@*"))


def test_mask_draws_a_picture(recordings, way, tmp_path):
    main.main(["mask", str(recordings.parent / "00.wav"), "--out", str(tmp_path / "plain.png")])
    of_run = ["mask", str(recordings.parent / "00.wav"), "--run", str(way / "micro-m2d")]
    main.main([*of_run, "--out", str(tmp_path / "run.png")])
    main.main([*of_run, "--out", str(tmp_path / "chosen.png"), "--strategies", "attention", "hard", OUTSIDE])
    for name in ("plain.png", "run.png", "chosen.png"):
        assert (tmp_path / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_mask_says_what_a_strategy_lacks(recordings, tmp_path, capsys):
    out = str(tmp_path / "hard.png")
    with pytest.raises(SystemExit):
        main.main(["mask", str(recordings.parent / "00.wav"), "--out", out, "--strategies", "hard"])
    assert "hard is guided by the losses of a trained model: name its run" in capsys.readouterr().err


def test_a_clip_embeds_the_same_alone_and_in_company(way, store):
    encoder = PretrainedEncoder.load(way / "micro-m2d")
    together = encoder.embed_store(store)
    shortest = min(range(len(store)), key=lambda row: store.clips[row].num_frames)
    longest = max(range(len(store)), key=lambda row: store.clips[row].num_frames)
    assert store.clips[longest].num_frames > 2 * store.clips[shortest].num_frames
    for row in (shortest, longest):
        alone = encoder.embed_store(store, [row])[0]
        assert_features_close(alone, together[row], SIZES["micro"])
    assert not np.allclose(together[shortest], together[longest], atol=1e-2)


def test_pretraining_stops_at_ctrl_c_and_says_how_to_go_on(way, tmp_path):
    command = [sys.executable, "-m", "melmask", "pretrain", way / "store", "--recipe", "micro-m2d", "--steps", "100000"]
    process = subprocess.Popen([*map(str, command), "--out", str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("step 20/"):
            break
    process.send_signal(2)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "--resume" in rest
    saved = read_log(tmp_path / "run")[-1]["step"]
    assert saved >= 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "nowhere", "--out", "s"], "nowhere"),
        (["pretrain", "nowhere", "--out", "r"], "no complete store"),
        (["embed", "nowhere", ".", "--out", "e.npz"], "nowhere"),
        (["report", "nowhere", "--out", "p"], "nowhere"),
    ],
)
def test_bad_input_is_one_clear_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        main.main(arguments)
    assert exit_.value.code == 2
    printed = capsys.readouterr().err
    assert message in printed and "Traceback" not in printed
