"""Listing recordings: manifests, folders, and what is wrong with them."""

from pathlib import Path

import pytest

from melmask.data.manifest import STORE_MARK, Clip, find_clips, list_sources, read_manifest


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_manifest(tmp_path: Path) -> None:
    csv = write(tmp_path / "birds.csv", "path,label,fold,group,note\na/1.wav,wren,1,anna,x\n/abs/2.flac,,,,\n")
    assert read_manifest(csv) == [
        Clip(tmp_path / "a/1.wav", "wren", "1", "anna", "birds"),
        Clip(Path("/abs/2.flac"), None, None, None, "birds"),
    ]


def test_manifest_with_paths_only(tmp_path: Path) -> None:
    csv = write(tmp_path / "list.csv", 'path\n"with, comma.wav"\n')
    assert read_manifest(csv) == [Clip(tmp_path / "with, comma.wav", None, None, None, "list")]


def test_manifest_from_a_spreadsheet(tmp_path: Path) -> None:
    csv = write(tmp_path / "excel.csv", "\ufefflabel,path\r\nStraße,größe.wav\r\n")
    assert read_manifest(csv) == [Clip(tmp_path / "größe.wav", "Straße", None, None, "excel")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: no column 'path'"),
        ("file,label\na.wav,x\n", "line 1: no column 'path' .found: file, label"),
        ("path,label\n", "no rows below the header"),
        ("path,label\na.wav,x\n,y\n", "line 3: no path"),
        ("path,label\na.wav,x,y\n", "line 2: more cells than columns"),
    ],
)
def test_bad_manifest(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_manifest(write(tmp_path / "bad.csv", text))
    assert "bad.csv" in str(caught.value)


def test_huge_cell(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"line 2: .*field limit"):
        read_manifest(write(tmp_path / "bad.csv", "path\n" + "x" * 200_000 + "\n"))


def test_missing_sources(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no sources"):
        find_clips([])
    with pytest.raises(ValueError, match="does not exist"):
        read_manifest(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="does not exist"):
        find_clips([tmp_path / "none.csv"])
    with pytest.raises(ValueError, match="does not exist"):
        find_clips([tmp_path / "none"])
    with pytest.raises(ValueError, match="neither a folder nor"):
        find_clips([write(tmp_path / "a.wav")])
    with pytest.raises(ValueError, match="no audio files below"):
        find_clips([write(tmp_path / "texts/a.txt").parent])
    with pytest.raises(ValueError, match="given 2 times"):
        find_clips([tmp_path, tmp_path / "texts" / ".."])


def test_folder(tmp_path: Path) -> None:
    wanted = [write(tmp_path / name) for name in ("a.WAV", "b/c.flac", "b/d/e.opus", "f.mp3")]
    notes = write(tmp_path / "b/notes.txt")
    write(tmp_path / ".hidden.wav")
    write(tmp_path / ".cache/x.wav")
    write(tmp_path / "store" / STORE_MARK)
    write(tmp_path / "store/clips.csv")
    clips, rejected = list_sources([tmp_path])
    assert clips == [Clip(path, None, None, None, tmp_path.name) for path in wanted]
    assert [(r.path, r.reason, r.source) for r in rejected] == [(notes, "not an audio file extension", tmp_path.name)]


def test_links(tmp_path: Path) -> None:
    for name in ("real/a.wav", "real/deep/b.wav"):
        write(tmp_path / name)
    elsewhere = write(tmp_path.with_name(tmp_path.name + "-elsewhere") / "c.wav").parent
    (tmp_path / "real/deep/loop").symlink_to(tmp_path)
    (tmp_path / "0-same").symlink_to(tmp_path / "real")  # sorts before it, but is not its name
    (tmp_path / "linked").symlink_to(elsewhere)
    (tmp_path / "self.wav").symlink_to("self.wav")
    (tmp_path / "dangling.wav").symlink_to("nowhere.wav")
    found = [str(clip.path.relative_to(tmp_path)) for clip in find_clips([tmp_path])]
    assert found == ["dangling.wav", "linked/c.wav", "real/a.wav", "real/deep/b.wav", "self.wav"]


def test_several_sources_keep_their_order_and_names(tmp_path: Path) -> None:
    write(tmp_path / "x/wavs/a.wav")
    write(tmp_path / "y/wavs/b.wav")
    csv = write(tmp_path / "set.csv", "path,label\nx/wavs/a.wav,one\n")
    clips = find_clips([csv, tmp_path / "y/wavs", tmp_path / "x/wavs"])
    assert [(clip.source, clip.path.name, clip.label) for clip in clips] == [
        ("set", "a.wav", "one"),
        ("y/wavs", "b.wav", None),
        ("x/wavs", "a.wav", None),
    ]
