"""The command mask: a recording and its masks."""

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from melmask.cli.console import console
from melmask.masking import STRATEGIES


def mask(
    file: Positional[Path],
    out: Path,
    run: Path | None = None,
    strategies: tuple[Literal[tuple(STRATEGIES)], ...] = ("random", "ibm", "sgim", "dwm"),  # type: ignore[valid-type]
    mask_ratio: float = 0.7,
    start_s: float = 0.0,
    length_s: float = 6.08,
    seed: int = 0,
) -> None:
    """Draw a recording's spectrogram and, under it, what each strategy masks at several hint ratios.

    Args:
        file: a recording.
        out: the PNG to write.
        run: whose encoder gives features to sgim and attention to attention, instead of an untrained one; hard, which
            looks at a model's losses, needs one.
        strategies: which to draw.
        mask_ratio: share of patches that are masked.
        start_s: where to start in the recording.
        length_s: how much of it to show.
        seed: of the masks.
    """
    from melmask.viz.masks import save_mask_figure

    save_mask_figure(
        file,
        out,
        run=run,
        strategies=strategies,
        mask_ratio=mask_ratio,
        start_s=start_s,
        length_s=length_s,
        seed=seed,
    )
    console.print(f"[bold]{out}[/]")
