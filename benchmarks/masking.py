"""What masks cost, strategy by strategy: `make bench`, or `python benchmarks/masking.py --help`."""

import argparse
import json
import math
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from page import COMMAND, write_section
from rich import box
from rich.console import Console
from rich.table import Table
from timing import Times, in_turns, machine, ratio
from torch import Generator, Tensor

from melmask.masking import STRATEGIES, draw, make_strategy
from melmask.masking.base import num_hints_of, num_masked_of
from melmask.masking.blocks import InverseBlock
from melmask.patches import patchify
from melmask.train.recipe import RECIPES
from melmask.types import Mask, PatchGrid

GRID, PATCH_SHAPE, BATCHES = PatchGrid(5, 38), (16, 16), (64, 512)
MASK_RATIO, HINT_RATIO = 0.7, 0.5  # hints where a strategy looks at something, as in training
BLIND = ("nothing", "patches")  # guides that need no pass through an encoder
FEATURE_DIM, NUM_HEADS = 768, 12  # of the base encoder
COPIED_BYTES = 100 * 2**20
QUICK_S, THOROUGH_S = 0.2, 1.0  # of timing each alternative
STEP_BATCH = {"tiny-m2d": 8, "base-m2d": 2}
PUBLISHED = ("strategy", "batch", "ms", "ratio_random", "ratio_baseline", "ratio_floor")
COLUMNS = {
    "strategy": "",
    "ms": "one draw, the median over turns",
    "min ms": "its quickest turn",
    "random": "times as long as random masking",
    "floor": "times as long as it takes to read the patches once, at the speed of a copy into existing memory",
    "obvious": "times as quick as the form that one would write first, for the two that have such a form here",
    "tiny": "share of a training step of `tiny-m2d`",
    "base": "share of a training step of `base-m2d`",
    "pass": "share of one pass of all patches through the base encoder, for strategies that look at what a model says; "
    "`sgim` and `attention` need such a pass besides, `hard` remembers the losses of earlier steps",
}


@dataclass(frozen=True)
class Row:
    """What one strategy costs at one batch size; `COLUMNS` says what the figures mean."""

    strategy: str
    batch: int
    ms: float
    min_ms: float
    ratio_random: float
    ratio_floor: float
    ratio_baseline: float | None
    share_tiny: float
    share_base: float
    share_pass: float | None


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer turns: under 50 s on two cores")
    parser.add_argument("--json", type=Path, metavar="FILE", help=f"write rows of {', '.join(PUBLISHED)}")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="put the tables into their section of a page")
    options = parser.parse_args(arguments)
    budget_s = QUICK_S if options.quick else THOROUGH_S
    console, measured_on = Console(highlight=False), machine()
    console.print(f"{measured_on}\n")
    sample_s = model_times(budget_s)
    results = []
    for batch_size in BATCHES:
        times = in_turns(alternatives(batch_size, GRID), budget_s)
        results.append((rows_of(times, batch_size, GRID, sample_s), comparison(times, batch_size, GRID)))
        console.print(table_of(results[-1][0]), results[-1][1], "", sep="\n")
    if options.json:
        rows = [{key: asdict(row)[key] for key in PUBLISHED} for rows, _ in results for row in rows]
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    if options.markdown:
        write_section(options.markdown, "masking", section_of(results, measured_on, options.markdown.name))


def alternatives(batch_size: int, grid: PatchGrid) -> dict[str, Callable[[], object]]:
    """A draw by every strategy, `random` first, and what they are compared with."""
    rng = torch.Generator().manual_seed(0)
    log_mel = torch.randn(batch_size, grid.freq * PATCH_SHAPE[0], grid.time * PATCH_SHAPE[1], generator=rng)
    log_mel *= torch.rand(batch_size, 1, log_mel.shape[2], generator=rng)
    guides = guides_of(log_mel, grid, rng)
    num_masked = num_masked_of(grid.num_patches, MASK_RATIO)
    noise = torch.rand(batch_size, grid.num_patches, generator=rng)
    source = torch.ones(COPIED_BYTES, dtype=torch.uint8)
    into = source.clone()
    names = sorted(STRATEGIES, key=lambda name: name != "random")
    return {name: lambda name=name: drawn(name, batch_size, grid, guides, rng) for name in names} | {
        "argsort": lambda: noise.argsort(dim=1),
        "copy": lambda: into.copy_(source),
        "patches": lambda: patchify(log_mel, PATCH_SHAPE),
        "obvious dwm": lambda: obvious_dwm(log_mel, num_masked, HINT_RATIO, rng),
        "obvious ibm": lambda: obvious_ibm(batch_size, grid, num_masked, rng),
    }


