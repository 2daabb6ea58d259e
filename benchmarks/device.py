"""One check of an accelerator, of a few minutes: does everything compute there what it computes on a CPU, and how fast?

`make device-check`; on a CPU, or with --quick, the same at sizes that take seconds. Each part is a function of the
device that gives rows, and one that fails leaves its error in its row and stops no other.
"""

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from baseline import ClipFiles, PlainTrainer
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
WARM_UP, NUM_TIMED, QUICK_TIMED, BUDGET_S = 4, 20, 2, 20.0
BF16_ROUNDING = 2.0**-8  # of a loss, against float32's
FLOAT32_ROUNDING = 1e-4

ABOUT = (
    "Every mask strategy draws on the device from the CPU's random numbers; losses of both frameworks are compared "
    "with the CPU's in float32; a run that was stopped and resumed is compared with one that was not. Then training "
    "steps as in a run, on crops of 608 frames with DWM, the plain form of benchmarks/baseline.py beside them."
)

Rows = list[dict[str, Any]]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="micro sizes")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", default=Path("device.json"), help="all rows")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="put the tables into their section of a page")
    options = parser.parse_args(arguments)
    device, quick = torch.device(options.device), options.quick or options.device == "cpu"
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else machine()
    print(named, torch.__version__, flush=True)
    rows: Rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = noise_store(folder, [CLIP_S] * (8 if quick else NUM_CLIPS))
        parts: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
            "masks": lambda: masks(device),
            "losses": lambda: losses(device, store),
            "resume": lambda: resumes(store, folder / "runs"),
            "speed": lambda: speeds(device, store, folder / "clips", quick),
        }
        for part, run in parts.items():
            start = time.perf_counter()
            try:
                for row in run():
                    rows.append({"part": part, **row})
                    print(rows[-1], flush=True)
                    options.json.write_text(json.dumps(rows, indent=2) + "\n")
            except Exception:  # the other parts are worth having
                rows.append({"part": part, "error": traceback.format_exc(limit=4)})
                print(rows[-1]["error"], flush=True)
            print(f"{part}: {time.perf_counter() - start:.0f} s", flush=True)
    options.json.write_text(json.dumps(rows, indent=2) + "\n")
    tables = tables_of(rows)
    for table in tables:
        Console(highlight=False).print(table.rich())
    if options.markdown:
        about = f"{ABOUT} Measured on {named}; torch {torch.__version__}."
        text = ["## On an accelerator", "", "```", "make device-check", "```", "", about, ""]
        write_section(options.markdown, "device", "\n".join([*text, "\n\n".join(table.markdown() for table in tables)]))


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


def speeds(device: torch.device, store: Store, clips: Path, quick: bool) -> Iterator[dict[str, Any]]:
    """Samples a second of whole steps, of ours, compiled and not, and of the plain form."""
    write_clip_files(store, clips)
    ceiling = gemm_ceiling(device, torch.bfloat16)
    for framework in FRAMEWORKS:
        for size in BATCHES:
            recipe = recipe_of(framework, size, quick)
            flops = sum(part.forward + part.backward for part in step_flops(recipe, store.spec.num_mels).parts)
            for form in ("ours", "compiled", "plain"):
                if form == "compiled" and device.type == "cpu":
                    continue  # a compiler that this machine may lack
                yield {
                    "framework": framework, "size": size, "form": form, "batch": recipe.batch_size,
                    **timed(form, recipe, store, clips, device, QUICK_TIMED if quick else NUM_TIMED, flops, ceiling),
                }  # fmt: skip


def timed(
    form: str, recipe: Recipe, store: Store, clips: Path, device: torch.device, num_steps: int, flops: float,
    ceiling: float,
) -> dict[str, Any]:  # fmt: skip
    """The rate of one form, its share of the ceiling and its memory; or its error."""
    mask_share = 0.0
    try:
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
        return {"error": f"{type(error).__name__}: {error}"[:400]}
    step_s = statistics.median(taken)
    return {
        "samples_per_s": recipe.batch_size / step_s,
        "ceiling_share": flops * recipe.batch_size / step_s / ceiling,
        "ceiling_tflops": ceiling / 1e12,
        "mask_share": mask_share,
        "peak_bytes": peak_memory(device),
    }


def seconds_of_steps(
    step: Callable[[], object], device: torch.device, num_steps: int, made: Trainer | None
) -> list[float]:
    """Seconds of each step after some to warm up, within the budget."""
    for _ in range(WARM_UP):
        step()
    if made is not None:
        made.masker.timer.take()
    taken: list[float] = []
    while len(taken) < num_steps and (sum(taken) < BUDGET_S or len(taken) < 2):
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
    of = {part: [row for row in rows if row["part"] == part] for part in ("masks", "losses", "resume", "speed")}
    errors = [[row["part"], str(row["error"]).strip().splitlines()[-1]] for row in rows if "error" in row]
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
        Table("What failed", {"part": "", "error": ""}, errors, num_names=2),
    ]  # fmt: skip
    return [table for table in tables if table.rows]


if __name__ == "__main__":
    main()
