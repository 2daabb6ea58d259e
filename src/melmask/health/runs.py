"""The health of what was learned: runs, encoder files, trained models, and the folders of studies."""

from collections.abc import Iterator
from pathlib import Path

from melmask.data.store import DESCRIPTION, read_info
from melmask.evaluation import comparisons, results
from melmask.evaluation.comparisons import COMPARISONS
from melmask.evaluation.results import RESULTS
from melmask.files import read_tensors, select_prefix
from melmask.finetune.model import HEAD
from melmask.finetune.run import CHECKPOINT as TRAINING
from melmask.finetune.run import FOLDER, PREDICTIONS
from melmask.health.parts import Part, check_finite, json_lines, leftovers, part, there, within
from melmask.health.stores import check_store, is_store
from melmask.models.file import MODEL, load_model
from melmask.nn.encoder_file import ENCODER, EncoderFile
from melmask.study.curves import CURVES, RunCurves
from melmask.study.kept import CLIPS, FAILED, RUNS, STORE, TASKS, Failure, RightAnswers, TestedClips, line_maker
from melmask.study.submit import JOBS, Submitted
from melmask.train.average import AVERAGE
from melmask.train.checkpoint import MODEL as TRAINED
from melmask.train.initial import read_initial
from melmask.train.recipe import Recipe
from melmask.train.run_folder import (
    CHECKPOINT,
    DATA,
    INIT,
    LOG,
    RECIPE,
    STABLE,
    kept_encoder,
    kept_steps,
    log_values,
    read_data,
)

OF_STUDIES = {CLIPS: RightAnswers, TASKS: TestedClips, FAILED: Failure, CURVES: RunCurves, JOBS: Submitted}
LINES = {
    LOG: log_values,
    COMPARISONS: comparisons.from_line,
    **{name: line_maker(line) for name, line in OF_STUDIES.items()},
}


def check_run(run: Path) -> Iterator[Part]:
    """Its recipe, data, checkpoints and encoders, what was logged, and fine-tunings in it."""
    yield part(RECIPE, lambda: Recipe.load(run / RECIPE))
    yield part(DATA, lambda: _same_data(run))
    yield from (part(name, lambda name=name: read_tensors(run / name)) for name in there(run, CHECKPOINT, STABLE))  # type: ignore[misc]
    yield part(ENCODER, lambda: _encoder_of_run(run))
    for step in kept_steps(run):
        kept = kept_encoder(run, step)
        yield part(str(kept.relative_to(run)), lambda kept=kept: check_encoder(kept))  # type: ignore[misc]
    if (run / INIT).exists():
        yield part(INIT, lambda: read_initial(run))
    yield from (check_lines(run / name) for name in there(run, LOG, RESULTS, COMPARISONS))
    yield from _finetunings(run)
    yield from leftovers(run)


def is_run(path: Path) -> bool:
    """Whether a path is the folder of a run, also of one that has lost a part."""
    return bool(there(path, RECIPE, CHECKPOINT, ENCODER))


def _same_data(run: Path) -> str:
    data = read_data(run)
    if not data:
        raise ValueError(f"{run / DATA} is lost: restore it from a copy; a run without it cannot be resumed")
    store = Path(data["store"])
    if (store / DESCRIPTION).exists() and read_info(store)["fingerprint"] != data["fingerprint"]:
        return f"the store {store} holds other data by now: prepare its sources as they were, to resume the run"
    return ""


def _encoder_of_run(run: Path) -> str:
    file = check_encoder(run / ENCODER)
    if not (run / CHECKPOINT).exists():
        return ""
    try:
        tensors, _ = read_tensors(run / CHECKPOINT)
    except ValueError:
        return ""  # that is a fault of the checkpoint
    own = select_prefix(tensors, AVERAGE) or select_prefix(tensors, f"{TRAINED}encoder.")
    if file.holds(own):
        return ""
    return f"{run / ENCODER} is not that of the last checkpoint: resume the run, which writes it again"


def _finetunings(run: Path) -> Iterator[Part]:
    """Every training of `melmask finetune` in a run's folder, finished or not."""
    for folder in sorted({path.parent for path in run.glob(f"{FOLDER}/*/*/*.safetensors")}):
        yield from within(run, folder, _training(folder))


def _training(folder: Path) -> Iterator[Part]:
    if (folder / HEAD).exists():
        yield from check_model(folder)
    for name in there(folder, TRAINING, PREDICTIONS):
        yield part(name, lambda name=name: read_tensors(folder / name))  # type: ignore[misc]


def check_encoder(path: Path) -> EncoderFile:
    """What an encoder file holds; raises ValueError unless that is an encoder with finite weights."""
    file = EncoderFile.load(path)
    check_finite(path, list(file.encoder.state_dict().items()))
    return file


def check_model(path: Path) -> Iterator[Part]:
    """What predicts, and its encoder."""
    folder = path if path.is_dir() else path.parent
    name = MODEL if (folder / MODEL).exists() else HEAD
    if (folder / ENCODER).exists():
        yield part(ENCODER, lambda: check_encoder(folder / ENCODER))
    yield part(name, lambda: _check_predictor(folder, name))
    yield from leftovers(folder)


def is_model(path: Path) -> bool:
    """Whether a path is the folder of a trained model, or its file."""
    return bool(there(path, MODEL, HEAD)) or (path.is_file() and path.name in (MODEL, HEAD))


def _check_predictor(folder: Path, name: str) -> None:
    check_finite(folder / name, list(read_tensors(folder / name)[0].items()))
    load_model(folder)


def check_study(folder: Path) -> Iterator[Part]:
    """Its lines, its store, and every run."""
    yield from (check_lines(folder / name) for name in there(folder, RESULTS, *OF_STUDIES))
    if is_store(folder / STORE):
        yield from within(folder, folder / STORE, check_store(folder / STORE))
    for run in sorted(path for path in folder.glob(f"{RUNS}/*") if is_run(path)):
        yield from within(folder, run, check_run(run))
    yield from leftovers(folder)


def is_study(path: Path) -> bool:
    """Whether a path is the folder of a study, with or without its runs."""
    return bool(there(path, CLIPS, TASKS)) or any(is_run(run) for run in path.glob(f"{RUNS}/*"))


def check_lines(path: Path) -> Part:
    """A file of JSON lines, by its name."""
    return json_lines(path, LINES.get(path.name, results.from_line))