def guides_of(log_mel: Tensor, grid: PatchGrid, rng: Generator) -> dict[str, Tensor]:
    """What strategies may look at, in the shapes of the base model."""
    shape = (len(log_mel), grid.num_patches)
    return {
        "patches": patchify(log_mel, PATCH_SHAPE),
        "features": torch.randn(*shape, FEATURE_DIM, generator=rng),
        "attention": torch.randn(*shape, NUM_HEADS, generator=rng).softmax(dim=1),
        "loss": torch.rand(*shape, 1, generator=rng),
    }


def drawn(name: str, batch_size: int, grid: PatchGrid, guides: dict[str, Tensor], rng: Generator) -> Mask:
    """One draw as in training: with hints where the strategy looks at something."""
    strategy = make_strategy(name)
    guide = strategy.needs.guide
    return draw(
        strategy, grid=grid, batch_size=batch_size, mask_ratio=MASK_RATIO, rng=rng, guide=guides.get(guide),
        hint_ratio=0.0 if guide == "nothing" else HINT_RATIO,
    )  # fmt: skip


def model_times(budget_s: float) -> dict[str, float]:
    """Seconds a sample of the two recipes' forward and backward pass, and of one pass of their encoders."""
    rng, sample_s = torch.Generator().manual_seed(0), {}
    for name, batch_size in STEP_BATCH.items():
        model = RECIPES[name].make_model()
        patches = torch.randn(batch_size, GRID.num_patches, math.prod(PATCH_SHAPE), generator=rng)
        mask = draw("random", grid=GRID, batch_size=batch_size, mask_ratio=MASK_RATIO, rng=rng)

        def step(model=model, patches=patches, mask=mask) -> None:
            model(patches, GRID, mask, None).value.backward()

        def encode(model=model, patches=patches) -> None:
            with torch.no_grad():
                model.encoder(patches, GRID)

        times = in_turns({name: step, f"{name} pass": encode}, budget_s)
        sample_s |= {call: statistics.median(taken) / batch_size for call, taken in times.items()}
    return sample_s


def rows_of(times: Times, batch_size: int, grid: PatchGrid, sample_s: dict[str, float]) -> list[Row]:
    """A row for every strategy, `random` first."""
    num_floors = COPIED_BYTES / num_bytes(batch_size, grid)
    rows = []
    for name in (name for name in times if name in STRATEGIES):
        taken_s, baseline = statistics.median(times[name]), times.get(f"obvious {name}")
        shares = {call: taken_s / (batch_size * a_sample_s) for call, a_sample_s in sample_s.items()}
        rows.append(
            Row(
                strategy=name,
                batch=batch_size,
                ms=1e3 * taken_s,
                min_ms=1e3 * min(times[name]),
                ratio_random=ratio(times[name], times["random"]),
                ratio_floor=ratio(times[name], times["copy"]) * num_floors,
                ratio_baseline=ratio(baseline, times[name]) if baseline else None,
                share_tiny=shares["tiny-m2d"],
                share_base=shares["base-m2d"],
                share_pass=None if make_strategy(name).needs.guide in BLIND else shares["base-m2d pass"],
            )
        )
    return rows


def num_bytes(batch_size: int, grid: PatchGrid) -> int:
    return 4 * batch_size * grid.num_patches * math.prod(PATCH_SHAPE)


def comparison(times: Times, batch_size: int, grid: PatchGrid) -> str:
    """What the rows are compared with, in words."""
    ms = {name: 1e3 * statistics.median(taken) for name, taken in times.items()}
    read_bytes = num_bytes(batch_size, grid)
    return (
        f"A bare argsort of noise takes {ms['argsort']:.2f} ms, random masking "
        f"{ratio(times['random'], times['argsort']):.2f} times as long. The floor is {read_bytes / 1e6:.1f} MB at "
        f"{COPIED_BYTES / 1e6 / ms['copy']:.1f} GB/s: {ms['copy'] * read_bytes / COPIED_BYTES:.2f} ms. The obvious dwm "
        f"takes {ms['obvious dwm']:.1f} ms, of which copying the patches {ms['patches']:.1f} ms; the obvious ibm "
        f"{ms['obvious ibm']:.1f} ms."
    )


# The obvious forms


