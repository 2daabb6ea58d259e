"""Figures of per-class results: the confusion matrix and the reliability of probabilities."""

import numpy as np
from jaxtyping import Float
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure

from melmask.evaluation.per_class import Details
from melmask.viz import style

MAX_CLASSES = 60  # rows of a confusion matrix that can be read
SHARES = LinearSegmentedColormap.from_list("shares", ["#ffffff", "#b9d3e6", "#4a8fc0", "#0b4f82", "#06263f"])


@style.in_style
def confusion_figure(details: Details) -> Figure:
    """The confusion matrix, as shares of each class's test clips.

    Of more than `MAX_CLASSES` classes, those with the most misclassified clips are shown.

    Args:
        details: of a task with one label a clip.

    Raises:
        ValueError: clips have several labels, for which there is no confusion matrix.
    """
    if details.confusion is None:
        raise ValueError(f"{details.task} has clips of several labels: it has no confusion matrix")
    shown = shown_classes(details.confusion)
    num_shown, num_clips = len(shown), details.confusion.sum(axis=1)
    share = details.confusion[np.ix_(shown, shown)] / np.maximum(num_clips[shown], 1e-9)[:, None]
    names = [style.shortened(details.class_names[label], 22) for label in shown]

    side = max(2.4, (0.17 if num_shown > 20 else 0.3) * num_shown)
    margin = 0.065 * max(map(len, names))
    figure = style.new_figure(side + margin + 0.75, width_in=max(side + margin + 0.9, 5.0))
    axes = figure.subplots()
    image = axes.imshow(100 * share, cmap=SHARES, norm=PowerNorm(0.6, 0, 100))
    small = 6.5 if num_shown > 20 else 8
    axes.set_xticks(range(num_shown), names, rotation=90, fontsize=small, color=style.INK)
    axes.set_yticks(range(num_shown), names, fontsize=small, color=style.INK)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(num_shown - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(num_shown - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="#eef1f4", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    for row, column in zip(*np.nonzero(share >= 0.01), strict=True):
        ink = "white" if share[row, column] > 0.25 else style.INK
        axes.text(
            column, row, f"{100 * share[row, column]:.0f}", ha="center", va="center", color=ink,
            fontsize=4.6 if num_shown > 20 else 7.5,
        )  # fmt: skip
    axes.set_xlabel("predicted class", loc="right")
    axes.set_ylabel("true class", loc="top")
    cut = f"; {num_shown} of {len(num_clips)} classes, the most misclassified" if num_shown < len(num_clips) else ""
    axes.set_title(f"{details.task}, {details.probe}\n% of each class's test clips{cut}", fontsize=9, loc="left")
    bar = figure.colorbar(image, ax=axes, shrink=min(1.0, 2.4 / side), aspect=18, pad=0.015, anchor=(0, 1))
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    return figure


@style.in_style
def reliability_figure(details: Details) -> Figure:
    """The reliability diagram: the share of correct predictions by predicted probability, and their number.

    Calibrated probabilities lie on the diagonal, overconfident ones below it.
    """
    found = details.calibration
    filled = found.num_predictions > 0
    figure = style.new_figure(4.1, width_in=4.4)
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    axes.plot([0, 100], [0, 100], color=style.MUTED, linewidth=1, linestyle=(0, (4, 3)))
    x, y = 100 * found.confidence[filled], 100 * found.right[filled]
    reach = 100 * np.stack([found.low[filled], found.high[filled]])
    axes.vlines(x, *reach, color=style.RUN_COLOURS[0], linewidth=1.2, alpha=0.6)
    axes.plot(x, y, "o-", color=style.RUN_COLOURS[0], markersize=4.5, linewidth=1)
    axes.set_ylim(-2, 102)
    axes.set_ylabel("correct, in %")
    axes.grid()
    axes.set_title(
        f"{details.task}, {details.probe}\n"
        f"expected calibration error {found.error.value:.3f}; {found.sampling_error:.3f} if calibrated",
        fontsize=9, loc="left",
    )  # fmt: skip
    width = 100 * (found.edges[1] - found.edges[0])
    counts.bar(100 * found.edges[:-1], found.num_predictions, width, align="edge", color=style.BASELINE_COLOUR)
    counts.set_ylabel("predictions")
    counts.set_xlabel("predicted probability, in %", loc="right")
    counts.set_xlim(0, 100)
    figure.align_ylabels()
    return figure


def shown_classes(confusion: Float[np.ndarray, "true predicted"]) -> list[int]:
    """The classes that a confusion matrix shows: all, or those with the most misclassified clips, in their order.

    Classes that are neither the true nor the predicted class of any test clip are left out.
    """
    present = np.flatnonzero((confusion.sum(axis=1) + confusion.sum(axis=0)) > 0)
    num_wrong = (confusion.sum(axis=1) - confusion.diagonal())[present]
    most = present[np.argsort(-num_wrong, kind="stable")[:MAX_CLASSES]]
    return sorted(most.tolist())
