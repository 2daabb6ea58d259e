"""What a budget of two cores teaches: the score of each trial of a recipe after the same processor time.

    python benchmarks/learning.py --data open.csv --audio labelled/ --out out/learning --budget-s 600 --seeds 0 1

Every trial is trained on the same recordings for as many steps as the budget allows, and read by the same probes on
folds that no reported score uses: the judges' folds are left out of everything here. A call that was stopped goes on.
What was found is kept as OUT/*.json, which are enough to go on elsewhere (those of docs/performance.md: copy
studies/learning/*.json to OUT): a trial has the steps that its budget allowed where a step of it was timed first, with
any budget and seed, whatever the machine that trains it.
"""

import argparse
import csv
import dataclasses
import json
import re
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from page import Table, publish
from timing import machine

import melmask
from melmask.data.store import Store
from melmask.encoders.features import Pooling
from melmask.train.loop import pretrain
from melmask.train.recipe import RECIPES, Recipe
from melmask.train.run_folder import RECIPE

# Task: (the fold that judges, which is left out; the fold that is read here).
FOLDS = {
    "esc50": ("5", "4"),
    "philharmonia_chroma12": ("4", "3"),
    "fsdd_digits10": ("6", "5"),
    "ravdess_emotion8": ("6", "5"),
    "arabic_keywords20": ("test", "val"),
}
# Ridge has a fixed strength, so that trials are read alike: the probe's own choice is 1 for some features and 0.1 for
# others, which differ by up to 6 points in the task of digits (LOG.md).
PROBES = {"logistic": "logistic", "ridge": "ridge:strengths=(1.0,)", "knn": "knn"}
POOLING: Pooling = "mean+std"
NUM_CORES = 2
WARM_UP_STEPS, TIMED_STEPS = 4, 24