def obvious_dwm(log_mel: Tensor, num_masked: int, hint_ratio: float, rng: Generator) -> Mask:
    """Dispersion-weighted masks as one writes them down: copy patches, deviate, sample, give hints by argsorts."""
    patch_freq, patch_time = PATCH_SHAPE
    batch_size, mel, frame = log_mel.shape
    blocks = log_mel.reshape(batch_size, mel // patch_freq, patch_freq, frame // patch_time, patch_time)
    patches = blocks.transpose(2, 3).reshape(batch_size, -1, patch_freq * patch_time)
    weight = (patches - patches.mean(dim=2, keepdim=True)).abs().mean(dim=2)
    chosen = torch.multinomial(weight, num_masked, replacement=False, generator=rng)
    num_hints = num_hints_of(num_masked, hint_ratio)
    shuffled = torch.rand(chosen.shape, generator=rng).argsort(dim=1)
    stay = chosen.gather(1, shuffled[:, num_hints:])
    outside_first = torch.rand(weight.shape, generator=rng).scatter(1, stay, 2.0).argsort(dim=1)
    return partition(torch.cat([stay, outside_first[:, :num_hints]], dim=1), weight.shape[1])


def obvious_ibm(batch_size: int, grid: PatchGrid, num_masked: int, rng: Generator) -> Mask:
    """Inverse block masks as one writes them down: a loop over samples, and in it one over centres."""
    ibm, num_visible = InverseBlock(), grid.num_patches - num_masked
    before, after = ibm.side // 2, (ibm.side - 1) // 2
    num_centres, masked = ibm.num_centres(grid, num_masked), []
    for _ in range(batch_size):
        visible = torch.zeros(grid.freq, grid.time, dtype=torch.bool)
        for centre in torch.randint(grid.num_patches, (num_centres,), generator=rng).tolist():
            f, t = divmod(centre, grid.time)
            visible[max(f - before, 0) : f + after + 1, max(t - before, 0) : t + after + 1] = True
        visible = visible.flatten()
        surplus = int(visible.sum()) - num_visible
        candidates = (visible if surplus > 0 else ~visible).nonzero()[:, 0]
        changed = candidates[torch.randperm(len(candidates), generator=rng)[: abs(surplus)]]
        visible[changed] = surplus < 0
        masked.append((~visible).nonzero()[:, 0])
    return partition(torch.stack(masked), grid.num_patches)


def partition(masked: Tensor, num_patches: int) -> Mask:
    """Both sides of a mask, sorted, from the patches that are masked."""
    is_masked = torch.zeros(len(masked), num_patches, dtype=torch.uint8).scatter(1, masked, 1)
    order = is_masked.argsort(dim=1, stable=True)
    num_visible = num_patches - masked.shape[1]
    return Mask(order[:, :num_visible], order[:, num_visible:])


# How it is shown


def heading(row: Row) -> str:
    return f"Batch {row.batch} on {GRID.freq} x {GRID.time}, mask ratio {MASK_RATIO}"


def cells(row: Row) -> list[str]:
    shares = [share(taken) for taken in (row.share_tiny, row.share_base, row.share_pass)]
    figures = [row.ms, row.min_ms, row.ratio_random, row.ratio_floor, row.ratio_baseline]
    return [row.strategy, *(figure(value) for value in figures), *shares]


def figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def share(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2%}" if value >= 1e-4 else "<0.01%"


def table_of(rows: list[Row]) -> Table:
    table = Table(title=heading(rows[0]), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "strategy" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*cells(row))
    return table


def section_of(results: list[tuple[list[Row], str]], measured_on: str, page: str) -> str:
    """A section of the page of that name: the command, the machine, the columns, and a table for every batch size."""
    small = " and of ".join(f"{size} samples for `{name}`" for name, size in STEP_BATCH.items())
    lines = [
        "## What masks cost", "", "```", COMMAND.format(name="masking", page=page), "```", "",
        f"Measured on {measured_on}.", "",
        *(f"- *{column}*: {meaning}." for column, meaning in COLUMNS.items() if meaning), "",
        f"Strategies that look at something are timed with hints, {HINT_RATIO:.0%} of the mask, as in training. A "
        f"training step is a forward and a backward pass on the same grid, timed at a batch of {small}, and scaled to "
        "the batch; the optimiser is left out, so shares of a whole step are smaller still.", "",
    ]  # fmt: skip
    for rows, compared in results:
        lines += [
            f"### {heading(rows[0])}",
            "",
            f"| {' | '.join(COLUMNS)} |",
            "|---" + "|--:" * (len(COLUMNS) - 1) + "|",
        ]
        lines += [*(f"| {' | '.join(cells(row))} |" for row in rows), "", compared, ""]
    return "\n".join(lines[:-1]) + "\n"


if __name__ == "__main__":
    main()
