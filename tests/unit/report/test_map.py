"""The map of a report: every recording of the sample is a point that plays it, and what is not shown is stated."""

import base64
import io
import re
from collections import Counter
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melmask.cli.main import main
from melmask.data.manifest import Clip, find_clips
from melmask.encoders.embeddings import Embeddings
from melmask.report.map import Key, evenly, map_section
from melmask.report.report import report
from melmask.report.sounds import MAX_S, PEAK, excerpt


def embedded(clips: list[Clip]) -> Embeddings:
    return Embeddings(np.random.default_rng(0).standard_normal((len(clips), 8)).astype(np.float32), clips, "<b>enc")


def points_of(html: str) -> list[dict[str, str]]:
    """The attributes of every point."""
    return [dict(re.findall(r'([\w-]+)="([^"]*)"', point)) for point in re.findall(r'<use class="point[^>]*>', html)]


def test_every_recording_is_a_point_that_plays_it(recordings: Path) -> None:
    clips = find_clips([recordings])
    html = "\n".join(map_section(embedded(clips), Path("e.npz")))
    points = points_of(html)
    assert len(points) == 24 and "24 of 24 recordings are shown." in html
    assert [point["aria-label"] for point in points] == [f"{c.path.name}: {c.label} (chirps)" for c in clips]
    for clip, point in zip(clips, points, strict=True):
        sound, rate = soundfile.read(io.BytesIO(base64.b64decode(point["data-sound"].partition("base64,")[2])))
        seconds = soundfile.info(clip.path).duration
        assert point["data-sound"].startswith("data:audio/mpeg") and rate == 16_000
        assert seconds <= len(sound) / rate < seconds + 0.2 and 0.4 < np.abs(sound).max() < 1
        assert all(0 < float(point[axis].rstrip("%")) < 100 for axis in "xy")
    assert [point["tabindex"] for point in points] == ["0"] + 23 * ["-1"]
    buttons = re.findall(r'<button[^>]*data-key="(\d+)".*?</svg>(\w+) <small>(\d+)<', html)
    assert [(label, count) for _, label, count in buttons] == [("falling", "12"), ("rising", "12")]
    number_of = {label: number for number, label, _ in buttons}
    assert [point["data-key"] for point in points] == [number_of[str(clip.label)] for clip in clips]


def test_the_page_holds_the_map_and_needs_nothing_else(recordings: Path, tmp_path: Path) -> None:
    embedded(find_clips([recordings])).save(tmp_path / "e.npz")
    page = report([], tmp_path / "out", embeddings=tmp_path / "e.npz")
    text = page.read_text()
    assert '<section id="map">' in text and 'href="#map"' in text and "<h1>24 recordings</h1>" in text
    assert all(source.startswith("#") for source in re.findall(r'(?:src|href)\s*=\s*"([^"]*)"', text))
    assert "http://" not in text and "https://" not in text and text.count("<script>") == 1
    assert "<b>enc" not in text and "&lt;b&gt;enc" in text
    assert "melmask report --map" in text  # how to make it again
    assert page.read_bytes() == report([], tmp_path / "out", embeddings=tmp_path / "e.npz").read_bytes()


def test_the_command_takes_embeddings_without_runs(recordings: Path, tmp_path: Path, capsys) -> None:
    embedded(find_clips([recordings])[:3]).save(tmp_path / "e.npz")
    main(["report", "--map", str(tmp_path / "e.npz"), "--out", str(tmp_path / "out")])
    assert "3 of 3 recordings are shown." in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(SystemExit):
        main(["report", "--out", str(tmp_path / "nothing")])
    assert "a report needs at least one run, or results or embeddings" in capsys.readouterr().err
    assert not (tmp_path / "nothing").exists()


def test_names_are_escaped_and_what_cannot_be_read_is_counted(recordings: Path, tmp_path: Path) -> None:
    named = tmp_path / '<i>"x"&.wav'
    named.write_bytes(find_clips([recordings])[0].path.read_bytes())
    (tmp_path / "bad.wav").write_text("no audio")
    clips = [
        Clip(named, '"><script>', None, None, "a <b>"),
        Clip(tmp_path / "gone.wav", "dog", None, None, "a <b>"),
        Clip(tmp_path / "bad.wav", "dog", None, None, "a <b>"),
    ]
    html = "\n".join(map_section(embedded(clips), tmp_path / "e.npz"))
    assert html.count("<script") == 1 and "<i>" not in html and "a <b>" not in html
    points = points_of(html)
    assert unescape(points[0]["aria-label"]) == '<i>"x"&.wav: "><script> (a <b>)'
    assert [bool(point["data-sound"]) for point in points] == [True, False, False]
    assert "2 have no sound here: missing file (1), not audio (1)." in html


def test_a_sample_is_even_over_labels_and_its_size_is_stated(recordings: Path) -> None:
    clips = find_clips([recordings])
    html = "\n".join(map_section(embedded(clips), Path("e.npz"), num_shown=10))
    points = points_of(html)
    assert "10 of 24 recordings are shown, chosen evenly over labels." in html
    assert Counter(point["data-key"] for point in points) == {"0": 5, "1": 5}


def test_few_of_one_label_leave_their_places_to_others() -> None:
    keys = [Key("s", label) for label in 50 * "a" + 3 * "b" + 20 * "c"]
    chosen = evenly(keys, 23)
    assert Counter(keys[row].label for row in chosen) == {"a": 10, "b": 3, "c": 10}
    assert chosen == sorted(set(chosen)) and chosen[0] == 0 and max(row for row in chosen if row < 50) >= 40
    assert evenly(keys, 1000) == list(range(73)) and evenly([], 5) == []
    assert len(evenly([Key("s", str(i)) for i in range(40)], 7)) == 7


def test_without_labels_folders_are_coloured(recordings: Path, tmp_path: Path) -> None:
    for place in ("one/a.wav", "one/b.wav", "two/c.wav"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(find_clips([recordings])[0].path.read_bytes())
    html = "\n".join(map_section(embedded(find_clips([tmp_path])), Path("e.npz")))
    assert re.findall(r"</svg>(\w+) <small>(\d+)<", html) == [("one", "2"), ("two", "1")]


def test_the_sound_of_a_long_recording_is_a_part_of_it(tmp_path: Path) -> None:
    wave = np.zeros(70 * 8000, np.float32)
    wave[30 * 8000 :] = 0.001 * np.sin(np.arange(40 * 8000))
    soundfile.write(tmp_path / "long.wav", wave, 8000, subtype="FLOAT")
    sound = excerpt(tmp_path / "long.wav")
    assert len(sound) == MAX_S * 16_000 and np.abs(sound).max() == pytest.approx(PEAK)
    half = len(sound) // 2
    assert np.abs(sound[: half - 100]).max() < 0.05 < np.abs(sound[half + 100 :]).max()


def test_embeddings_that_make_no_map_are_named(recordings: Path) -> None:
    clips = find_clips([recordings])
    made = embedded(clips)
    made.features[3, 2] = np.nan
    with pytest.raises(ValueError, match=r"e\.npz.*03\.wav is not finite"):
        map_section(made, Path("e.npz"))
    with pytest.raises(ValueError, match="holds none"):
        map_section(Embeddings(np.zeros((0, 3), np.float32), [], ""), Path("e.npz"))
