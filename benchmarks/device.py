"""One check of an accelerator, of under 9 minutes: does it compute what a CPU does, how fast, and what does it learn?

`make device-check`; on a CPU, or with --quick, the same at micro sizes in a minute. Each part is a function of the
device that gives rows. One that fails leaves its error in its row and stops no other, and all rows so far are written
after each, so that a check that is cut off still has figures. Compiled forms come last: what they take is not known.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from baseline import ClipFiles, PlainTrainer
from device_training import pretraining
from page import Table, write_section
from recordings import noise_store, write_clip_files
from rich.console import Console
from timing import machine
from torch import Tensor

from melmask.data.store import Store
from melmask.files import read_tensors
from melmask.frameworks import FRAMEWORKS
from melmask.masking import STRATEGIES, draw, make_strategy
from melmask.plan.devices import gemm_ceiling
from melmask.plan.flops import step_flops
from melmask.plan.trial import peak_memory, reset_peak_memory
from melmask.train.distributed import World
from melmask.train.loop import Trainer, pretrain
from melmask.train.masker import guide_of
from melmask.train.recipe import RECIPES, Recipe
from melmask.types import PatchGrid

GRID, MASK_RATIO, NUM_CLIPS, CLIP_S = PatchGrid(5, 38), 0.7, 64, 10.0
STEPS = 10**6  # never reached; the schedules need an end
PAPER = {"patch_shape": (16, 16), "crop_frames": 608, "accumulate": 1, "strategy": "dwm"}
BATCHES = {"tiny": 512, "small": 512, "base": 256}
QUICK = {"size": "micro", "crop_frames": 96, "decoder_dim": 32, "decoder_depth": 1, "decoder_heads": 2}
QUICK_BATCH = 4
WARM_UP, NUM_TIMED, QUICK_TIMED, CASE_S = 4, 20, 2, 15.0
BUDGET_S, QUICK_BUDGET_S = 500.0, 60.0
SPEED_SHARE, TRAINED_SHARE = 0.3, 0.8  # of the budget: when no other form is timed, and when pre-training ends
BF16_ROUNDING = 2.0**-8  # of a loss, against float32's
FLOAT32_ROUNDING = 1e-4

ABOUT = (
    "Every mask strategy draws on the device from the CPU's random numbers; losses of both frameworks are compared "
    "with the CPU's in float32; a run that was stopped and resumed is compared with one that was not. Then training "
    "steps as in a run, on crops of 608 frames with DWM, the plain form of benchmarks/baseline.py beside them; and "
    "pre-training on procedural sound in what is left of the time."
)

Rows = list[dict[str, Any]]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="micro sizes")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", default=Path("device.json"), help="all rows")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="put the tables into their section of a page")
    parser.add_argument("--out", type=Path, metavar="FOLDER", default=Path(), help="for the encoder's file")
    parser.add_argument("--budget-s", type=float, metavar="S", help=f"seconds for all parts (default: {BUDGET_S:.0f})")
    options = parser.parse_args(arguments)
    device, quick = torch.device(options.device), options.quick or options.device == "cpu"
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else machine()
    print(named, torch.__version__, flush=True)
    budget_s = options.budget_s or (QUICK_BUDGET_S if quick else BUDGET_S)
    start = time.monotonic()

    def left(share: float) -> float:
        """Seconds until that share of the budget is used up."""
        return budget_s * share - (time.monotonic() - start)

    rows: Rows = []
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = noise_store(folder, [CLIP_S] * (8 if quick else NUM_CLIPS))
        clips = write_clip_files(store, folder / "clips")
        parts: list[tuple[str, Callable[[], Iterator[dict[str, Any]]]]] = [
            ("masks", lambda: masks(device)),
            ("losses", lambda: losses(device, store)),
            ("resume", lambda: resumes(store, folder / "runs")),
            ("speed", lambda: speeds(device, store, clips, quick, ("ours", "plain"), lambda: left(SPEED_SHARE))),
            ("training", lambda: pretraining(folder, options.out, left(TRAINED_SHARE), quick)),
            ("speed", lambda: speeds(device, store, clips, quick, ("compiled",), lambda: left(1.0))),
        ]
        for part, run in parts:
            for row in guarded(run):
                rows.append({"part": part, **row})
                print({name: value for name, value in rows[-1].items() if name != "log"}, flush=True)
                write(rows, options, named)
            print(f"{part}: {budget_s - left(1.0):.0f} s since the start", flush=True)
    for table in tables_of(rows):
        Console(highlight=False).print(table.rich())


def guarded(run: Callable[[], Iterator[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """The rows of a part; the last one has the error if it fails: the other parts are worth having."""
    try:
        yield from run()
    except Exception:
        yield {"error": traceback.format_exc(limit=4)}


def write(rows: Rows, options: argparse.Namespace, named: str) -> None:
    """All rows so far, as JSON and as a section of the page."""
    options.json.write_text(json.dumps(rows, indent=2) + "\n")
    if options.markdown:
        about = f"{ABOUT} Measured on {named}; torch {torch.__version__}."
        text = ["## On an accelerator", "", "```", "make device-check", "```", "", about, ""]
        tables = "\n\n".join(table.markdown() for table in tables_of(rows))
        write_section(options.markdown, "device", "\n".join([*text, tables]))


# (a) The same numbers


def masks(device: torch.device) -> Iterator[dict[str, Any]]:
    """The share of samples whose mask is the CPU's, for every strategy."""
    torch.manual_seed(0)
    patches = torch.randn(16, GRID.num_patches, 256) * torch.rand(16, GRID.num_patches, 1)
    recipe = dataclasses.replace(RECIPES["micro-m2d"], patch_shape=GRID.patch)
    encoders = recipe.make_model().encoders()
    for name in STRATEGIES:
        strategy, losses = make_strategy(name), torch.rand(16, GRID.num_patches, 1)
        guide = guide_of(strategy.needs, encoders, patches, GRID, losses)
        drawn = [
            draw(
                strategy, grid=GRID, batch_size=16, mask_ratio=MASK_RATIO, rng=torch.Generator().manual_seed(1),
                guide=None if guide is None else guide.to(where), hint_ratio=0.5,
            )
            for where in ("cpu", device)
        ]  # fmt: skip
        here, there = (mask.masked.cpu() for mask in drawn)
        yield {"strategy": name, "equal_share": float((here == there).all(dim=1).float().mean())}


