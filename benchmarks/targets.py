"""What speed was to be reached, and why where it was not."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from melmask.runtime import processor_has

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Target:
    """Something to be reached.

    Args:
        benchmark: that measures it.
        text: what it is about.
        bound: what was wanted.
        measure: the figure in the benchmark's rows; None if it was not measured.
        at_most: whether the figure is to stay below the bound, not above.
        form: how figures are written.
        why: the reason, if it is missed.
        with_amx: whether it is asked of processors with AMX alone, or of those without; None: of all.
    """

    benchmark: str
    text: str
    bound: float
    measure: Callable[[Rows], float | None]
    at_most: bool = False
    form: str = "{:.2f}"
    why: str = ""
    with_amx: bool | None = None


def targets_of(benchmark: str) -> list[Target]:
    """What was to be reached on this processor."""
    has_amx = processor_has("amx_tile")
    return [target for target in TARGETS if target.benchmark == benchmark and target.with_amx in (None, has_amx)]


def of(key: str, worst: Callable[..., float] = min, **fields: str) -> Callable[[Rows], float | None]:
    """The worst figure ``key`` of all rows with these fields."""

    def measure(rows: Rows) -> float | None:
        figures = [row[key] for row in rows if all(row[name] == value for name, value in fields.items())]
        return worst(figures) if figures else None

    return measure


def others(key: str) -> Callable[[Rows], float | None]:
    """The worst figure ``key`` of all work but training."""
    return lambda rows: min((row[key] for row in rows if row["work"] != "train"), default=None)


def peak_gib(recipe: str) -> Callable[[Rows], float | None]:
    """The most memory that the process of a recipe held."""
    return lambda rows: next((row["peak_bytes"] / 2**30 for row in rows if row["recipe"] == recipe), None)


def verdict(target: Target, rows: Rows) -> list[str]:
    """Text, bound, figure, "reached" or "missed", and the reason."""
    figure, sign = target.measure(rows), "at most" if target.at_most else "at least"
    wanted = f"{sign} {target.form.format(target.bound)}"
    if figure is None:
        return [target.text, wanted, "", "not measured", ""]
    reached = figure <= target.bound if target.at_most else figure >= target.bound
    return [target.text, wanted, target.form.format(figure), *(("reached", "") if reached else ("missed", target.why))]


TINY, BASE = {"framework": "m2d", "size": "tiny"}, {"framework": "m2d", "size": "base"}
TARGETS = (
    Target(
        "train", "M2D tiny in bf16, times the plain float32 baseline", 2.0, of("ratio", dtype="bf16", **TINY),
        with_amx=False,
    ),
    Target(
        "train", "M2D tiny in bf16, share of the ceiling", 0.50, of("ceiling_share", dtype="bf16", **TINY),
        why="set where the ceiling was 405 GFLOP/s; here it is more than twice that. By the profile, products take "
        "60 % of the step, at 0.7 of the ceiling; GELU, casts, softmax, norms and the starts of 3,000 small "
        "operations on two threads take the rest",
        with_amx=False,
    ),
    Target(
        "train", "M2D base in bf16, times the plain float32 baseline", 2.0, of("ratio", dtype="bf16", **BASE),
        with_amx=False,
    ),
    Target(
        "train", "M2D base in bf16, share of the ceiling", 0.72, of("ceiling_share", dtype="bf16", **BASE),
        why="set where the ceiling was 405 GFLOP/s; here it is more than twice that. By the profile, products take "
        "72 % of the step, at 0.9 of the ceiling; AdamW, softmax, casts of weights and GELU, which are bound by "
        "memory or exponentials, take as long as they did",
        with_amx=False,
    ),
    Target(
        "train", "tiny in bf16, times the plain float32 baseline, the worse framework", 3.0,
        of("ratio", dtype="bf16", size="tiny"), with_amx=True,
        why="of a quiet step of 137 ms (MSM-MAE) products take 51 ms; the starts of some 3,000 operations on "
        "two threads, casts, GELU and AdamW, which AMX does not hasten, take the rest. torch.compile "
        "brought 1.07 to 1.15, all weights in bf16 1.07 (LOG.md)",
    ),
    Target(
        "train", "base in bf16, times the plain float32 baseline, the worse framework", 3.0,
        of("ratio", dtype="bf16", size="base"), with_amx=True,
        why="products take half of a step; what passes over all weights at the speed of memory (AdamW, the moving "
        "average, the norm of the gradient, casts) a quarter. torch.compile brought 1.03 to 1.07, all weights in bf16 "
        "1.10 (LOG.md)",
    ),
    Target(
        "train", "tiny in bf16, share of the ceiling, the worse framework", 0.25,
        of("ceiling_share", dtype="bf16", size="tiny"), with_amx=True,
        why="as for the ratio at tiny",
    ),
    Target(
        "train", "base in bf16, share of the ceiling, the worse framework", 0.40,
        of("ceiling_share", dtype="bf16", size="base"), with_amx=True,
        why="as for the ratio at base; and gradients of weights, products with transposed factors, run at 1.1 TFLOP/s "
        "where others reach 1.9",
    ),
    Target("train", "every row, times the plain float32 baseline", 1.0, of("ratio"), with_amx=True),
    Target(
        "train", "M2D tiny in float32, share of torch.matmul's ceiling", 0.75,
        of("matmul_share", dtype="float32", **TINY), with_amx=False,
    ),
    Target(
        "train", "the same, share of the best product in any form", 0.75,
        of("ceiling_share", dtype="float32", **TINY), with_amx=False,
        why="oneDNN's ceiling, which PyTorch's own product reaches half of. By the profile, products take 79 % of "
        "the step, at 0.65 of the ceiling: convolutions are slower backward, and attention's batches of products "
        "are still MKL's",
    ),
    Target(
        "train", "data, mask, optimiser and EMA together, share of a step, the worst of all rows", 0.08,
        of("overhead_share", max), at_most=True,
        why="MSM-MAE tiny in bf16: AdamW and the norm of the gradient take 6 ms for 200 tensors of 7 M values in "
        "all, which a step of 100 ms does not hide; in one flat tensor they took 4, of which 1.5 for putting the "
        "gradients there, but at base size longer than now. With AMX products are so quick that at base size, too, "
        "what passes over all weights is a sixth of the step",
    ),
    Target(
        "busy", "training on an idle machine, times the rate of all threads as before", 0.95,
        of("idle_ratio", work="train"),
        why="the machine's own speed differs so much between two windows of 5 s; a logged run has no trial of fewer "
        "threads. In eight turns of 6 s the ratio went from .74 to 1.11, with a median of .99 (LOG.md)",
    ),
    Target(
        "busy", "training beside a busy process, times the rate of one thread", 0.90, of("busy_ratio", work="train"),
    ),
    Target("busy", "the same of embeddings, probes and prepare, the worst, idle", 0.95, others("idle_ratio")),
    Target(
        "busy", "the same of embeddings, probes and prepare, the worst, beside a busy process", 0.90,
        others("busy_ratio"),
    ),
    Target("start", "melmask --help, seconds", 0.5, of("seconds", command="melmask --help"), at_most=True),
    Target(
        "start", "melmask embed of one file of 5 s, seconds", 2.5, of("seconds", command="melmask embed"), at_most=True,
        why="most of it is what Python takes to import torch alone",
    ),
    Target("memory", "M2D base in bf16 with 8 crops, GiB at the peak", 3.0, peak_gib("base-m2d"), at_most=True),
    Target(
        "prepare", "a core's rate, times the plain form's", 4.0, of("ratio", size="wav, 16 kHz"),
        why="reading, hashing and Fourier transforms take 0.15 of the plain form's time by themselves (the floor), "
        "so at most 6.5 could be reached; mel bands (a sixth of ours), padding, logarithm, sums and writing "
        "(each less than a tenth) take one and a half times as long again",
    ),
)  # fmt: skip
