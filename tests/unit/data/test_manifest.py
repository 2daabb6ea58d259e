"""Listing recordings: manifests, folders, and what is wrong with them."""

from pathlib import Path

import pytest

from melmask.data.csv_table import read_csv
from melmask.data.manifest import COLUMNS, STORE_MARK, Clip, find_clips, list_sources, read_manifest


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
        ("path,label,Label \na.wav,x,y\n", "line 1: 2 columns are called 'label'"),
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


ROWS = [("a.wav", "tone", "1"), ("b.wav", "chirp", "2"), ("c.wav", "tone", "2")]


def table(header: str, separator: str = ",", newline: str = "\n") -> str:
    return newline.join([header, *(separator.join(row) for row in ROWS)]) + newline


@pytest.mark.parametrize(
    "text",
    [
        table("path,Label,Fold"),
        table("path,label, fold"),
        table(" PATH ,LABEL\t,fold "),
        table("path;label;fold", ";"),
        table("path\tlabel\tFold", "\t", "\r\n"),
        table("path|label|split", "|", "\r"),
        "\n" + table("path,label,fold").replace("tone", ' "tone"').replace(' "', '"') + ",,\n\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_headers_and_separators_as_people_write_them(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "set.csv"
    path.write_bytes(text.encode(encoding))
    assert read_manifest(path) == [Clip(tmp_path / name, label, fold, None, "set") for name, label, fold in ROWS]


@pytest.mark.parametrize(
    ("header", "named", "meant"),
    [
        ("path,label,folds", "folds", "fold"),
        ("path,label,Fold_ID", "Fold_ID", "fold"),
        ("path,label,cv fold", "cv fold", "fold"),
        ("path,label,spilt", "spilt", "split"),
        ("path,labels,fold", "labels", "label"),
        ("path,lable,fold", "lable", "label"),
        ("path,label,groups", "groups", "group"),
        ("path,label,gruop", "gruop", "group"),
        ("paths,label,fold", "paths", "path"),
    ],
)
def test_a_column_of_nearly_the_right_name_is_named(tmp_path: Path, header: str, named: str, meant: str) -> None:
    with pytest.raises(ValueError, match=rf"set.csv, line 1: the column '{named}' is not read.*name it {meant};"):
        read_manifest(write(tmp_path / "set.csv", table(header)))


@pytest.mark.parametrize("header", ["path,label,gold", "path,label,age_group", "path,label,weight"])
def test_other_columns_are_left_alone(tmp_path: Path, header: str) -> None:
    clips = read_manifest(write(tmp_path / "set.csv", table(header)))
    assert [clip.fold for clip in clips] == [clip.group for clip in clips] == [None] * 3
    assert read_csv(tmp_path / "set.csv", COLUMNS).unread == (header.rpartition(",")[2],)


def test_a_column_like_one_that_is_there_is_left_alone(tmp_path: Path) -> None:
    clips = read_manifest(write(tmp_path / "set.csv", "path,label,labels,fold,split_id\na.wav,x,x;y,1,7\n"))
    assert [(clip.label, clip.fold) for clip in clips] == [("x", "1")]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('path,label,fold\na.wav,tone,1\nb.wav,"tone,1\nc.wav,tone,1\n', 3),
        ('path,label,fold\na.wav,tone,1\nb.wav,"tone,1\nc.wav,tone,1\nd.wav,"tone",1\n', 3),
        ('path,label,fold\na.wav,"tone,1\nc.wav,tone,1\nd.wav,tone,"1"\ne.wav,tone,2\n', 2),
        ('path,label,fold\na.wav,tone,"1\nc.wav,tone,1\nd.wav,tone,1"\ne.wav,tone,2\n', 2),
        ('path,label,note\na.wav,tone,"said\nb.wav,tone,x\nc.wav,tone,y"\n', 2),
        ('path\na.wav\n"b.wav\nc.wav\n', 3),
        ('path,"label,fold\na.wav,tone,1\n', 1),
        ('path,label\r\na.wav,x\r\nb.wav,"y\r\nc.wav,z\r\n', 3),
    ],
)
def test_a_quote_that_is_not_closed_is_named_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "set.csv"
    path.write_bytes(text.encode())
    with pytest.raises(ValueError, match=rf"set.csv, line {line}: .*quote"):
        read_manifest(path)


def test_quoted_cells_may_have_several_lines_and_quotes(tmp_path: Path) -> None:
    text = 'path,label,note\na.wav,x,"two\nlines"\n"b ""2"", \nc.wav",y,"a ""word"""\n'
    clips = read_manifest(write(tmp_path / "set.csv", text))
    assert [(clip.path.name, clip.label) for clip in clips] == [("a.wav", "x"), ('b "2", \nc.wav', "y")]


def test_a_manifest_in_the_folder_that_it_describes_is_no_recording(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        write(tmp_path / "set" / name)
    write(tmp_path / "set/birds.csv", table("Path;label;fold", ";"))
    write(tmp_path / "set/more.tsv", "\ufeffpath\tlabel\na.wav\tx\n")
    write(tmp_path / "set/birds.task.json", "{}")
    write(tmp_path / "set/weather.csv", "day,rain\n1,2\n")
    clips, rejected = list_sources([tmp_path / "set", tmp_path / "set/birds.csv"])
    assert len(clips) == 2 + 3
    assert [(one.path.name, one.is_excluded) for one in rejected] == [("weather.csv", True)]


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
        find_clips([write(tmp_path / "a.txt")])
    with pytest.raises(ValueError, match="no audio files below"):
        find_clips([write(tmp_path / "texts/a.txt").parent])
    with pytest.raises(ValueError, match="given 2 times"):
        find_clips([tmp_path, tmp_path / "texts" / ".."])


def test_a_recording_is_a_source_of_its_own(tmp_path: Path) -> None:
    files = [write(tmp_path / name) for name in ("a.wav", "b/a.FLAC")]
    assert find_clips(files) == [Clip(file, None, None, None, file.name) for file in files]
    with pytest.raises(ValueError, match=r"c\.wav does not exist"):
        find_clips([tmp_path / "c.wav"])


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
