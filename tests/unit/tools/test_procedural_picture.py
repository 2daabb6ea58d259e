"""The picture of docs/procedural.md has every family."""

from procedural_picture import NUM_MIXED, families_figure

from melmask.demo.procedural.families import FAMILIES


def test_every_family_and_some_mixed_clips_are_drawn(monkeypatch):
    monkeypatch.setattr("procedural_picture.SECONDS", 0.5)
    monkeypatch.setattr("procedural_picture.NUM_TRIED", 1)
    titles = [axes.get_title(loc="left") for axes in families_figure().axes]
    assert titles[: len(FAMILIES)] == list(FAMILIES) and len(titles) == len(FAMILIES) + NUM_MIXED
