"""What another busy process costs: `make bench`, or `python benchmarks/busy.py --help`."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from page import Table, options_of, publish
from recordings import noise_store, write_noise
from timing import machine, ratio

NUM_CORES = len(os.sched_getaffinity(0))
# How a process computes. OpenMP's own default is 300,000 turns of waiting; `import melmask` makes it 30,000.
FORMS = {
    "all": {"OMP_NUM_THREADS": str(NUM_CORES), "GOMP_SPINCOUNT": "300000"},
    "one": {"OMP_NUM_THREADS": "1"},
    "ours": {},
}
FORMED_BY = ("OMP_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
IDLE_TURNS, BUSY_TURNS, QUICK_TURNS = 4, 3, 1
IDLE_S, BUSY_S, QUICK_SHARE = 5.0, 15.0, 0.3
SETTLE_S = 3.0  # before anything is measured
NUM_CLIPS = 96  # that are embedded

ABOUT = (
    "Every form of a piece of work is a process of its own, and they take turns: first on an idle machine, then beside "
    "one process that computes without end on one core. `all` is as it was before the number of threads followed the "
    "load: all threads, waiting as long as OpenMP does by default; `one` is one thread; `ours` is melmask as it is, "
    "and what it takes to notice the other process is counted. train: steps of "
    "quick-msm-mae; embed: a tiny encoder on a store; probes: logistic, ridge and k-NN on 1,000 clips of 1,920 "
    "features and 50 classes; prepare: 600 WAV files of 10 s into a store, by one worker process a core, by "
    "one, or by as many as it chooses, none for so few. A ratio "
    f"is the median of those within a turn; turns of {IDLE_S:.0f} s idle: {IDLE_TURNS}, of {BUSY_S:.0f} s beside "
    f"the other process: {BUSY_TURNS}."
)
COLUMNS = {
    "work": "",
    "a second": "crops, clips, evaluations, or seconds of sound",
    "all": "as before, idle",
    "ours": "idle",
    "ours/all": "idle",
    "all, busy": "",
    "one, busy": "",
    "ours, busy": "",
    "ours/one": "beside the busy process",
}
UNITS = {"train": "crops", "embed": "clips", "probes": "evaluations", "prepare": "s of sound"}


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["--worker"]:
        worker(arguments[1], sys.stdin, sys.stdout)
        return
    options = options_of(__doc__, arguments, "one short turn: under 3 minutes on two cores")
    measured_on = machine()
    print(measured_on)
    rows = [measure(work, options.quick) for work in WORK]
    publish("busy", "Beside a busy process", f"{ABOUT} Measured on {measured_on}.", [table_of(rows)], rows, options)


def measure(work: str, quick: bool) -> dict[str, Any]:
    """The rates of one piece of work, in every form, idle and busy."""
    share, rates = QUICK_SHARE if quick else 1.0, {}
    with ExitStack() as stack:
        ask = {form: stack.enter_context(process(work, form)) for form in FORMS}
        for form in FORMS:
            ask[form](SETTLE_S * share)
        for _ in range(QUICK_TURNS if quick else IDLE_TURNS):
            for form in ("all", "ours"):
                rates.setdefault(f"{form}_idle", []).append(ask[form](IDLE_S * share))
        for _ in range(QUICK_TURNS if quick else BUSY_TURNS):
            for form in FORMS:
                with busy_process():
                    rates.setdefault(f"{form}_busy", []).append(ask[form](BUSY_S * share))
    return {
        "work": work,
        **{name: statistics.median(of) for name, of in rates.items()},
        "idle_ratio": ratio(rates["ours_idle"], rates["all_idle"]),
        "busy_ratio": ratio(rates["ours_busy"], rates["one_busy"]),
    }


@contextmanager
def process(work: str, form: str) -> Iterator[Callable[[float], float]]:
    """A process that does a piece of work; yields a call that has it work for some seconds and returns its rate."""
    env = {name: value for name, value in os.environ.items() if name not in FORMED_BY} | FORMS[form]
    command = [sys.executable, __file__, "--worker", work]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as running:
        assert running.stdin and running.stdout
        given, answers = running.stdin, running.stdout

        def ask(seconds: float) -> float:
            print(seconds, file=given, flush=True)
            answer = answers.readline()
            if not answer:
                raise RuntimeError(f"the process that measures {work} ended: see its message above")
            return float(answer)

        try:
            ask(1.0)  # what is loaded and allocated first
            yield ask
        finally:
            given.close()


@contextmanager
def busy_process() -> Iterator[None]:
    """One process beside, which computes all the time."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        time.sleep(0.2)
        try:
            yield
        finally:
            busy.kill()


