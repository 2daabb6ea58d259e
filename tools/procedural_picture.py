"""Draw docs/procedural.png: a clip of every family of procedural sound, and clips as a run takes them.

make docs-pictures            # or, from the repository's root: PYTHONPATH=tools python -m procedural_picture
"""

import argparse
from pathlib import Path

import torch
from field_guide.pictures import small_png
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from melmask.demo.procedural.families import FAMILIES
from melmask.demo.procedural.synthesise import synthesise
from melmask.logmel import LogMel, LogMelSpec
from melmask.viz import style
from melmask.viz.spectrogram import label_axes, show_log_mel

SECONDS, NUM_COLUMNS, NUM_MIXED, NUM_TRIED = 3.0, 4, 4, 8
LIMITS = (-14.0, 3.0)  # of the colours, in log-mel power


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/procedural.png"), help="the picture")
    arguments = parser.parse_args()
    arguments.out.write_bytes(small_png(families_figure()))
    print(f"{arguments.out}  {arguments.out.stat().st_size / 1e3:.0f} kB")


@style.in_style
def families_figure() -> Figure:
    """A log-mel of one clip of each family, and below them mixed clips."""
    spec = LogMelSpec()
    shown = []
    for i, name in enumerate(FAMILIES):
        sound = synthesise(range(NUM_TRIED * i, NUM_TRIED * (i + 1)), SECONDS, family=name)
        shown.append((name, _most_varied(LogMel(spec)(sound))))
    mixed = LogMel(spec)(synthesise(range(2, 2 + NUM_MIXED), SECONDS))
    shown += [(f"mixed: clip {number + 2}", log_mel) for number, log_mel in enumerate(mixed)]
    num_rows = -(-len(shown) // NUM_COLUMNS)
    figure = style.new_figure(1.35 * num_rows)
    axes = figure.subplots(num_rows, NUM_COLUMNS)
    for i, (place, (title, log_mel)) in enumerate(zip(axes.flat, shown, strict=True)):
        show_log_mel(place, log_mel, spec, LIMITS)
        label_axes(place, spec, time=i // NUM_COLUMNS == num_rows - 1, frequency_label=i % NUM_COLUMNS == 0)
        if i % NUM_COLUMNS:
            place.set_yticks([])
        place.set_title(title, fontweight="bold")
    return figure


def _most_varied(log_mel: Float[Tensor, "clip mel frame"]) -> Float[Tensor, "mel frame"]:
    """The clip in which most is to be seen."""
    return log_mel[int(log_mel.clamp(min=LIMITS[0]).std(dim=(1, 2)).argmax())]


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
