"""The command mask: a recording and its masks."""

from tyro.conf import OmitArgPrefixes, Positional

from melmask.cli.console import print_next, print_path
from melmask.cli.options import File, OptionalEncoder
from melmask.viz.masks import DEFAULT_EXAMPLES, MaskExamples, save_mask_figure


def mask(
    file: Positional[File],
    out: File,
    run: OptionalEncoder = None,
    examples: OmitArgPrefixes[MaskExamples] = DEFAULT_EXAMPLES,
) -> None:
    """Plot a spectrogram, and what masking strategies mask of it.

    Example: melmask mask my.wav --out masks.png

    Args:
        file: a recording.
        out: the PNG to write.
        run: a run's folder: its encoder guides the strategies that read features or attention, instead of an untrained
            one, and its model those that read losses, such as hard; for the others any melmask encoder, such as tiny.
        examples: what to plot.
    """
    save_mask_figure(file, out, run, examples)
    print_path(out)
    print_next("melmask", "pretrain", "STORE", "--out", "RUN", "--strategy", "dwm")
