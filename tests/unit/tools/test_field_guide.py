"""The field guide: it covers every strategy, its pictures exist and can be redrawn, its numbers agree with the code."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from field_guide import pictures, sounds
from field_guide.subjects import Subject
from matplotlib.colors import to_rgb
from PIL import Image

from melmask.logmel import LogMelSpec
from melmask.masking import STRATEGIES, HintSchedule, make_strategy
from melmask.masking.bands import WHITE_NOISE
from melmask.masking.base import num_visible_of
from melmask.masking.blocks import InverseBlock
from melmask.masking.laws import guidance, inclusion_probabilities
from melmask.train.recipe import RECIPES
from melmask.types import PatchGrid
from melmask.viz.spectrogram import Spectrogram

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs" / "masking.md").read_text()
PATCH, GRID = (16, 16), PatchGrid(5, 13)


def section(title: str) -> str:
    """The guide's text under a heading, up to the next heading."""
    parts = re.split(r"^#+ (.*)$", GUIDE, flags=re.MULTILINE)
    (text,) = [text for head, text in zip(parts[1::2], parts[2::2], strict=True) if head == title]
    return text


def rows_of(text: str) -> list[list[str]]:
    """The cells of a Markdown table, head and rule left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_strategy_has_its_row_its_section_and_its_picture():
    named = [re.findall("`(.*)`", row[0])[0] for row in rows_of(section("All strategies"))]
    assert named == list(STRATEGIES)
    kinds = [row[1] for row in rows_of(section("All strategies"))]
    assert kinds == [pictures.kind_of(kind()).split("-")[0] for kind in STRATEGIES.values()]
    for name in STRATEGIES:
        assert f"(masking/{name}.png)" in section(name)


def test_options_in_the_guide_are_options_of_the_strategy():
    for name in STRATEGIES:
        _, _, text = section(name).partition("**Options.**")
        for option, value in re.findall(r"`(\w+)=([^`]+)`", text.partition("**Use it**")[0]):
            default = getattr(make_strategy(name), option)
            assert str(default) == value.strip('"') or name == "ibm", f"{name} has {option}={default}"


def test_every_picture_exists_is_small_and_used():
    linked = set(re.findall(r"\]\(masking/([\w-]+\.png)\)", GUIDE))
    there = {path.name: path.stat().st_size for path in (ROOT / "docs" / "masking").glob("*.png")}
    assert linked == set(there) and len(linked) == len(STRATEGIES) + 3
    assert max(there.values()) < 120_000 and sum(there.values()) < 2_500_000


def test_the_table_of_guidance_agrees_with_the_law():
    text = section("Hints and the guidance λ")
    (head,) = re.findall(r"^\| r \\ h \|(.*)\|$", text, re.MULTILINE)
    hint_ratios = [float(cell) for cell in head.split("|")]
    rows = rows_of(text[text.index("| r \\ h") :])
    assert len(rows) >= 5 and len(hint_ratios) >= 6
    for ratio, *values in rows:
        num_masked = 190 - num_visible_of(190, float(ratio))
        assert values == [f"{guidance(190, num_masked, h):.2f}" for h in hint_ratios]


def test_the_mean_guidance_of_the_default_schedule_agrees_with_the_code():
    (mean,) = re.findall(
        r"mean λ over a run with the default schedule is ([\d.]+) at r = 0\.7", re.sub(r"\s+", " ", GUIDE)
    )
    hints = HintSchedule()
    assert f"{np.mean([guidance(190, 133, hints(step / 1000)) for step in range(1000)]):.2f}" == mean


def test_the_bands_of_white_noise_agree_with_the_code():
    inclusion = inclusion_probabilities(torch.tensor(WHITE_NOISE).repeat_interleave(38), 133)[::38]
    assert " ".join(f"{share:.2f}"[1:] for share in inclusion.tolist()) in section("The bands of white noise")


def test_the_centres_of_ibm_agree_with_the_code():
    rows = rows_of(section("ibm"))
    assert len(rows) >= 3
    for grid, ratio, centres in rows:
        freq, time = map(int, grid.split(" x "))
        num_masked = freq * time - num_visible_of(freq * time, float(ratio))
        assert InverseBlock().num_centres(PatchGrid(freq, time), num_masked) == int(centres)


def test_every_test_that_guards_against_a_trap_exists():
    guards = re.findall(r"\[`(\w+)`\]\(\.\./(tests/[\w/]+\.py)\)", section("Traps"))
    assert len(guards) >= 15
    for name, path in guards:
        assert f"\ndef {name}(" in (ROOT / path).read_text(), f"{path} has no {name}"


@pytest.fixture(scope="module")
def subjects() -> list[Subject]:
    """Two sounds of noise, with a tone in the second, and a model that was never trained."""
    torch.manual_seed(0)
    model = RECIPES["micro-msm-mae"].make_model().eval().requires_grad_(False)
    made = []
    for i, name in enumerate(("hiss", "tone")):
        log_mel = torch.randn(80, 208)
        log_mel[20 + i : 22 + i, 32 * i :] += 4.0 * i
        losses = torch.rand(GRID.num_patches) + 0.1
        made.append(Subject(Spectrogram(log_mel, LogMelSpec(), PATCH, name), -3.0, model, losses))
    return made


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_is_drawn_with_its_masks_and_options(name, subjects):
    figure = pictures.strategy_figure(name, subjects)
    veils = [image.get_array()[..., 3] for axes in figure.axes for image in axes.images[1:]]
    assert len(veils) == len(subjects) + len(pictures.VARIANTS.get(name, ()))
    assert all(veil.size == 65 and np.count_nonzero(veil) == 46 for veil in veils)  # at a ratio of 0.7
    shares = [axes.images[0].get_array() for axes in figure.axes if len(axes.images) == 1]
    assert len(shares) == 2 and all(share.mean() == pytest.approx(46 / 65) for share in shares)


def test_options_with_a_picture_are_options():
    for name, variants in pictures.VARIANTS.items():
        assert 1 <= len(variants) <= 4
        for options in variants:
            make_strategy(name, options)


def test_pictures_are_small_keep_their_colours_and_come_by_name(subjects, tmp_path):
    (path,) = pictures.save_pictures(subjects, tmp_path / "new", only=["overview"])
    assert path.name == "overview.png"
    picture = np.asarray(Image.open(path).convert("RGB"))
    assert picture.shape[1] == round(pictures.WIDTH_IN * pictures.DPI)
    for colour in ("white", *pictures.KIND_COLOURS.values()):
        assert (picture == np.round(255 * np.array(to_rgb(colour)))).all(axis=2).any()
    limits, schedules = pictures.save_pictures(subjects, tmp_path, only=["limits", "schedules"])
    assert limits.stat().st_size > 1000 and schedules.stat().st_size > 1000
    with pytest.raises(ValueError, match="no picture 'none'"):
        list(pictures.save_pictures(subjects, tmp_path, only=["none"]))


def test_padding_takes_all_visible_patches_without_valid(subjects):
    figure = pictures.limits_figure(subjects)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[0].endswith("0 patches of sound visible")
    assert titles[1].endswith("7 patches of sound visible")  # of 25, at a ratio of 0.7


def test_the_sounds_are_four_seeded_and_as_long_as_a_crop():
    made = sounds.four_sounds(seed=3)
    assert list(made) == ["speech", "bird", "machine", "music"]
    for name, again in sounds.four_sounds(seed=3).items():
        assert np.array_equal(made[name], again)
        assert len(again) == 608 * 160 and np.abs(again).max() == pytest.approx(0.5, abs=1e-6)
        window = np.sqrt(np.mean(np.square(again).reshape(-1, 1520), axis=1))
        assert window.min() > 0  # nothing is digital silence, whose weights are zero