def losses(device: torch.device, store: Store) -> Iterator[dict[str, Any]]:
    """How far losses and gradients are from the CPU's in float32."""
    for framework in FRAMEWORKS:
        recipe = recipe_of(framework, "small", quick=True)
        reference, gradient = loss_of(recipe, store, torch.device("cpu"), "float32")
        for precision in ("float32", "bf16"):
            value, own = loss_of(recipe, store, device, precision)
            yield {
                "framework": framework,
                "precision": precision,
                "loss_error": abs(value - reference) / abs(reference),
                "gradient_error": float((own - gradient).norm() / gradient.norm()),
                "bound": FLOAT32_ROUNDING if precision == "float32" else BF16_ROUNDING,
            }


def loss_of(recipe: Recipe, store: Store, device: torch.device, precision: str) -> tuple[float, Tensor]:
    """Loss of the first batch of a fresh model, and the gradient in one vector, on the CPU."""
    made = trainer_of(dataclasses.replace(recipe, precision=precision), store, device)
    loss = made.loss(0, 0, next(made.parts(0)))
    loss.value.backward()
    gradients = [weight.grad.flatten().cpu() for weight in made.model.parameters() if weight.grad is not None]
    return float(loss.value.detach()), torch.cat(gradients)


def resumes(store: Store, folder: Path) -> Iterator[dict[str, Any]]:
    """Whether a run that was stopped half-way ends as one that was not; on the device that a user's run would take."""
    for framework in FRAMEWORKS:
        recipe = dataclasses.replace(recipe_of(framework, "small", quick=True), steps=6, save_every=3, log_every=1)
        whole, halves = folder / f"{framework}-whole", folder / f"{framework}-halves"
        pretrain(recipe, store, whole, num_threads=1)
        stop_after(3, recipe, store, halves)
        pretrain(recipe, store, halves, resume=True, num_threads=1)
        ends = [read_tensors(run / "checkpoint.safetensors")[0] for run in (whole, halves)]
        different = [name for name, tensor in ends[0].items() if not torch.equal(tensor, ends[1][name])]
        worst = max((float((ends[0][n].float() - ends[1][n].float()).abs().max()) for n in different), default=0.0)
        yield {"framework": framework, "tensors": len(ends[0]), "different": len(different), "worst": worst}


