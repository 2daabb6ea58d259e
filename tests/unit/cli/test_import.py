"""The command import: published weights as a run folder."""

import numpy as np
import pytest

import melmask
from melmask.cli.main import main
from melmask.nn.encoder_file import ENCODER
from published import published_tensors, save_published


def test_a_published_file_becomes_a_folder_that_every_command_takes(tmp_path, capsys):
    path = save_published(tmp_path / "m2d-80x96p16x16p32k.pth", published_tensors("m2d"))
    main(["import", str(path), "--out", str(tmp_path / "m2d"), "--mean", "-6.5"])
    printed = capsys.readouterr().out
    assert "128 wide, 2 blocks, 2 heads" in printed and "32,000 Hz, 80 mel bands" in printed
    assert "target, predictor" in printed and "time-freq" in printed
    encoder = melmask.load(tmp_path / "m2d")
    assert encoder.name == "m2d" and (encoder.front_end.mean, encoder.front_end.std) == (-6.5, 4.2)
    assert encoder.embed(np.random.default_rng(0).standard_normal(32_000), 32_000).shape == (5 * 128,)
    with pytest.raises(SystemExit):
        main(["import", str(path), "--out", str(tmp_path / "m2d")])
    assert "already holds an encoder" in capsys.readouterr().err.replace("\n", " ")


def test_what_cannot_be_read_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["import", str(tmp_path / "no.pth"), "--out", str(tmp_path / "m2d")])
    assert "no.pth" in capsys.readouterr().err and not (tmp_path / "m2d" / ENCODER).exists()


def test_fine_tuning_takes_a_file_and_misses_its_task_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = save_published(tmp_path / "m2d.pth", published_tensors("encoder"))
    with pytest.raises(SystemExit):
        main(["finetune", str(path), "--task", "birds.csv"])
    assert "birds.csv does not exist" in capsys.readouterr().err and not (tmp_path / "m2d-finetuned").exists()
