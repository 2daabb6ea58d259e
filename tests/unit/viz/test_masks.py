"""Pictures: what they cover, count and say."""

import re
from pathlib import Path

import librosa
import matplotlib
import numpy as np
import pytest
import torch
from matplotlib._pylab_helpers import Gcf
from matplotlib.colors import to_rgba
from torch import nn

from melmask.frameworks import MSMMAE, Loss
from melmask.frameworks.msm_mae import normalised_patches
from melmask.logmel import LogMelSpec
from melmask.masking import draw, make_strategy
from melmask.masking.laws import guidance
from melmask.nn.vit import SIZES, Encoder, Size
from melmask.patches import patchify, whole_patches
from melmask.report import crops as report_crops
from melmask.study.runs import Run
from melmask.train.recipe import RECIPES
from melmask.types import Mask, PatchGrid
from melmask.viz import masks, predictions, style
from melmask.viz.spectrogram import Spectrogram, band_centres_hz, band_of_hz

SPEC, PATCH = LogMelSpec(), (16, 16)
NUM_PATCHES, NUM_VISIBLE, NUM_MASKED = 30, 9, 21  # 5 x 6 at a mask ratio of 0.7


@pytest.fixture(scope="module")
def log_mel() -> torch.Tensor:
    """A rising tone in noise, 100 frames: 6 whole columns of patches and a rest."""
    mel, frame = torch.meshgrid(torch.arange(80.0), torch.arange(100.0), indexing="ij")
    noise = torch.randn(80, 100, generator=torch.Generator().manual_seed(0))
    return 3 * torch.exp(-((mel - 10 - 0.5 * frame) ** 2) / 20) + 0.3 * noise


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


def test_informed_panels_tell_hints_and_guidance_and_others_take_none(figure) -> None:
    titles = [axes.get_title(loc="left") for axes in mask_panels(figure)]
    for name in ("sgim", "dwm"):
        own = [title for title in titles if title.startswith(name)]
        assert [float(re.search(r"h = ([\d.]+)", title)[1]) for title in own] == [1.0, 0.5, 0.0]
        said = [float(re.search(r"λ = ([\d.]+)", title)[1]) for title in own]
        assert said == pytest.approx([guidance(NUM_PATCHES, NUM_MASKED, h) for h in (1.0, 0.5, 0.0)], abs=0.005)
    assert not any("λ" in title for title in titles if title.startswith(("random", "ibm")))


def test_the_picture_says_whose_encoder_a_strategy_looks_through(figure, log_mel: torch.Tensor) -> None:
    assert "features of an untrained encoder" in texts_of(figure)
    given = masks.mask_figure(
        spectrogram_of(log_mel), strategies=["sgim", "attention"], encoder=Encoder(SIZES["micro"], PATCH),
        encoder_name="run $7_a$",
    )  # fmt: skip
    for words in ("features of run $7_a$", "attention of the class token in run $7_a$"):
        assert words in texts_of(given)
    assert "untrained" not in texts_of(given) and style.png_of(given).startswith(b"\x89PNG")


def test_losses_lead_the_picture_of_hard_and_are_asked_for(log_mel: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="hard looks at the losses of a trained model: name its run"):
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


def test_plain_chance_is_the_exact_share_and_not_the_asked_ratio(log_mel: torch.Tensor) -> None:
    drawn = masks.mask_figure(spectrogram_of(log_mel), strategies=["random"], mask_ratio=0.75)
    assert "as by chance, 77 %" in texts_of(drawn)  # 23 of 30
    assert drawn.axes[-1].images[0].norm.vcenter == pytest.approx(23 / 30)


def test_axes_are_at_the_mel_bands() -> None:
    expected = librosa.mel_frequencies(SPEC.num_mels + 2, fmin=SPEC.fmin_hz, fmax=SPEC.fmax_hz)[1:-1]
    assert band_centres_hz(SPEC) == pytest.approx(expected, abs=0.5)
    assert band_of_hz(SPEC, float(expected[31])) == pytest.approx(31, abs=0.05)


def test_letters_the_font_lacks_do_not_stop_a_picture(log_mel: torch.Tensor) -> None:
    drawn = masks.mask_figure(spectrogram_of(log_mel, "鸟 $x_"), strategies=["random"], hint_ratios=[0.0])
    assert style.png_of(drawn).startswith(b"\x89PNG")


class Perfect(nn.Module):
    """A stand-in for a decoder that knows the patches."""

    def __init__(self, patches: torch.Tensor) -> None:
        super().__init__()
        self.patches = patches

    def forward(self, latent: torch.Tensor, grid: PatchGrid, mask: Mask) -> torch.Tensor:
        return normalised_patches(self.patches, mask)


def test_a_perfect_prediction_reconstructs_the_input(log_mel: torch.Tensor) -> None:
    patches, grid = patchify(whole_patches(log_mel[None], PATCH), PATCH), PatchGrid(5, 6)
    mask = draw("random", grid=grid, batch_size=1, mask_ratio=0.7, rng=torch.Generator().manual_seed(0))
    model = MSMMAE(Size(32, 1, 2), Size(32, 1, 2), PATCH)
    model.decoder = Perfect(patches)
    torch.testing.assert_close(model.reconstruct(patches, grid, mask), patches, atol=1e-4, rtol=0)


def test_reconstruction_shows_visible_patches_as_they_are(log_mel: torch.Tensor) -> None:
    mask = Mask(torch.arange(9)[None], torch.arange(9, 30)[None])
    rebuilt = patchify(whole_patches(log_mel[None], PATCH), PATCH)
    rebuilt[:, 9:] = -9.0
    drawn = predictions.reconstruction_figure([spectrogram_of(log_mel)], mask, rebuilt)
    shown = drawn.axes[2].images[0].get_array()
    assert np.array_equal(shown[:16], log_mel[:16, :96].numpy())  # the lowest band is visible: patches 0 to 5
    assert (shown == -9.0).sum() == 21 * 256


class Indexed(MSMMAE):
    """A stand-in for a model whose error is the number of the patch."""

    def loss(self, patches, grid, mask, valid=None):
        error = mask.masked.float()
        return Loss(error.mean(), error, torch.zeros(len(patches), 1, 1))


def test_errors_land_at_their_place_of_the_grid() -> None:
    grid, num_crops = PatchGrid(5, 6), report_crops.NUM_CROPS
    run = Run(Path("run"), "run", RECIPES["micro-m2d"], {}, [], [], None, "")
    valid = torch.ones(num_crops, NUM_PATCHES, dtype=torch.bool)
    valid[:, 5] = False
    patches, first = torch.zeros(num_crops, NUM_PATCHES, 256), torch.zeros(num_crops, dtype=torch.long)
    crops = report_crops.Examples(torch.zeros(num_crops, 80, 96), patches, valid, grid, (), (), (), first, first)
    error = report_crops.error_by_patch(run, Indexed(Size(32, 1, 2), Size(32, 1, 2), PATCH), crops)
    expected = torch.arange(30.0)
    expected[5] = torch.nan
    torch.testing.assert_close(error, expected, equal_nan=True)