def worker(work: str, asked: IO[str], answers: IO[str]) -> None:
    """Work for as many seconds as each line asks for, and answer with the rate."""
    with tempfile.TemporaryDirectory() as folder:
        pieces = WORK[work](Path(folder))
        for line in asked:
            done, start = 0.0, time.perf_counter()
            while not done or time.perf_counter() - start < float(line):
                done += next(pieces)
            print(done / (time.perf_counter() - start), file=answers, flush=True)
        pieces.close()


# The work: each call of `next` does a piece, and gives how much it was


def training(folder: Path) -> Generator[float, None, None]:
    """Crops of a training's steps."""
    import torch

    from melmask.threads import following_load
    from melmask.train.distributed import World
    from melmask.train.loop import Trainer
    from melmask.train.recipe import RECIPES

    recipe = replace(RECIPES["quick-msm-mae"], steps=10**6, epochs=0.0)
    loader = recipe.make_loader(noise_store(folder, [10.0] * 64))
    trainer = Trainer(recipe, loader, folder / "unused", World(0, 1, torch.device("cpu")), lambda entry: None)
    parts = trainer.parts(0)
    with following_load() as threads:
        for number in range(recipe.steps):
            with threads.step():
                trainer.step(number, parts)
            yield recipe.batch_size


def embedding(folder: Path) -> Generator[float, None, None]:
    """Clips of a store."""
    from melmask.encoders.pretrained import PretrainedEncoder, random_encoder
    from melmask.nn.encoder_file import FrontEnd
    from melmask.nn.vit import SIZES

    store = noise_store(folder, np.linspace(1.0, 6.0, NUM_CLIPS).tolist())
    encoder = random_encoder(SIZES["tiny"], (16, 16))
    frozen = PretrainedEncoder(encoder, FrontEnd(store.spec, store.mean, store.std), 208)
    while True:
        frozen.embed_store(store)
        yield len(store)


def probing(folder: Path) -> Generator[float, None, None]:
    """Evaluations by three probes."""
    from melmask.evaluation.metrics import score_of
    from melmask.probes import make_probe

    rng = np.random.default_rng(0)
    labels = rng.integers(50, size=1000)
    features = (rng.standard_normal((50, 1920))[labels] + 8 * rng.standard_normal((1000, 1920))).astype(np.float32)
    train, valid, test = (slice(0, 600), slice(600, 800), slice(800, 1000))
    probes = [make_probe(name) for name in ("logistic", "ridge", "knn")]
    while True:
        for probe in probes:
            probe.fit_predict(
                features[train], labels[train], features[valid], labels[valid], features[test],
                num_classes=50, multilabel=False, seed=0, score=score_of,
            )  # fmt: skip
            yield 1 / len(probes)


def preparing(folder: Path) -> Generator[float, None, None]:
    """Seconds of sound made a store."""
    from melmask.data.prepare import prepare

    durations_s = [10.0] * 600
    files = write_noise(folder / "noise", durations_s)
    fixed = os.environ.get("OMP_NUM_THREADS")
    num_workers = int(fixed) if fixed else None
    for number in range(10**6):
        prepare([files], folder / f"store-{number}", num_workers=num_workers)
        yield sum(durations_s)


WORK = {"train": training, "embed": embedding, "probes": probing, "prepare": preparing}


def table_of(rows: list[dict[str, Any]]) -> Table:
    cells = [
        [
            row["work"], UNITS[row["work"]], f"{row['all_idle']:.3g}", f"{row['ours_idle']:.3g}",
            f"{row['idle_ratio']:.2f}", f"{row['all_busy']:.3g}", f"{row['one_busy']:.3g}", f"{row['ours_busy']:.3g}",
            f"{row['busy_ratio']:.2f}",
        ]
        for row in rows
    ]  # fmt: skip
    return Table("Done in a second", COLUMNS, cells, num_names=2)


if __name__ == "__main__":
    main()
