"""The names of encoders that come with melmask, and what is said where one cannot be meant."""

from pathlib import Path

import numpy as np
import pytest

import melmask
from melmask.encoders.registry import load, with_baselines
from melmask.nn.encoder_file import EncoderFile
from melmask.nn.shipped import SHIPPED, shipped_file


def test_the_name_loads_the_file_in_the_package(shipped_tiny, store):
    tiny = melmask.load("tiny")
    assert (tiny.name, tiny.run, tiny.has_untrained) == ("tiny", None, True)
    assert tiny.identity == load("shipped:tiny").identity == load(str(shipped_tiny)).identity
    assert np.isfinite(tiny.embed_store(store)).all()
    untrained = load("untrained-of:tiny")
    assert untrained.name == "tiny untrained" and untrained.settings == tiny.settings
    assert untrained.identity == load("untrained-of:shipped:tiny").identity != tiny.identity
    assert [one.name for one in with_baselines(["tiny"])] == ["tiny", "tiny untrained", "log-mel statistics"]


def test_a_file_or_folder_of_the_same_name_is_not_passed_over_in_silence(shipped_tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    saved = EncoderFile.load(shipped_tiny)
    EncoderFile(saved.encoder, saved.front_end, 96).save(tmp_path / "tiny" / "encoder.safetensors")
    for name in ("tiny", "untrained-of:tiny"):
        with pytest.raises(ValueError, match=r"file or folder of that name here: give \./tiny for yours, or shipped:"):
            load(name)
    for own in ("./tiny", Path("tiny"), str(tmp_path / "tiny")):
        assert load(own).run is not None and load(own).crop_frames == 96
    assert load("shipped:tiny").crop_frames == saved.crop_frames


def test_what_is_not_shipped_or_is_missing_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("melmask.nn.shipped.WEIGHTS", tmp_path)
    with pytest.raises(ValueError, match=r"tiny is missing from this installation .*install melmask again"):
        load("tiny")
    with pytest.raises(ValueError, match="no encoder 'huge' comes with melmask: choose from tiny"):
        load("shipped:huge")
    with pytest.raises(ValueError, match="no encoder 'huge': give tiny, a run folder"):
        load("huge")
    assert shipped_file("runs/tiny") is None and set(SHIPPED) == {"tiny"}
