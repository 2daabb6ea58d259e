"""Figures of masks: what they cover, count and state."""

import re

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib._pylab_helpers import Gcf
from matplotlib.colors import to_rgba

from melmask.logmel import LogMelSpec
from melmask.masking import make_strategy
from melmask.masking.laws import guidance
from melmask.nn.vit import SIZES, Encoder
from melmask.types import PatchGrid
from melmask.viz import masks, style
from melmask.viz.spectrogram import Spectrogram

SPEC, PATCH = LogMelSpec(), (16, 16)
NUM_PATCHES, NUM_VISIBLE, NUM_MASKED = 30, 9, 21  # 5 x 6 at a mask ratio of 0.7


def spectrogram_of(log_mel: torch.Tensor, title: str = "clip") -> Spectrogram:
    return Spectrogram(log_mel, SPEC, PATCH, title)


@pytest.fixture(scope="module")
def figure(log_mel: torch.Tensor):
    return masks.mask_figure(spectrogram_of(log_mel), seed=3)


def mask_panels(figure) -> list:
    panels = [axes for axes in figure.axes if "visible" in axes.get_title(loc="left")]
    assert len(panels) == 4 * 3
    return panels


def texts_of(figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


def test_every_panel_covers_exactly_the_masked_patches(figure) -> None:
    for axes in mask_panels(figure):
        covered = axes.images[1].get_array()[..., 3]
        visible, masked = map(int, re.search(r"(\d+) visible, (\d+) masked", axes.get_title(loc="left")).groups())
        assert (visible, masked) == (NUM_VISIBLE, NUM_MASKED)
        assert covered.size == NUM_PATCHES and covered.sum() == masked


def test_rendered_pixels_are_covered_in_proportion(figure) -> None:
    with style.styled():
        figure.canvas.draw()
    picture = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    colour = np.round(255 * np.array(to_rgba(style.COVER)[:3])).astype(np.uint8)
    for axes in mask_panels(figure):
        box = axes.get_window_extent()
        rows = slice(round(picture.shape[0] - box.y1) + 1, round(picture.shape[0] - box.y0) - 1)
        panel = picture[rows, round(box.x0) + 1 : round(box.x1) - 1]
        assert (panel == colour).all(axis=2).mean() == pytest.approx(NUM_MASKED / NUM_PATCHES, abs=0.02)


def test_guided_panels_state_hints_and_guidance_and_others_have_none(figure) -> None:
    titles = [axes.get_title(loc="left") for axes in mask_panels(figure)]
    for name in ("sgim", "dwm"):
        own = [title for title in titles if title.startswith(name)]
        assert [float(re.search(r"h = ([\d.]+)", title)[1]) for title in own] == [1.0, 0.5, 0.0]
        said = [float(re.search(r"λ = ([\d.]+)", title)[1]) for title in own]
        assert said == pytest.approx([guidance(NUM_PATCHES, NUM_MASKED, h) for h in (1.0, 0.5, 0.0)], abs=0.005)
    assert not any("λ" in title for title in titles if title.startswith(("random", "ibm")))


def test_the_figure_names_the_encoder_that_guides(figure, log_mel: torch.Tensor) -> None:
    assert "features of an untrained encoder" in texts_of(figure)
    given = masks.mask_figure(
        spectrogram_of(log_mel), strategies=["sgim", "attention"], encoder=Encoder(SIZES["micro"], PATCH),
        encoder_name="run $7_a$",
    )  # fmt: skip
    for words in ("features of run $7_a$", "attention of the class token in run $7_a$"):
        assert words in texts_of(given)
    assert "untrained" not in texts_of(given) and style.png_of(given).startswith(b"\x89PNG")


def test_losses_guide_hard_and_are_required(log_mel: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="hard is guided by the losses of a trained model: name its run"):
        masks.mask_figure(spectrogram_of(log_mel), strategies=["hard"])
    losses = torch.full((NUM_PATCHES,), 1e-6)
    losses[:NUM_MASKED] = 1.0
    drawn = masks.mask_figure(spectrogram_of(log_mel), strategies=["hard"], losses=losses, hint_ratios=[0.0])
    (panel,) = [axes for axes in drawn.axes if "visible" in axes.get_title(loc="left")]
    covered = panel.images[1].get_array()[..., 3]
    assert np.array_equal(covered.flatten() > 0, np.arange(NUM_PATCHES) < NUM_MASKED)


def test_same_seed_same_bytes_and_nothing_left_behind(log_mel: torch.Tensor) -> None:
    before = dict(matplotlib.rcParams)
    one, again, other = (
        style.png_of(masks.mask_figure(spectrogram_of(log_mel), strategies=["dwm"], hint_ratios=[0.0], seed=seed))
        for seed in (1, 1, 2)
    )
    assert one == again and one != other
    assert dict(matplotlib.rcParams) == before and not Gcf.figs


def test_wrong_settings_are_refused(log_mel: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="hint_ratio"):
        masks.mask_figure(spectrogram_of(log_mel), hint_ratios=[1.5])
    with pytest.raises(ValueError, match="strategy"):
        masks.mask_figure(spectrogram_of(log_mel), strategies=["none"])
    with pytest.raises(ValueError, match="smaller than one patch"):
        masks.mask_figure(spectrogram_of(log_mel[:, :8]))


def test_shares_are_exact_on_average_and_respect_padding() -> None:
    grid = PatchGrid(5, 6)
    share = masks.MaskSampler(make_strategy("random"), grid, 0.7).share(seed=0, num_draws=50)
    assert share.mean().item() == pytest.approx(NUM_MASKED / NUM_PATCHES)
    valid = (torch.arange(NUM_PATCHES) % 6 < 3)[None]
    patches = torch.rand(1, NUM_PATCHES, 4, generator=torch.Generator().manual_seed(0)) * valid[..., None]
    share = masks.MaskSampler(make_strategy("dwm"), grid, 0.7, patches, valid).share(seed=1, num_draws=50)
    assert share[valid[0]].mean().item() == pytest.approx(11 / 15)  # padding takes its proportional part


def test_the_scale_is_centred_on_the_exact_share_and_not_on_the_ratio(log_mel: torch.Tensor) -> None:
    drawn = masks.mask_figure(spectrogram_of(log_mel), strategies=["random"], mask_ratio=0.75)
    assert "as at random, 77 %" in texts_of(drawn)  # 23 of 30
    assert drawn.axes[-1].images[0].norm.vcenter == pytest.approx(23 / 30)


def test_characters_that_the_font_lacks_do_not_raise(log_mel: torch.Tensor) -> None:
    drawn = masks.mask_figure(spectrogram_of(log_mel, "鸟 $x_"), strategies=["random"], hint_ratios=[0.0])
    assert style.png_of(drawn).startswith(b"\x89PNG")
