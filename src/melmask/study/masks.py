"""The picture behind `melmask mask`: one recording, and what each strategy would mask of it."""

from pathlib import Path

import torch

from melmask.audio import read_audio
from melmask.evaluate.embed import FrozenEncoder
from melmask.logmel import LogMel, LogMelSpec
from melmask.patches import grid_of, patchify, whole_patches
from melmask.study.plots import mask_figure
from melmask.study.style import png_of


def save_mask_figure(
    file: Path,
    out: Path,
    *,
    run: Path | None = None,
    mask_ratio: float = 0.7,
    start_s: float = 0.0,
    length_s: float = 6.08,
    seed: int = 0,
) -> None:
    """Draw a recording's masks to a PNG.

    Args:
        file: the recording.
        out: the PNG.
        run: its encoder's front end and features are used; without one the clip is normalised by itself and the
            features are of an untrained encoder, which the picture says.
        mask_ratio: share of patches that are masked.
        start_s: where to start in the recording.
        length_s: how much of it to show, at most.
        seed: of the masks.

    Raises:
        ValueError: the file cannot be read, the part is shorter than a patch, or a setting is out of range.
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
    features = None
    if encoder:
        with torch.inference_mode():
            grid = grid_of(log_mel, patch_shape)
            patches = patchify(whole_patches(log_mel[None], patch_shape).to(encoder.device), patch_shape)
            features = encoder.encoder(patches, grid)[0, 1:].float().cpu()
    figure = mask_figure(
        log_mel,
        spec,
        patch_shape,
        mask_ratio=mask_ratio,
        seed=seed,
        features=features,
        features_from=f"the encoder of {run.name}" if run else "",
        title=f"Log-mel spectrogram of {file.name}",
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(png_of(figure))
