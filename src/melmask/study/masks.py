"""The picture behind `melmask mask`: one recording, and what each strategy would mask of it."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from melmask.audio import read_audio
from melmask.evaluate.embed import FrozenEncoder
from melmask.logmel import LogMel, LogMelSpec
from melmask.masking import make_strategy
from melmask.patches import grid_of, patchify, whole_patches
from melmask.study.examples import random_masks
from melmask.study.plots import PAPER_STRATEGIES, mask_figure
from melmask.study.runs import Run, read_runs
from melmask.study.style import png_of

NUM_MASKS = 16


def save_mask_figure(
    file: Path,
    out: Path,
    *,
    run: Path | None = None,
    strategies: Sequence[str] = PAPER_STRATEGIES,
    mask_ratio: float = 0.7,
    start_s: float = 0.0,
    length_s: float = 6.08,
    seed: int = 0,
) -> None:
    """Draw a recording's masks to a PNG.

    Args:
        file: the recording.
        out: the PNG.
        run: its front end, encoder and, for strategies that look at losses, model are used; without one the clip is
            normalised by itself and looked at by an untrained encoder, which the picture says.
        strategies: what to draw.
        mask_ratio: share of patches that are masked.
        start_s: where to start in the recording.
        length_s: how much of it to show, at most.
        seed: of the masks.

    Raises:
        ValueError: the file cannot be read, the part is shorter than a patch, a setting is out of range, or a
            strategy looks at losses and there is no run with a checkpoint.
    """
    encoder = FrozenEncoder.load(run) if run else None
    spec = encoder.spec if encoder else LogMelSpec()
    patch_shape = encoder.encoder.patch_shape if encoder else (16, 16)
    waveform = torch.from_numpy(read_audio(file, spec.sample_rate_hz))
    first, length = round(start_s * spec.sample_rate_hz), round(length_s * spec.sample_rate_hz)
    part = waveform[first : first + length]
    if len(part) <= spec.n_fft:
        total_s = len(waveform) / spec.sample_rate_hz
        raise ValueError(f"{file} lasts {total_s:.2f} s: nothing to show from {start_s} s for {length_s} s")
    log_mel = LogMel(spec)(part[None])[0]
    if encoder:
        log_mel = (log_mel - encoder.front_end.mean) / encoder.front_end.std
    else:
        log_mel = (log_mel - log_mel.mean()) / log_mel.std().clamp(min=1e-6)
    looks_at_loss = any(make_strategy(name).needs == "loss" for name in strategies)
    figure = mask_figure(
        log_mel,
        spec,
        patch_shape,
        strategies=strategies,
        mask_ratio=mask_ratio,
        seed=seed,
        encoder=encoder.encoder.cpu() if encoder else None,
        encoder_name=run.name if run else "",
        losses=losses_of(read_runs([run])[0], log_mel, seed) if run and looks_at_loss else None,
        title=f"Log-mel spectrogram of {file.name}",
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(png_of(figure))


@torch.no_grad()
def losses_of(run: Run, log_mel: Float[Tensor, "mel frame"], seed: int) -> Float[Tensor, " n"]:
    """The error of a run's model at every patch: the mean over `NUM_MASKS` random masks of those that hide it.

    Raises:
        ValueError: the run has no checkpoint.
    """
    if run.model is None:
        raise ValueError(f"{run.folder} has not saved a checkpoint, whose model's losses could be looked at")
    patch_shape = run.recipe.patch_shape
    grid, patches = grid_of(log_mel, patch_shape), patchify(whole_patches(log_mel[None], patch_shape), patch_shape)
    mask = random_masks(run, grid, NUM_MASKS, seed)
    error = run.model(patches.expand(NUM_MASKS, -1, -1), grid, mask).per_patch
    total = torch.zeros(grid.num_patches).index_add_(0, mask.masked.flatten(), error.flatten())
    return total / mask.masked.flatten().bincount(minlength=grid.num_patches).clamp(min=1)
