"""The command embed: which of its arguments is the encoder, and where it writes."""

from pathlib import Path

import numpy as np
import pytest

import melmask
from melmask.cli.main import main
from melmask.encoders.registry import names_encoder
from melmask.nn.encoder_file import EncoderFile


@pytest.fixture(autouse=True)
def here(tmp_path: Path, recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a recording and a folder of recordings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("melmask.cli.console.console.width", 200)
    Path("my.wav").symlink_to(recordings.parent / "00.wav")
    Path("recordings").mkdir()
    for number in (1, 2):
        Path(f"recordings/{number}.wav").symlink_to(recordings.parent / f"0{number}.wav")


def run(shipped: Path, folder: str) -> Path:
    """A run's folder with an encoder that reads its features as files of earlier versions do."""
    saved = EncoderFile.load(shipped)
    Path(folder).mkdir()
    EncoderFile(saved.encoder, saved.front_end, 96).save(Path(folder) / "encoder.safetensors")
    return Path(folder)


def test_a_recording_alone_is_embedded_by_the_encoder_that_comes_with_melmask(shipped_tiny, capsys):
    main(["embed", "my.wav"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "encoder: tiny (layers 1, 2, mean+std)"
    assert "embeddings.npz: 1 embeddings of 640 dimensions" in printed
    with np.load("embeddings.npz") as written:
        assert np.array_equal(written["features"][0], melmask.load("tiny").embed("my.wav"))
        assert [Path(path).name for path in written["path"]] == ["my.wav"]


def test_the_default_file_is_never_replaced(shipped_tiny, capsys):
    main(["embed", "my.wav", "recordings"])
    with np.load("embeddings.npz") as written:
        assert written["features"].shape == (3, 640)
    with pytest.raises(SystemExit):
        main(["embed", "my.wav"])
    assert "embeddings.npz exists already: name the file to write with --out" in capsys.readouterr().err
    main(["embed", "my.wav", "--out", "embeddings.npz"])
    with np.load("embeddings.npz") as written:
        assert written["features"].shape == (1, 640)


@pytest.mark.parametrize("name", ["run", "run/encoder.safetensors", "./run"])
def test_an_encoder_is_named_before_the_recordings(name, shipped_tiny, capsys):
    own = run(shipped_tiny, "run")
    main(["embed", name, "recordings", "my.wav", "--out", "own.npz", "--workers", "0"])
    assert capsys.readouterr().out.startswith("encoder: run (last layer, mean)")
    with np.load("own.npz") as written:
        assert np.array_equal(written["features"][2], melmask.load(own).embed("my.wav"))
    main(["embed", "logmel-stats", "my.wav"])
    assert capsys.readouterr().out.startswith("encoder: log-mel statistics\n")
    with pytest.raises(SystemExit):
        main(["embed", name])
    message = f"{name} is an encoder: name recordings behind it, as in melmask embed {name} my.wav"
    assert message in capsys.readouterr().err


def test_what_can_only_be_an_encoder(shipped_tiny):
    run(shipped_tiny, "run")
    Path("begun").mkdir()
    Path("begun/recipe.json").touch()
    Path("a:b.wav").symlink_to("my.wav")
    for folder, files in {"hf": ("config.json", "model.safetensors"), "dataset": ("config.json", "a.wav")}.items():
        Path(folder).mkdir()
        for file in files:
            (Path(folder) / file).touch()
    encoders = ("tiny", "shipped:tiny", "logmel-stats", "untrained:micro", "untrained-of:run", "onnx:a.onnx", "m:Class")
    for name in (*encoders, "run", "run/", "begun", "hf", "absent.safetensors", "absent.pth"):
        assert names_encoder(name), name
    for name in ("my.wav", "recordings", "dataset", "absent", "absent.wav", "a:b.wav", "table.csv", "."):
        assert not names_encoder(name), name


def test_a_folder_called_tiny_is_not_taken_for_either(shipped_tiny, capsys):
    Path("tiny").mkdir()
    with pytest.raises(SystemExit):
        main(["embed", "tiny", "my.wav"])
    assert "give ./tiny for yours, or shipped:tiny" in capsys.readouterr().err
    main(["embed", "my.wav"])  # names none of them
    assert capsys.readouterr().out.startswith("encoder: tiny")