class Stopped(Exception):
    """Stands for a kill."""


def stop_after(step: int, recipe: Recipe, store: Store, run: Path) -> None:
    """Train, and stop as a kill would, after a checkpoint."""

    def report(entry: Any) -> None:
        if entry.step > step:
            raise Stopped

    with suppress(Stopped):
        pretrain(recipe, store, run, num_threads=1, report=report)


# (b) How fast


def speeds(
    device: torch.device, store: Store, clips: Path, quick: bool, forms: Sequence[str], left: Callable[[], float]
) -> Iterator[dict[str, Any]]:
    """Samples a second of whole steps, in every form; what there is no time left for is named."""
    for framework, size, form in itertools.product(FRAMEWORKS, BATCHES, forms):
        if form == "compiled" and device.type == "cpu":
            continue  # a compiler that this machine may lack
        recipe = recipe_of(framework, size, quick)
        case = {"framework": framework, "size": size, "form": form, "batch": recipe.batch_size}
        if left() <= 0:
            yield {**case, "error": f"{framework} {size} {form}: no time was left"}
            continue
        flops = sum(part.forward + part.backward for part in step_flops(recipe, store.spec.num_mels).parts)
        num_steps = QUICK_TIMED if quick else NUM_TIMED
        yield {**case, **timed(form, recipe, store, clips, device, num_steps, flops)}


def timed(
    form: str, recipe: Recipe, store: Store, clips: Path, device: torch.device, num_steps: int, flops: float
) -> dict[str, Any]:  # fmt: skip
    """The rate of one form, its share of the ceiling and its memory; or its error."""
    mask_share = 0.0
    try:
        ceiling = ceiling_of(device)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        reset_peak_memory(device)
        if form == "plain":
            step, made = plain_step(recipe, store, clips, device), None
        else:
            made = trainer_of(recipe, store, device)
            if form == "compiled":
                made.wrapped = torch.compile(made.wrapped)  # type: ignore[assignment]
            parts, numbers = made.parts(0), iter(range(STEPS))
            step = lambda: made.step(next(numbers), parts)  # noqa: E731
        taken = seconds_of_steps(step, device, num_steps, made)
        if made is not None:
            mask_share = made.masker.timer.take() / sum(taken)
    except Exception as error:  # the other forms are worth having
        return {"error": f"{recipe.framework} {recipe.size} {form}: {type(error).__name__}: {error}"[:400]}
    step_s = statistics.median(taken)
    return {
        "samples_per_s": recipe.batch_size / step_s,
        "ceiling_share": flops * recipe.batch_size / step_s / ceiling,
        "ceiling_tflops": ceiling / 1e12,
        "mask_share": mask_share,
        "peak_bytes": peak_memory(device),
    }


@functools.cache
def ceiling_of(device: torch.device) -> float:
    """Operations a second of the quickest product of squares in bf16, measured once."""
    return gemm_ceiling(device, torch.bfloat16)


def seconds_of_steps(
    step: Callable[[], object], device: torch.device, num_steps: int, made: Trainer | None
) -> list[float]:
    """Seconds of each step after some to warm up, within the budget."""
    for _ in range(WARM_UP):
        step()
    if made is not None:
        made.masker.timer.take()
    taken: list[float] = []
    while len(taken) < num_steps and (sum(taken) < CASE_S or len(taken) < 2):
        synchronise(device)
        start = time.perf_counter()
        step()
        synchronise(device)
        taken.append(time.perf_counter() - start)
    return taken


def plain_step(recipe: Recipe, store: Store, clips: Path, device: torch.device) -> Callable[[], object]:
    """A step of the plain form, in float32, on the device."""
    plain = PlainTrainer(
        dataclasses.replace(recipe, batch_size=min(recipe.batch_size, len(store))), store.spec.num_mels,
        ClipFiles(clips, recipe.crop_frames, store.mean, store.std),
    )  # fmt: skip
    plain.model.to(device)
    batches, repeats = plain.batches, recipe.batch_size // min(recipe.batch_size, len(store))

    def on_device() -> Iterator[Tensor]:
        while True:
            yield torch.cat([next(batches) for _ in range(repeats)]).to(device)

    plain.batches = on_device()
    return plain.step


