"""The grid of the study "small" on one accelerator in a few minutes: ten times the samples, in a larger encoder.

``studies/device.sh`` packs its data, runs it and judges what came back; this file is the study, and these steps of it:

    python studies/device.py pack DATA FILE      # all tasks, and as much else to train on as fits, as Opus in one file
    python studies/device.py steps SECONDS       # how many steps every run can take in so many seconds on this machine
    python studies/device.py bring OUT           # what is to be carried back
    python studies/device.py judge OUT DATA      # evaluates the encoders that came back

Settings are environment variables: SIZE (small), STEPS, BATCH, PRECISION (bf16), JOBS (8), ARMS (all), SOUND
(recordings, or procedural), DATA (the folder of the recordings), RUNS (the study's folder), KBIT (12), MAX_MIB (45).
"""

import csv
import dataclasses
import io
import json
import multiprocessing
import os
import random
import statistics
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import soundfile
import torch

from melmask.audio import AudioError, read_audio
from melmask.data.manifest import Clip, read_manifest
from melmask.files import read_lines
from melmask.nn.encoder_file import ENCODER, EncoderFile
from melmask.plan.flops import step_flops
from melmask.runtime import hardware, this_device
from melmask.study.kept import CLIPS, FAILED, TASKS
from melmask.study.kept import RUNS as RUN_FOLDERS
from melmask.study.progress import is_trained, missing, steps_done
from melmask.study.run import DONE, evaluate_run, open_store
from melmask.study.shipped import ARMS, SHORT, SMALL
from melmask.study.study import grid
from melmask.train.loop import pretrain
from melmask.train.recipe import RECIPES, Recipe
from melmask.train.run_folder import LOG, log_values

MORE_SAMPLES = 10  # than the study "small" has, in as many steps
RATE_HZ, MIB = 16_000, 2**20
LOWEST_BIT_S, HIGHEST_BIT_S = 6_000, 256_000  # of Opus in libsndfile, whose compression level lies between them
FILE_BYTES = 120  # that a recording takes in the bundle beside its sound
TRIAL_STEPS, USED_SHARE, START_S, EVALUATION_S = 40, 0.8, 20.0, 40.0
SETTINGS = ("SIZE", "STEPS", "BATCH", "PRECISION", "JOBS", "ARMS", "SOUND")
MAX_FILES, MAX_FILE_MIB, MAX_BACK_MIB = 8, 16, 62


def setting(name: str, default: str) -> str:
    """An environment variable; the default if it is empty."""
    return os.environ.get(name) or default


DATA, RUNS = Path(setting("DATA", "../shared")), Path(setting("RUNS", "out/device-study/study"))