MUON = {"optimiser": "muon", "learning_rate": 1e-3}
CROSS = {"decoder": "cross", "decoded_share": 0.5}
CROSS_ALONE = MUON | {"patch_shape": (16, 16), "framework_options": CROSS}
M2D = {"framework": "m2d", "mask_ratio": 0.7, "framework_options": RECIPES["quick-m2d"].framework_options}
BEFORE_MIXING = {"tiny-msm-mae": {"decoder_depth": 2, "mixed_share": 0.0}}  # of a recipe, before it took these over
# Changes of the recipe tiny-msm-mae, which is "mixed-shallow-decoder"; "before" is what it was in LOG.md's runs of
# 2026-11-25, and those after "cross" are changes of that.
TRIALS: dict[str, dict[str, Any]] = {
    "before": {"optimiser": "adamw", "learning_rate": 5e-4, "patch_shape": (8, 16), "framework_options": {}},
    "16x16": {"optimiser": "adamw", "learning_rate": 5e-4, "patch_shape": (16, 16), "framework_options": {}},
    "muon": MUON | {"patch_shape": (16, 16), "framework_options": {}},
    "cross": CROSS_ALONE,
    "cross-8x16": CROSS_ALONE | {"patch_shape": (8, 16)},
    "cross-quarter": CROSS_ALONE | {"framework_options": CROSS | {"decoded_share": 0.25}},
    "shallow-decoder": CROSS_ALONE | {"decoder_depth": 1},
    "masked-90": CROSS_ALONE | {"mask_ratio": 0.9},
    "agreement": CROSS_ALONE | {"framework_options": CROSS | {"agreement": 0.1}},
    "averaged": CROSS_ALONE | {"weights_ema": 0.99},
    "mixed": CROSS_ALONE | {"mixed_share": 0.5},
    "mixed-shallow-decoder": CROSS_ALONE | {"mixed_share": 0.5, "decoder_depth": 1},
    "stretched": CROSS_ALONE | {"mixed_share": 0.5, "decoder_depth": 1, "stretched_share": 0.5},
    "batch-128": CROSS_ALONE | {"batch_size": 128, "learning_rate": 1.4e-3},
    "stable": CROSS_ALONE | {"schedule": "wsd"},
    "dwm": CROSS_ALONE | {"strategy": "dwm"},
    "procedural-25": CROSS_ALONE | {"procedural_share": 0.25},
    "procedural-50": CROSS_ALONE | {"procedural_share": 0.5},
    "procedural-100": CROSS_ALONE | {"procedural_share": 1.0},
    "m2d": CROSS_ALONE | M2D,
}
ABOUT = (
    "Accuracy in %, mean over esc50 fold 4, philharmonia_chroma12 fold 3, fsdd_digits10 fold 5, ravdess_emotion8 fold "
    "5 and arabic_keywords20 val, of features pooled as mean+std; probes were trained on the other folds but those "
    "that judge, ridge with a strength of 1. The budget is processor time, so other work beside a trial costs little."
)
COLUMNS = {
    "trial": "a change of the recipe `tiny-msm-mae`, which is *mixed-shallow-decoder*: see `TRIALS` in the script",
    "minutes": "of two cores, the budget",
    "seeds": "",
    "steps": "",
    "crops": "thousands that were trained on",
    **dict.fromkeys(PROBES, ""),
    "all": "mean of the three, and over seeds; with more than one, the deviation between them",
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders or manifests to train on")
    parser.add_argument("--audio", type=Path, required=True, help="the folder with the labelled tasks' manifests")
    parser.add_argument("--out", type=Path, default=Path("out/learning"))
    parser.add_argument("--budget-s", type=float, default=600.0, help="seconds of two cores for each trial")
    parser.add_argument(
        "--trials", type=trial_of, nargs="+", default=[trial_of(name) for name in TRIALS],
        metavar="NAME[@SECONDS][:SEED,SEED]", help="with a budget of its own, and seeds; default: all",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the trials that name none")
    parser.add_argument("--every", type=int, default=1, help="train the probes on every n-th clip only")
    parser.add_argument("--recipe", default="tiny-msm-mae", choices=list(RECIPES), metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one row of figures for every line")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="put the table into its section of a page")
    options = parser.parse_args(arguments)
    planned = [
        (trial, options.budget_s if own_s is None else own_s, own or options.seeds)
        for trial, own_s, own in options.trials
    ]
    before = BEFORE_MIXING.get(options.recipe, {})
    tasks = list(development_tasks(options.audio, options.out / "tasks", options.every))
    store = melmask.prepare(options.data, options.out / "store")
    rows: list[dict[str, Any]] = []
    forms: dict[str, tuple[str, Path]] = {}
    for trial, budget_s, seeds in planned:
        for seed in seeds:
            recipe = dataclasses.replace(RECIPES[options.recipe], **before | TRIALS[trial], seed=seed)
            run = options.out / f"{trial}-{budget_s:g}s-seed{seed}"
            trained = train(recipe, store, run, budget_s)
            found = scores(run, tasks, scores_file(run))
            rows.append({"trial": trial, "minutes": budget_s / 60, "seed": seed, **trained, **found})
            print(rows[-1], flush=True)
            form = "{} x {}".format(*recipe.patch_shape)
            forms.setdefault(form, (f"untrained-of:{run}", options.out / f"untrained-{form.replace(' ', '')}.json"))
    floor = {"minutes": 0, "seed": options.seeds[0], "steps": 0, "crops": 0}
    for form, (encoder, kept) in forms.items():
        rows.append({"trial": f"untrained, patches of {form}", **floor, **scores(encoder, tasks, kept)})
    floor["trial"] = "log-mel statistics"
    rows.append(floor | scores("logmel-stats", tasks, options.out / f"statistics-{options.every}.json"))
    budgets = " and ".join(f"{budget_s / 60:g}" for budget_s in sorted({budget_s for _, budget_s, _ in planned}))
    title = f"What {budgets} minutes of two cores teach"
    hours = sum(stored.num_frames for stored in store.clips) / store.spec.frames_per_s / 3600
    data = f"Trained on {hours:.2f} h of {', '.join(path.stem for path in options.data)}."
    timed_on = [re.sub(", load .* at the start", "", row["machine"]) for row in rows if "machine" in row]
    machines = " and on ".join(dict.fromkeys(timed_on))
    about = f"{ABOUT} {data} Steps were timed on {machines}."
    command = f"python benchmarks/{{name}}.py {shlex.join(arguments or sys.argv[1:])}"
    publish("learning", title, about, [table_of(rows)], rows, options, command)


def trial_of(text: str) -> tuple[str, float | None, list[int]]:
    """Name of a trial, and its own budget in seconds and seeds, None and no seeds where it has none.

    Args:
        text: as on the command line, NAME[@SECONDS][:SEED,SEED].

    Raises:
        argparse.ArgumentTypeError: there is no such trial, or its budget or a seed is no number.
    """
    trial, _, seeds = text.partition(":")
    trial, _, budget_s = trial.partition("@")
    if trial not in TRIALS:
        raise argparse.ArgumentTypeError(f"no trial {trial!r}: choose from {', '.join(TRIALS)}")
    try:
        return trial, float(budget_s) if budget_s else None, [int(seed) for seed in seeds.split(",") if seeds]
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no trial, as {error}: give NAME[@SECONDS][:SEED,SEED]"
        ) from error


def development_tasks(audio: Path, out: Path, every: int) -> Iterator[Path]:
    """The tasks without the folds that judge: a manifest each, with the folds "test" (that is read here) and "train".

    Args:
        audio: the folder with their manifests.
        out: the folder to write them to.
        every: keep every n-th clip of the training part.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name, (judge, read) in FOLDS.items():
        with (audio / f"{name}.csv").open(newline="") as file:
            clips = [clip for clip in csv.DictReader(file) if clip["fold"] != judge]
        kept = [clip for i, clip in enumerate(clips) if clip["fold"] == read or i % every == 0]
        path = out / f"{name}.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(clips[0]))
            writer.writeheader()
            for clip in kept:
                fold = "test" if clip["fold"] == read else "train"
                writer.writerow(clip | {"path": str((audio / clip["path"]).resolve()), "fold": fold})
        yield path


def train(recipe: Recipe, store: Store, run: Path, budget_s: float) -> dict[str, Any]:
    """Train for the budget, or find that it was done; returns steps, thousands of crops and what a step takes."""
    plan = Path(f"{run}.json")
    if not plan.exists():
        run.parent.mkdir(parents=True, exist_ok=True)
        timed = timed_before(run) or {"step_s": processor_s_of_a_step(recipe, store), "machine": machine()}
        plan.write_text(json.dumps({"steps": round(NUM_CORES * budget_s / timed["step_s"]), **timed}))
    found = json.loads(plan.read_text())
    if not scores_file(run).exists():
        recipe = dataclasses.replace(recipe, steps=found["steps"])
        if not pretrain(recipe, store, run, resume=(run / RECIPE).exists()):
            raise SystemExit(f"{run} was interrupted and saved: the same call resumes it")
    return found | {"crops": found["steps"] * recipe.batch_size / 1000}


def timed_before(run: Path) -> dict[str, Any] | None:
    """What a step takes, and on which machine, of the same trial with another budget or seed; None without one."""
    trial = run.name.rpartition("-seed")[0].rpartition("-")[0]
    for plan in sorted(run.parent.glob(f"{trial}-*.json")):
        if re.fullmatch(r"[\d.]+s-seed\d+", plan.stem.removeprefix(f"{trial}-")):
            found = json.loads(plan.read_text())
            return {"step_s": found["step_s"], "machine": found["machine"]}
    return None


def scores_file(run: Path) -> Path:
    """Where the scores of a run are kept, beside its folder: with them, the run itself is not needed any more."""
    return Path(f"{run}-scores.json")


def processor_s_of_a_step(recipe: Recipe, store: Store) -> float:
    """Processor time of a step over all threads, data and all, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        seen: list[float] = []
        steps = WARM_UP_STEPS + TIMED_STEPS
        timed = dataclasses.replace(recipe, steps=steps, log_every=WARM_UP_STEPS, save_every=10**9)
        pretrain(timed, store, Path(folder) / "run", report=lambda entry: seen.append(time.process_time()))
    return (seen[-1] - seen[0]) / TIMED_STEPS


def scores(encoder: str | Path, tasks: Sequence[Path], saved: Path) -> dict[str, Any]:
    """The score of each probe on each task in %, and their means; kept in a file, so that it is computed once."""
    if not saved.exists():
        probes = list(PROBES.values())
        results = melmask.evaluate(str(encoder), tasks, probes=probes, pooling=POOLING, baselines=False, num_seeds=1)
        kept = {f"{result.task} {result.probe.partition(':')[0]}": 100 * result.score for result in results}
        saved.write_text(json.dumps(kept))
    found = json.loads(saved.read_text())
    means = {probe: statistics.fmean(of(found, probe)) for probe in PROBES}
    return {**found, **means, "all": statistics.fmean(means.values())}


def of(found: dict[str, float], probe: str) -> Iterable[float]:
    """The scores of a probe, over tasks."""
    return (score for name, score in found.items() if name.endswith(f" {probe}"))


def table_of(rows: Sequence[dict[str, Any]]) -> Table:
    lines = []
    for trial, minutes in dict.fromkeys((row["trial"], row["minutes"]) for row in rows):
        mine = [row for row in rows if (row["trial"], row["minutes"]) == (trial, minutes)]
        means = [statistics.fmean(row[name] for row in mine) for name in (*PROBES, "all")]
        cells = [f"{mean:.1f}" for mean in means]
        if len(mine) > 1:
            cells[-1] += f" ± {statistics.stdev(row['all'] for row in mine):.1f}"
        steps = f"{statistics.fmean(row['steps'] for row in mine):,.0f}"
        crops = f"{statistics.fmean(row['crops'] for row in mine):,.0f}"
        lines.append([trial, f"{minutes:g}", str(len(mine)), steps, crops, *cells])
    return Table("Score after the budget", COLUMNS, lines)


if __name__ == "__main__":
    main()
