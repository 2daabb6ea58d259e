"""The file of embeddings: what is written is read again, also what earlier versions wrote."""

from pathlib import Path

import numpy as np
import pytest

from melmask.data.manifest import Clip
from melmask.encoders.embeddings import Embeddings


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    clips = [Clip(Path("/a/b.wav"), "dog", "1", "g", "set"), Clip(Path("/a/\udcff c.wav"), None, None, None, "set")]
    features = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    Embeddings(features, clips, "an encoder").save(tmp_path / "e.features")
    found = Embeddings.load(tmp_path / "e.features")
    assert found.encoder == "an encoder" and list(found.clips) == clips
    np.testing.assert_array_equal(found.features, features)


def test_files_of_earlier_versions_have_neither_source_nor_encoder(tmp_path: Path) -> None:
    columns = {name: np.array(["x", ""]) for name in ("path", "label", "fold", "group")}
    np.savez(tmp_path / "old.npz", features=np.zeros((2, 4), np.float32), **columns)
    found = Embeddings.load(tmp_path / "old.npz")
    assert found.encoder == "" and found.clips[0] == Clip(Path("x"), "x", "x", "x", "")
    assert found.clips[1].label is None


@pytest.mark.parametrize("kind", ["missing", "text", "other arrays", "one array", "rows"])
def test_other_files_are_refused_with_the_command(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "e.npz"
    if kind == "text":
        path.write_text("no archive")
    elif kind == "other arrays":
        np.savez(path, x=np.zeros(2))
    elif kind == "one array":
        with path.open("wb") as file:
            np.save(file, np.zeros(2))
    elif kind == "rows":
        np.savez(path, features=np.zeros((3, 2)), path=np.array(["a", "b"]))
    with pytest.raises(ValueError, match=r"melmask embed|embed again"):
        Embeddings.load(path)