def recipe_of(framework: str) -> Recipe:
    """That of the study "small" in another size, with more samples a step."""
    short, sized = SHORT[framework], RECIPES[f"{setting('SIZE', 'small')}-{framework}"]
    steps = int(setting("STEPS", str(short.steps)))
    return dataclasses.replace(
        short,
        size=sized.size,
        crop_frames=min(short.crop_frames, sized.crop_frames),
        decoder_dim=sized.decoder_dim,
        decoder_depth=sized.decoder_depth,
        decoder_heads=sized.decoder_heads,
        steps=steps,
        batch_size=int(setting("BATCH", str(MORE_SAMPLES * short.batch_size))),
        precision=setting("PRECISION", "bf16"),
        log_every=max(1, steps // 50),
        save_every=max(1, steps // 4),
    )


def sources() -> tuple[str, ...]:
    """What is there of those of the study "small"; or procedural sound."""
    there = tuple(source for source in SMALL.sources if (DATA / source).exists())
    return there if there and setting("SOUND", "recordings") == "recordings" else ("procedural",)


arms = {name: ARMS[name] for name in setting("ARMS", " ".join(ARMS)).split()}
study = dataclasses.replace(
    SMALL,
    name="device",
    cells=grid({framework: recipe_of(framework) for framework in SHORT}, arms),
    sources=sources(),
    exclude=tuple(one for one in SMALL.exclude if one.split(":")[0] in {Path(source).stem for source in sources()}),
    seeds=(0,),
)


def encoded(clip: Path) -> bytes:
    """A recording as Ogg Opus; empty if it cannot be read."""
    buffer = io.BytesIO()
    level = 1 - (1000 * float(setting("KBIT", "12")) - LOWEST_BIT_S) / (HIGHEST_BIT_S - LOWEST_BIT_S)
    try:
        sound = read_audio(clip, RATE_HZ)
    except AudioError as error:
        print(f"left out: {error}", file=sys.stderr)
        return b""
    soundfile.write(buffer, sound, RATE_HZ, format="OGG", subtype="OPUS", compression_level=level)
    return buffer.getvalue()


def packed_name(clip: Clip, data: Path) -> str:
    """Of a recording in the bundle."""
    name = clip.path.relative_to(data.absolute()).as_posix()
    return name if name.endswith(".opus") else f"{name}.opus"


def pack(data: Path, file: Path) -> None:
    """Write the study's data as one file: all clips of the tasks, and of the other sources a random part that fits."""
    tables = list(dict.fromkeys(task.table for task in SMALL.tasks))
    others = [source for source in sources() if source not in (*tables, "procedural")]
    listed = {name: read_manifest(data / name) for name in (*tables, *others)}
    more = [clip for name in others for clip in listed[name]]
    random.Random(0).shuffle(more)
    of_tasks = [clip for name in tables for clip in listed[name]]
    left = float(setting("MAX_MIB", "45")) * MIB
    names, started = set[str](), time.monotonic()
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w:gz") as bundle, multiprocessing.get_context("spawn").Pool() as pool:
        needed = {packed_name(clip, data): clip.path for clip in of_tasks}
        extra = {packed_name(clip, data): clip.path for clip in more if packed_name(clip, data) not in needed}
        wanted = {**needed, **extra}
        for name, content in zip(wanted, pool.imap(encoded, wanted.values(), chunksize=16), strict=True):
            if name in extra and left < len(content) + FILE_BYTES:
                break
            if content:
                left -= len(content) + FILE_BYTES
                names.add(name)
                add(bundle, name, content)
        for name, clips in listed.items():
            add(bundle, name, table_of([clip for clip in clips if packed_name(clip, data) in names], data / name, data))
    took = f"{len(names):,} of {len(wanted):,} recordings in {time.monotonic() - started:.0f} s"
    print(f"{file}: {file.stat().st_size / MIB:.1f} MiB, {took}; {len(extra.keys() - names):,} do not fit")
    if left < 0:
        raise SystemExit("the tasks alone are larger than MAX_MIB: lower KBIT")


def table_of(clips: Sequence[Clip], table: Path, data: Path) -> bytes:
    """The rows of a table whose recordings are in the bundle."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label", "fold", "group"))
    for clip in clips:
        path = os.path.relpath(packed_name(clip, data), table.parent.relative_to(data))
        writer.writerow((path, clip.label or "", clip.fold or "", clip.group or ""))
    return text.getvalue().encode()


def add(bundle: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    bundle.addfile(entry, io.BytesIO(content))


def trial(folder: Path) -> None:
    """Train the baseline of MSM-MAE for some steps."""
    recipe = dataclasses.replace(recipe_of("msm-mae"), steps=TRIAL_STEPS, log_every=TRIAL_STEPS // 2)
    pretrain(recipe, open_store(study.at(DATA), RUNS), folder)


def steps(seconds: float) -> int:
    """How many steps all runs can take within some seconds, trial and evaluations included; no more than asked for."""
    started, jobs, folders = time.monotonic(), int(setting("JOBS", "8")), RUNS.parent / "trial"
    open_store(study.at(DATA), RUNS)
    context = multiprocessing.get_context("spawn")
    trials = [context.Process(target=trial, args=(folders / str(number),)) for number in range(jobs)]
    for one in trials:
        one.start()
    for one in trials:
        one.join()
    logs = [read_lines(folders / str(number) / LOG, log_values)[0] for number in range(jobs)]
    rate = jobs * statistics.median(log[-1]["samples_per_s"] for log in logs if log)
    flops = [step_flops(cell.recipe, open_store(study.at(DATA), RUNS).spec.num_mels).per_step for cell in study.cells]
    base = next(flop for cell, flop in zip(study.cells, flops, strict=True) if cell.recipe.framework == "msm-mae")
    recipe, rounds = recipe_of("msm-mae"), -(-len(study.runs) // jobs)
    left_s = seconds - (time.monotonic() - started) - rounds * START_S - EVALUATION_S
    found = int(USED_SHARE * left_s * rate / (recipe.batch_size * sum(flops) / base))
    print(f"{rate:,.0f} crops/s in {jobs} runs at once: {found} steps fit", file=sys.stderr)
    return max(TRIAL_STEPS, min(found, recipe.steps))


def standing() -> Iterator[dict[str, object]]:
    """Of every run: how far it is, and what is missing of it."""
    store = open_store(study.at(DATA), RUNS)
    for run in study.at(DATA).runs:
        done, lacks = steps_done(RUNS / RUN_FOLDERS / run.name), missing(study.at(DATA), RUNS, run, store)
        yield {"run": run.name, "steps": done, "of_steps": run.recipe.steps, "missing": lacks}


def bring(out: Path) -> None:
    """Write results, logs, and the encoders of finished runs in half precision, as many as may be carried."""
    out.mkdir(parents=True, exist_ok=True)
    rows = list(standing())
    about = {"device": hardware(this_device()), "settings": {key: setting(key, "") for key in SETTINGS}}
    with tarfile.open(out / "study.tar.gz", "w:gz") as bundle:
        add(bundle, "standing.json", json.dumps({**about, "runs": rows}, indent=1).encode())
        kept = [RUNS / name for name in ("results.jsonl", CLIPS, TASKS, FAILED)]
        for path in [*kept, *sorted(RUNS.glob(f"{RUN_FOLDERS}/*/*.json*"))]:
            if path.exists():
                add(bundle, path.relative_to(RUNS).as_posix(), path.read_bytes())
    sizes = [(out / "study.tar.gz").stat().st_size]
    for row in rows:
        folder, file = RUNS / RUN_FOLDERS / str(row["run"]), out / f"{row['run']}.safetensors"
        said = "not finished"
        if is_trained(folder, int(str(row["of_steps"]))):
            EncoderFile.load(folder / ENCODER).save(file, torch.float16)
            size = file.stat().st_size
            fits = size <= MAX_FILE_MIB * MIB and sum(sizes) + size <= MAX_BACK_MIB * MIB and len(sizes) < MAX_FILES
            said = "brought back" if fits else f"too much to bring back ({size / MIB:.1f} MiB)"
            sizes.append(size) if fits else file.unlink()
        lacks = ", ".join(map(str, row["missing"])) or "nothing"
        print(f"{row['run']}: {row['steps']} of {row['of_steps']} steps, missing: {lacks}; encoder {said}")


def judge(out: Path, data: Path) -> None:
    """Unpack what came back to OUT/study, and evaluate its encoders on the whole recordings, to OUT/judged."""
    with tarfile.open(out / "study.tar.gz") as bundle:
        bundle.extractall(out / "study", filter="data")
    (out / "judged").mkdir(exist_ok=True)
    found = study.at(data)
    for run in found.runs:
        if (file := out / f"{run.name}.safetensors").exists():
            status = evaluate_run(found, out / "judged", run, file)
            print(f"{run.name}: {'judged' if status == DONE else f'failed in part, see {FAILED}'}", flush=True)


if __name__ == "__main__":
    do, *paths = sys.argv[1:]
    if do == "pack":
        pack(*map(Path, paths))
    elif do == "steps":
        print(steps(float(paths[0])))
    elif do == "bring":
        bring(Path(paths[0]))
    else:
        judge(*map(Path, paths))
