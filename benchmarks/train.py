"""How fast training is, where its time goes, how near to the hardware: `make bench`, or `benchmarks/train.py --help`.

Whole steps are timed, data and all, in turns with the plain form of `baseline.py`, and cut into phases as they run.
"""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from baseline import ClipFiles, PlainTrainer
from ceiling import Ceiling, gemm_ceilings
from page import Table, options_of, publish
from recordings import noise_store, write_clip_files
from timing import in_turns, machine, ratio

from melmask.data.loader import Loader
from melmask.data.store import Store
from melmask.plan.flops import TokenCounts, step_flops
from melmask.runtime import keep_freed_memory
from melmask.train.distributed import World
from melmask.train.loop import Trainer
from melmask.train.recipe import RECIPES, Recipe

NUM_CLIPS, CLIP_S = 64, 10.0
STEPS = 10**6  # never reached; the schedules need an end
# A training is at its first step for ever here, where gradients are largest; of later steps next to none are clipped.
FORM = {"patch_shape": (16, 16), "accumulate": 1, "grad_clip": 1e6}
TINY = FORM | {"size": "tiny", "crop_frames": 208, "batch_size": 32}
BASE = FORM | {"size": "base", "crop_frames": 608, "batch_size": 8}
NARROW = {"decoder_dim": 192, "decoder_depth": 4, "decoder_heads": 3}
SETTINGS: dict[str, dict[str, Any]] = {
    "tiny-m2d": TINY | NARROW,
    "tiny-msm-mae": TINY | NARROW,
    "base-m2d": BASE,
    "base-msm-mae": BASE,
}
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
PHASES = ("data", "mask", "forward", "backward", "optimiser", "EMA")
OVERHEAD = ("data", "mask", "optimiser", "EMA")
# Seconds for each alternative; a base step takes that long by itself. The quick form takes one step of each at base
# size after one that warms up, and float32 there at a quarter of the batch.
BUDGET_S, QUICK_S = {"tiny": 6.0, "base": 9.0}, {"tiny": 0.5, "base": 0.1}
QUICK_BATCH = {("base", "float32"): 2}

ABOUT = (
    "M2D and MSM-MAE, 80 mel bands, patches of 16 x 16. tiny: 192 x 12 on crops of 208 frames, predictor and decoder "
    "192 x 4; base: 768 x 12 on crops of 608 frames, predictor 512 x 8, decoder 384 x 4. Random masks, mask ratio 0.7 "
    "for M2D and 0.75 for MSM-MAE. A step is timed whole, from reading clips to the moving average, in turns with a "
    "step of the plain form (benchmarks/baseline.py: shuffle and unshuffle, convolution over all patches, torch's "
    "default AdamW, average parameter by parameter, float32, one .npy file a clip) in one process; no gradient "
    "is large enough to be clipped, as in all but the first steps of a training. A ratio is the "
    "median of those within a turn. GFLOP are exact counts of matrix products. The ceiling is the quickest product "
    "among squares and our layers' shapes, as PyTorch's and as a convolution, timed in the same turns."
)
RESULT_COLUMNS = {
    "framework": "",
    "size": "",
    "dtype": "",
    "batch": "",
    "samples/s": "",
    "plain": "samples/s of the plain float32 form",
    "ratio": "times as fast as the plain form",
    "GFLOP": "of a step, the optimiser's left out",
    "ceiling": "GFLOP/s of the quickest matrix product in that dtype, on the same threads",
    "share": "of the ceiling",
    "of matmul": "share of the quickest product by torch.matmul",
}
NAMES = {"framework": "", "size": "", "dtype": ""}
TIME_COLUMNS = NAMES | {"step": ""} | dict.fromkeys(PHASES, "") | {
    "overhead": "share of data, mask, optimiser and EMA together"
}  # fmt: skip
FLOP_COLUMNS = NAMES | {"batch": ""} | dict.fromkeys(PHASES, "")


def main(arguments: list[str] | None = None) -> None:
    options = options_of(__doc__, arguments, "few steps: under 55 s on two cores")
    measured_on = machine()
    print(measured_on)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), options.quick)
    tables = [results_table(rows), time_table(rows), flop_table(rows)]
    publish("train", "How fast training is", f"{ABOUT} Measured on {measured_on}.", tables, rows, options)


