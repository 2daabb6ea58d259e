"""Every command that takes an encoder takes the one that comes with melmask, from any folder."""

import json
from pathlib import Path

import pytest

from melmask.cli.main import main
from melmask.nn.encoder_file import EncoderFile


@pytest.fixture(autouse=True)
def here(tmp_path: Path, shipped_tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MELMASK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("melmask.cli.console.console.width", 200)


def lines_of(path: str) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_it_is_evaluated_and_compared_beside_both_baselines(recordings, capsys):
    task = ["--task", str(recordings), "--probe", "knn", "--workers", "0"]
    main(["evaluate", "tiny", *task, "--out", "results.jsonl"])
    lines = lines_of("results.jsonl")
    assert [line["encoder"] for line in lines] == ["tiny", "tiny untrained", "log-mel statistics"]
    assert [line["settings"] for line in lines] == ["layers 1, 2, mean+std", "layers 1, 2, mean+std", ""]
    main(["compare", "tiny", "untrained-of:tiny", *task])
    assert "A = tiny, B = tiny untrained" in capsys.readouterr().out


def test_what_fine_tuning_writes_lies_in_a_folder_of_its_own(recordings, shipped_tiny):
    epochs = ["--epochs", "1", "--warmup-epochs", "0", "--test-folds", "1", "--seeds", "1", "--workers", "0"]
    main(["finetune", "tiny", "--task", str(recordings), *epochs])
    assert [line["probe"] for line in lines_of("tiny-finetuned/results.jsonl")] == ["finetune"]
    main(["finetune", "shipped:tiny", "--task", str(recordings), *epochs, "--out", "elsewhere"])
    (written,) = Path("elsewhere/finetune").rglob("encoder.safetensors")
    assert EncoderFile.load(written).encoder.size == EncoderFile.load(shipped_tiny).encoder.size
    assert [path.name for path in shipped_tiny.parent.iterdir()] == ["tiny.safetensors"]


def test_a_run_starts_from_it_and_says_what_is_new(store, capsys):
    recipe = ["--recipe", "micro-m2d", "--steps", "2", "--patch-shape", "16", "16", "--crop-frames", "96"]
    main(["pretrain", str(store.folder), *recipe, "--init", "tiny", "--out", "run"])
    assert "started from other weights: encoder, target from tiny; new: predictor" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["pretrain", str(store.folder), *recipe, "--size", "small", "--init", "tiny", "--out", "other"])
    assert "tiny is of another form than the recipe's. It needs --size micro" in capsys.readouterr().err


def test_masks_are_guided_by_it(recordings):
    main(["mask", str(recordings.parent / "00.wav"), "--run", "tiny", "--strategies", "attention", "--out", "m.png"])
    assert Path("m.png").read_bytes()[:4] == b"\x89PNG"