# What they share


def recipe_of(framework: str, size: str, quick: bool) -> Recipe:
    """The paper's form at a size, or the smallest form of a framework."""
    recipe = dataclasses.replace(
        RECIPES[f"base-{framework}"], **PAPER, size=size, batch_size=BATCHES[size], steps=STEPS, epochs=0.0,
        precision="bf16", warmup=0.0,
    )  # fmt: skip
    return dataclasses.replace(recipe, **QUICK, batch_size=QUICK_BATCH) if quick else recipe


def trainer_of(recipe: Recipe, store: Store, device: torch.device) -> Trainer:
    return Trainer(recipe, recipe.make_loader(store), Path("unused"), World(0, 1, device), lambda entry: None)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def tables_of(rows: Rows) -> list[Table]:
    """A table for every part."""
    names = ("masks", "losses", "resume", "speed", "training")
    of = {part: [row for row in rows if row["part"] == part] for part in names}
    errors = [[row["part"], one_line(str(row["error"]))] for row in rows if "error" in row]
    fine = {part: [row for row in found if "error" not in row] for part, found in of.items()}
    tables = [
        Table(
            "Masks", {"strategy": "", "equal": "share of samples whose mask is the CPU's"},
            [[row["strategy"], f"{row['equal_share']:.0%}"] for row in fine["masks"]],
        ),
        Table(
            "Losses, against the CPU's in float32",
            {"framework": "", "precision": "", "loss": "relative error", "gradient": "likewise", "bound": "of loss"},
            [
                [row["framework"], row["precision"]]
                + [f"{row[key]:.1e}" for key in ("loss_error", "gradient_error", "bound")]
                for row in fine["losses"]
            ],
            num_names=2,
        ),
        Table(
            "Resumed after half of the steps",
            {"framework": "", "tensors": "", "different": "from a run that was not stopped", "worst": "difference"},
            [
                [row["framework"], str(row["tensors"]), str(row["different"]), f"{row['worst']:.1e}"]
                for row in fine["resume"]
            ],
        ),
        Table(
            "Samples a second in bf16; of the plain form, in float32",
            {
                "framework": "", "size": "", "form": "", "batch": "", "samples/s": "", "TFLOP/s": "",
                "share": "of the quickest product of squares", "masks": "share of a step", "GiB": "at the peak",
            },
            [
                [
                    row["framework"], row["size"], row["form"], str(row["batch"]), f"{row['samples_per_s']:.0f}",
                    f"{row['ceiling_share'] * row['ceiling_tflops']:.3g}", f"{row['ceiling_share']:.0%}",
                    f"{row['mask_share']:.1%}", f"{row['peak_bytes'] / 2**30:.1f}",
                ]
                for row in fine["speed"]
            ],
            num_names=3,
        ),
        *map(training_table, fine["training"]),
        Table("What failed", {"part": "", "error": ""}, errors, num_names=2),
    ]  # fmt: skip
    return [table for table in tables if table.rows]


def one_line(error: str) -> str:
    """The last line of an error, as a cell of a table."""
    return error.strip().splitlines()[-1].replace("|", "/")


def training_table(row: dict[str, Any]) -> Table:
    """The log of the pre-training on procedural sound, under a title that sums it up."""
    whole = "" if row["complete"] else f" of {row['of_steps']:,}, when the time was up"
    title = (
        f"Pre-training of {row['recipe']} ({row['strategy']}, {row['size']}) on procedural sound: {row['steps']:,} "
        f"steps{whole} of {row['batch']} crops in {row['seconds']:.0f} s, {row['samples_per_s']:,.0f} crops a second; "
        f"the encoder has {row['encoder_bytes'] / 2**20:.1f} MiB"
    )
    columns = {"step": "", "loss": "", "rank": "effective, of the encoder's features", "crops/s": "since the last line"}
    columns |= {"masks": "share of the time", "s": "since the start"}
    lines = [
        [
            f"{line['step']}", f"{line['loss']:.4f}", f"{line['effective_rank']:.1f}", f"{line['samples_per_s']:.0f}",
            f"{line['mask_share']:.1%}", f"{line['elapsed_s']:.0f}",
        ]
        for line in row["log"]
    ]  # fmt: skip
    return Table(title, columns, lines)


if __name__ == "__main__":
    main()