def measure(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """A row for every framework, size and dtype."""
    keep_freed_memory()  # as training does; the plain form, in the same process, gains by it too
    store = noise_store(folder, [CLIP_S] * NUM_CLIPS)
    write_clip_files(store, folder / "clips")
    ceilings = {}
    for name, dtype in DTYPES.items():
        ceilings[ceiling_of(name)], ceilings[matmul_of(name)] = gemm_ceilings(dtype)
    timed = [time_group(name, store, folder, ceilings, quick) for name in SETTINGS]
    return [row_of(dtype, group, ceilings, store) for group in timed for dtype in DTYPES]


@dataclass(frozen=True)
class Group:
    """The times of one framework at one size: of ours and its ceiling in each dtype, and of the plain form."""

    recipes: dict[str, Recipe]
    times: dict[str, list[float]]
    phases: dict[str, list[dict[str, float]]]


def time_group(name: str, store: Store, folder: Path, ceilings: dict[str, Ceiling], quick: bool) -> Group:
    """Steps of the plain form and of ours in turns with the products that are their ceilings, all warmed up."""
    recipe = recipe_of(name)
    recipes = {}
    for dtype in DTYPES:
        batch_size = (QUICK_BATCH if quick else {}).get((recipe.size, dtype), recipe.batch_size)
        recipes[dtype] = dataclasses.replace(recipe, precision=dtype, batch_size=batch_size)
    clips = ClipFiles(folder / "clips", recipe.crop_frames, store.mean, store.std)
    # The optimiser takes as long for a small batch: the plain form must have the same.
    batch_sizes = sorted({each.batch_size for each in recipes.values()})
    plain = {
        plain_at(number): PlainTrainer(dataclasses.replace(recipe, batch_size=number), store.spec.num_mels, clips).step
        for number in batch_sizes
    }
    laps = {dtype: Laps() for dtype in DTYPES}
    with ExitStack() as stack:
        ours = {dtype: stack.enter_context(stepping(recipes[dtype], store, laps[dtype])) for dtype in DTYPES}
        best = {name: ceiling.call for name, ceiling in ceilings.items()}
        calls: dict[str, Callable[[], object]] = {**plain, **ours, **best}
        for call in calls.values():
            call()
        for lap in laps.values():
            lap.steps.clear()
        times = in_turns(calls, (QUICK_S if quick else BUDGET_S)[recipe.size])
    return Group(recipes, times, {dtype: lap.steps for dtype, lap in laps.items()})


def plain_at(batch_size: int) -> str:
    return f"the plain form on a batch of {batch_size}"


def ceiling_of(dtype: str) -> str:
    return f"the quickest product in {dtype}"


def matmul_of(dtype: str) -> str:
    return f"the quickest matmul in {dtype}"


def recipe_of(name: str) -> Recipe:
    return dataclasses.replace(
        RECIPES[name.replace("tiny", "base")], **SETTINGS[name], strategy="random", steps=STEPS, epochs=0.0
    )


class Laps:
    """Cuts steps into phases: the time since the last cut goes to the phase that is named."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self._last_s = 0.0

    def start(self) -> None:
        self.steps.append(dict.fromkeys(PHASES, 0.0))
        self._last_s = time.perf_counter()

    def cut(self, phase: str) -> None:
        now_s = time.perf_counter()
        self.steps[-1][phase] += now_s - self._last_s
        self._last_s = now_s

    def around(self, call: Callable[..., Any], phase: str, before: str) -> Callable[..., Any]:
        """The call, with what it takes going to ``phase`` and what came before it to ``before``."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            self.cut(before)
            result = call(*args, **kwargs)
            self.cut(phase)
            return result

        return timed


@contextmanager
def stepping(recipe: Recipe, store: Store, laps: Laps) -> Iterator[Callable[[], None]]:
    """A call that makes the loop's next step with data from its prefetching loader, and cuts it into phases."""
    loader = Loader(store, crop_frames=recipe.crop_frames, batch_size=recipe.batch_size, seed=0)
    trainer = Trainer(recipe, loader, Path("unused"), World(0, 1, torch.device("cpu")), lambda progress: None)
    trainer.masker.draw = laps.around(trainer.masker.draw, "mask", before="forward")  # type: ignore[method-assign]
    trainer.wrapped = laps.around(trainer.wrapped, "forward", before="forward")  # type: ignore[assignment]
    trainer.model.after_step = laps.around(trainer.model.after_step, "EMA", before="optimiser")  # type: ignore[assignment]
    parts, numbers = trainer.parts(0), iter(range(STEPS))

    def data() -> Iterator[Any]:
        while True:
            yield laps.around(next, "data", before="data")(parts)

    batches = data()

    def step() -> None:
        backward = laps.around(torch.Tensor.backward, "backward", before="forward")
        with mock.patch.object(torch.Tensor, "backward", backward):
            laps.start()
            trainer.step(next(numbers), batches)
            laps.cut("optimiser")

    try:
        yield step
    finally:
        parts.close()


# What is made of it


def row_of(dtype: str, group: Group, ceilings: dict[str, Ceiling], store: Store) -> dict[str, Any]:
    """The figures of one row."""
    recipe, step_s = group.recipes[dtype], group.times[dtype]
    plain_s = group.times[plain_at(recipe.batch_size)]
    flops, phases = step_flops(recipe, store.spec.num_mels), group.phases[dtype][-len(step_s) :]
    taken_s = {phase: statistics.median(step[phase] for step in phases) for phase in PHASES}
    count = TokenCounts.of(recipe, recipe.grid(store.spec.num_mels))
    ema = recipe.outline().cost(count.visible, count.masked).after_step
    operations = {
        "forward": sum(part.forward for part in flops.parts) * recipe.batch_size,
        "backward": sum(part.backward for part in flops.parts) * recipe.batch_size,
        "optimiser": flops.optimiser - ema,
        "EMA": ema,
    }
    products = operations["forward"] + operations["backward"]
    whole_s, rates = statistics.median(step_s), [products / taken for taken in step_s]
    # Of the turns that the steps took too: alone, products are quicker.
    ceiling, matmul = (
        ceilings[of].rates(group.times[of][: len(step_s)]) for of in (ceiling_of(dtype), matmul_of(dtype))
    )
    return {
        "framework": recipe.framework,
        "size": recipe.size,
        "dtype": dtype,
        "batch": recipe.batch_size,
        "samples_per_s": recipe.batch_size / whole_s,
        "baseline_samples_per_s": recipe.batch_size / statistics.median(plain_s),
        "ratio": ratio(plain_s, step_s),
        "ceiling_share": ratio(rates, ceiling),
        "ceiling_gflops": statistics.median(ceiling) / 1e9,
        "matmul_share": ratio(rates, matmul),
        "gflop": products / 1e9,
        "step_s": whole_s,
        **{f"{phase.lower()}_s": taken_s[phase] for phase in PHASES},
        **{f"{phase.lower()}_gflop": operations.get(phase, 0) / 1e9 for phase in PHASES},
        "overhead_share": sum(taken_s[phase] for phase in OVERHEAD) / sum(taken_s.values()),
    }


def results_table(rows: list[dict[str, Any]]) -> Table:
    """Rates, ratios and shares of the ceiling."""
    cells = [
        [
            row["framework"], row["size"], row["dtype"], str(row["batch"]), f"{row['samples_per_s']:.3g}",
            f"{row['baseline_samples_per_s']:.3g}", f"{row['ratio']:.2f}", f"{row['gflop']:.0f}",
            f"{row['ceiling_gflops']:.0f}", f"{row['ceiling_share']:.0%}", f"{row['matmul_share']:.0%}",
        ]
        for row in rows
    ]  # fmt: skip
    return Table("Samples a second", RESULT_COLUMNS, cells, num_names=3)


def time_table(rows: list[dict[str, Any]]) -> Table:
    """Where a step's time goes."""
    cells = [
        [
            *(row[name] for name in NAMES), f"{1e3 * row['step_s']:.1f}",
            *(f"{1e3 * row[f'{phase.lower()}_s']:.1f}" for phase in PHASES), f"{row['overhead_share']:.1%}",
        ]
        for row in rows
    ]  # fmt: skip
    return Table("Milliseconds of a step, and of its phases", TIME_COLUMNS, cells, num_names=3)


def flop_table(rows: list[dict[str, Any]]) -> Table:
    """What a step computes."""
    cells = [
        [
            *(row[name] for name in NAMES), str(row["batch"]),
            *(f"{row[f'{phase.lower()}_gflop']:.3g}" for phase in PHASES),
        ]
        for row in rows
    ]  # fmt: skip
    return Table("GFLOP of a step's phases", FLOP_COLUMNS, cells, num_names=3)


if __name__ == "__main__":
    main()
