"""Faults of run folders: what they hold, how they are resumed, and how they end."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from faults import damage
from faults.catalogue import fault
from faults.verdict import CRASHED, LOST, SAFE, WRONG, Verdict, judged, same
from faults.workshop import RECIPE, Bench, equal, lines_of, weights
from melmask.data.store import Store
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.encoders.registry import load
from melmask.nn.encoder_file import ENCODER
from melmask.study.runs import read_runs
from melmask.train.loop import pretrain
from melmask.train.run_folder import CHECKPOINT, DATA, LOG, own_recipe, read_log
from melmask.train.run_folder import RECIPE as RECIPE_FILE

RUNS, END, RESUME, SIGNALS, LOCKS = "artefacts: runs", "the end of a run", "resume", "signals and kills", "locks"
LINES, LEFTOVERS = "JSON lines", "leftovers"
NUM_STEPS = RECIPE.steps


def judge_weights(bench: Bench) -> Callable[[dict[str, Tensor]], Verdict]:
    """Whether a run has ended with the weights of one that nothing happened to."""
    return lambda found: same(equal(found, bench.shop.weights), "other weights")


def resumed(bench: Bench, run: Path, names: tuple[object, ...], must: str = "") -> Verdict:
    """A run is refused, or ends with the right weights and a whole log."""
    verdict = judged(lambda: bench.resume(run), judge_weights(bench), names, must)
    if verdict.kind == SAFE and verdict.why.startswith("the result"):
        steps = [line["step"] for line in lines_of(run / LOG)]
        if steps != list(range(1, NUM_STEPS + 1)):
            return Verdict(LOST, f"the log has the steps {steps}")
    return verdict


@fault(RUNS, "a killed run is resumed whose checkpoint is damaged", damage.OF_BINARY.items())
def damaged_checkpoint(bench: Bench, case: Callable[[Path], None]) -> Verdict:
    case(bench.half / CHECKPOINT)
    return resumed(bench, bench.half, (CHECKPOINT,))


@fault(RUNS, "a damaged checkpoint of a complete run, which is resumed", damage.OF_BINARY.items())
def damaged_last_checkpoint(bench: Bench, case: Callable[[Path], None]) -> Verdict:
    case(bench.run / CHECKPOINT)
    return resumed(bench, bench.run, (CHECKPOINT,))


@fault(RUNS, "its encoder file is damaged, then loaded", damage.OF_BINARY.items())
def damaged_encoder(bench: Bench, case: Callable[[Path], None]) -> Verdict:
    case(bench.run / ENCODER)
    return judged(lambda: PretrainedEncoder.load(bench.run), lambda _: same(False), (ENCODER,))


@fault(END, "a complete run is resumed whose encoder file is damaged", damage.OF_BINARY.items())
def encoder_made_again(bench: Bench, case: Callable[[Path], None]) -> Verdict:
    case(bench.run / ENCODER)
    return resumed(bench, bench.run, (ENCODER,), must="work")


@fault(END, "a run is killed between its last checkpoint and its encoder, then resumed")
def stale_encoder(bench: Bench) -> Verdict:
    shutil.copy(bench.half / ENCODER, bench.run / ENCODER)
    return resumed(bench, bench.run, (ENCODER,), must="work")


@fault(END, "the disk is full at the last encoder, then resumed")
def full_at_the_end(bench: Bench) -> Verdict:
    encoder = bench.run / ENCODER
    encoder.unlink()
    encoder.with_name(f"{ENCODER}.1.tmp").write_bytes(b"half of it")
    verdict = resumed(bench, bench.run, (ENCODER,), must="work")
    return Verdict(WRONG, "a leftover stays") if list(bench.run.glob("*.tmp")) else verdict


@fault(RUNS, "its recipe is damaged, then resumed", damage.OF_TEXT.items())
def damaged_recipe(bench: Bench, case: Callable[[Path], None]) -> Verdict:
    case(bench.half / RECIPE_FILE)
    return own_resumed(bench, (RECIPE_FILE, bench.half))


def own_resumed(bench: Bench, names: tuple[object, ...]) -> Verdict:
    """A run is resumed with the recipe in its folder, as the command does."""

    def resume() -> dict[str, Tensor]:
        recipe = own_recipe(bench.half)
        if recipe is None:
            raise ValueError(f"{bench.half} holds no run: start it without resume")
        return bench.resume(bench.half, recipe)

    return judged(resume, judge_weights(bench), names)


VALUES: dict[str, Any] = {
    "a text for a number": {"steps": "six"}, "a list for a number": {"batch_size": [4]},
    "no number": {"learning_rate": float("nan")}, "none": {"mask_ratio": None}, "a number for a text": {"strategy": 3},
    "an unknown strategy": {"strategy": "none"}, "an unknown setting": {"colour": "red"},
    "options that are a list": {"framework_options": [1]}, "patches of one side": {"patch_shape": [16]},
    "another learning rate": {"learning_rate": 0.5}, "another seed": {"seed": 3},
}  # fmt: skip


@fault(RUNS, "its recipe has another value, then resumed with it", VALUES.items())
def another_recipe(bench: Bench, case: dict[str, Any]) -> Verdict:
    damage.edit(bench.half / RECIPE_FILE, lambda values: values.update(case))
    return own_resumed(bench, (RECIPE_FILE, bench.half, next(iter(case))))


@fault(RUNS, "data.json is damaged, then resumed", damage.OF_TEXT.items())
def damaged_data(bench: Bench, case: Callable[[Path], None]) -> Verdict:
    case(bench.half / DATA)
    return resumed(bench, bench.half, (DATA,))


@fault(RUNS, "a run of which a file is damaged is read for a report", [
    (name, (name, act)) for name in (RECIPE_FILE, DATA, "results.jsonl") for act in (damage.cut, damage.garbage)
])  # fmt: skip
def damaged_for_report(bench: Bench, case: tuple[str, Callable[[Path], None]]) -> Verdict:
    name, act = case
    act(bench.run / name)

    def judge(runs: Any) -> Verdict:
        if name == "results.jsonl" and act is damage.cut:
            return Verdict(LOST, "results are missing") if len(runs[0].results) < 2 else Verdict(SAFE, "the rest")
        return Verdict(LOST, f"without {name}") if name != DATA else same(not runs[0].data)

    return judged(lambda: read_runs([bench.run]), judge, (name,))


@fault(RUNS, "an encoder that is kept along a run is damaged", [("flipped", damage.flip), ("removed", damage.remove)])
def damaged_kept(bench: Bench, case: Callable[[Path], None]) -> Verdict:
    case(bench.run / "encoders" / "3.safetensors")
    return judged(lambda: load(f"{bench.run}@3"), lambda _: same(False), ("3.safetensors", f"{bench.run}"))


@fault(RESUME, "where there is no run, as after a typo")
def resume_nothing(bench: Bench) -> Verdict:
    verdict = judged(lambda: bench.resume(bench.folder / "typo"), lambda _: same(False), ("typo",), must="refuse")
    return Verdict(WRONG, "a folder is made") if (bench.folder / "typo" / RECIPE_FILE).exists() else verdict


@fault(RESUME, "where the recipe is lost beside a checkpoint")
def resume_without_recipe(bench: Bench) -> Verdict:
    (bench.half / RECIPE_FILE).unlink()
    verdict = resumed(bench, bench.half, (bench.half,))
    if verdict.why.startswith("refused") and (bench.half / RECIPE_FILE).exists():
        return Verdict(WRONG, "a recipe is written beside another one's checkpoint")
    return verdict


@fault(RESUME, "with another recipe")
def resume_with_another(bench: Bench) -> Verdict:
    recipe = replace(RECIPE, learning_rate=0.5)
    return judged(lambda: bench.resume(bench.half, recipe), lambda _: same(False), (bench.half,), must="refuse")


@fault(RESUME, "on another store")
def resume_on_another(bench: Bench) -> Verdict:
    from melmask.data.prepare import prepare

    (bench.audio / "7.wav").unlink()
    other = prepare([bench.audio], bench.folder / "other", num_workers=0)
    call = lambda: pretrain(RECIPE, other, bench.half, resume=True, num_threads=1)  # noqa: E731
    return judged(call, lambda _: same(False), (bench.half,), must="refuse")


@fault(RESUME, "a new run in the folder of another")
def start_over(bench: Bench) -> Verdict:
    before = weights(bench.run / ENCODER)
    call = lambda: pretrain(RECIPE, Store.open(bench.store), bench.run, num_threads=1)  # noqa: E731
    verdict = judged(call, lambda _: same(False), (bench.run,), must="refuse")
    return verdict if equal(before, weights(bench.run / ENCODER)) else Verdict(LOST, "the run is overwritten")


@fault(RESUME, "a recipe of 0 bytes, as after a full disk, in an otherwise empty folder")
def empty_recipe(bench: Bench) -> Verdict:
    new = bench.folder / "new"
    new.mkdir()
    (new / RECIPE_FILE).touch()
    call = lambda: pretrain(RECIPE, Store.open(bench.store), new, num_threads=1)  # noqa: E731
    return judged(call, lambda done: same(equal(weights(new / ENCODER), bench.shop.weights)), (new,))


@fault(LINES, "log.jsonl is damaged, then the run is resumed", [
    ("its last line is torn", damage.tear), ("a quote is lost", damage.lose_quote), ("it is emptied", damage.empty),
    ("it is removed", damage.remove), ("it is bytes without sense", damage.garbage),
])  # fmt: skip
def damaged_log(bench: Bench, case: Callable[[Path], None]) -> Verdict:
    path = bench.half / LOG
    case(path)
    left = path.read_bytes() if path.exists() else b""
    verdict = judged(lambda: bench.resume(bench.half), judge_weights(bench), (LOG,), must="work")
    kept = {line["step"] for line in lines_of(path)}
    readable = {line["step"] for line in _readable(left)} | {4, 5, 6}
    if verdict.kind == SAFE and not readable <= kept:
        return Verdict(LOST, f"of the log's steps {sorted(readable)} are left {sorted(kept)}")
    return verdict


def _readable(text: bytes) -> list[dict[str, Any]]:
    import json

    found = []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [line for line in found if isinstance(line, dict) and line.get("step", 9) <= 3]


@fault(LINES, "log.jsonl is read with a lost quote in its first line")
def quote_lost(bench: Bench) -> Verdict:
    damage.lose_quote(bench.run / LOG)
    return judged(lambda: read_log(bench.run), lambda log: same(len(log) == 5, f"{len(log)} lines are left"), (LOG,))


RUN_LEFT = ("recipe.json.9.tmp", "checkpoint.safetensors.9.tmp", "encoders/3.safetensors.9.tmp")


@fault(LEFTOVERS, "of a killed writer in a run, then resumed", [(name, (name,)) for name in RUN_LEFT])
def leftover(bench: Bench, case: tuple[str]) -> Verdict:
    path = bench.half / case[0]
    path.write_bytes(b"left over")
    verdict = resumed(bench, bench.half, (path.name,), must="work")
    return Verdict(WRONG, f"{path.name} is still there") if path.exists() else verdict


LONG = ("--recipe", "micro-msm-mae", "--steps", "100000", "--save-every", "20", "--log-every", "1", "--batch-size", "4")


def started(bench: Bench, run: Path, *more: str, **options: Any) -> "subprocess.Popen[str]":
    """Start a long training in a process of its own, and wait for its first checkpoint."""
    line = [sys.executable, "-m", "melmask", "pretrain", str(bench.store), "--out", str(run), *LONG, *more]
    given = {"env": bench.shop.environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup the training would ignore it, as it should
    try:
        process = subprocess.Popen(line, **(given | options))  # type: ignore[call-overload]
    finally:
        signal.signal(signal.SIGHUP, before)
    ends = time.monotonic() + 90
    while not (run / ENCODER).exists() and process.poll() is None and time.monotonic() < ends:
        time.sleep(0.05)
    return process


def end(process: "subprocess.Popen[str]") -> None:
    """Kill a process that this one started."""
    if process.poll() is None:
        process.kill()
    process.communicate()


@fault(SIGNALS, "a training gets", [("SIGTERM", signal.SIGTERM), ("SIGINT", signal.SIGINT), ("SIGHUP", signal.SIGHUP)],
       slow=True)  # fmt: skip
def stopped(bench: Bench, case: int) -> Verdict:
    run = bench.folder / "new"
    process = started(bench, run)
    try:
        time.sleep(0.3)
        process.send_signal(case)
        said = process.communicate(timeout=60)[0]
    except subprocess.TimeoutExpired:
        return Verdict(CRASHED, "it does not end")
    finally:
        end(process)
    logged, saved = lines_of(run / LOG)[-1]["step"], _step(run)
    if saved < logged:
        return Verdict(LOST, f"saved at step {saved}, trained to {logged}; {said[-100:]}")
    return Verdict(SAFE, "saved") if "Resume" in said or "resume" in said else Verdict(WRONG, said[-200:])


def _step(run: Path) -> int:
    from melmask.files import read_tensors

    return int(read_tensors(run / CHECKPOINT)[1]["step"])


@fault(SIGNALS, "the reader of a training's output goes away", slow=True)
def closed_pipe(bench: Bench) -> Verdict:
    run = bench.folder / "new"
    process = started(bench, run)
    try:
        assert process.stdout is not None
        process.stdout.close()
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        return Verdict(CRASHED, "it does not end")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    logged, saved = lines_of(run / LOG)[-1]["step"], _step(run)
    return Verdict(SAFE, "saved") if saved >= logged else Verdict(LOST, f"saved at {saved}, trained to {logged}")


@fault(SIGNALS, "a training is killed by SIGKILL, then resumed to the end", [(f"after {s} s", s) for s in (0.1, 0.7)],
       slow=True)  # fmt: skip
def killed(bench: Bench, case: float) -> Verdict:
    run, store = bench.folder / "new", Store.open(bench.store)
    process = started(bench, run, "--schedule", "wsd", "--warmup", "0", "--threads", "1")
    time.sleep(case)
    end(process)
    recipe = own_recipe(run)
    assert recipe is not None
    num = 2 * _step(run) + 30  # so that the learning rate has not begun to fall
    recipe = replace(recipe, steps=num)
    judge = lambda done: same(done and equal(weights(run / ENCODER), weights(bench.folder / "whole" / ENCODER)))  # noqa: E731

    def finish() -> bool:
        pretrain(recipe, store, bench.folder / "whole", num_threads=1)
        return pretrain(recipe, store, run, resume=True, num_threads=1)

    return judged(finish, judge, must="work")


@fault(SIGNALS, "prepare is killed by SIGKILL, then called again", slow=True)
def prepare_killed(bench: Bench) -> Verdict:
    from faults.workshop import content, make_recordings
    from melmask.data.prepare import prepare

    table, new = make_recordings(bench.folder / "many", num=300), bench.folder / "new"
    line = [sys.executable, "-m", "melmask", "prepare", str(table), "--out", str(new), "--workers", "0"]
    process = subprocess.Popen(line, env=bench.shop.environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    while process.poll() is None and not list(new.glob("shards/*")):
        time.sleep(0.02)
    process.kill()
    process.wait()
    whole = content(prepare([table], bench.folder / "whole", num_workers=0))
    return judged(
        lambda: content(prepare([table], new, num_workers=0)), lambda found: same(found == whole), must="work"
    )


@fault(LOCKS, "a run is resumed while another process trains it", slow=True)
def two_resumes(bench: Bench) -> Verdict:
    run = bench.folder / "new"
    process = started(bench, run)
    try:
        recipe = own_recipe(run)
        call = lambda: pretrain(recipe, Store.open(bench.store), run, resume=True, num_threads=1)  # noqa: E731
        return judged(call, lambda _: same(False, "two write one run"), (run,), must="refuse")
    finally:
        end(process)


@fault(LOCKS, "a store is prepared to other sources while a run trains on it", slow=True)
def prepared_under_a_run(bench: Bench) -> Verdict:
    from melmask.data.prepare import prepare

    run = bench.folder / "new"
    process = started(bench, run)
    try:
        (bench.audio / "7.wav").unlink()
        call = lambda: prepare([bench.audio], bench.store, num_workers=0)  # noqa: E731
        verdict = judged(call, lambda _: Verdict(SAFE, "prepared"), (bench.store,))
        time.sleep(1)
        if process.poll() is not None:
            return Verdict(CRASHED, f"the training died: {(process.communicate()[0] or '')[-200:]}")
        return verdict
    finally:
        end(process)


@fault(LOCKS, "a lock outlives its process, which is killed", slow=True)
def lock_outlives(bench: Bench) -> Verdict:
    run = bench.folder / "new"
    end(started(bench, run))
    recipe = own_recipe(run)
    assert recipe is not None

    def stop(entry: Any) -> None:
        raise KeyboardInterrupt

    def resume() -> None:
        try:
            pretrain(recipe, Store.open(bench.store), run, resume=True, num_threads=1, report=stop)
        except KeyboardInterrupt:
            return

    return judged(resume, lambda _: Verdict(SAFE, "resumed"), must="work")
