"""The command detect: events in recordings."""

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table
from tyro.conf import Positional

from melmask.cli.console import answer, command_line, console, noted_bar, print_next, print_notes, print_path
from melmask.cli.options import AllowDuplicates, Encoder, File, SavedModel, Seeds, TableFile, TestFolds, Workers
from melmask.detect.run import Detection
from melmask.encoders.features import FeatureSettings, Layers
from melmask.evaluation.results import Result


def detect(
    run: Positional[Encoder],
    task: TableFile,
    out: File,
    layers: Layers = "auto",
    test_folds: TestFolds = (),
    seeds: Seeds = 3,
    allow_duplicates: AllowDuplicates = False,
    baselines: bool = True,
    save_model: SavedModel = None,
    workers: Workers = None,
) -> None:
    """Detect events with a frozen encoder and a probe of its time steps.

    Example: melmask detect tiny --task events.csv --out detected.csv

    Events detected in the test folds are written to a table, and scored.

    Args:
        run: the run's folder, an encoder file, or tiny, which comes with melmask.
        task: a CSV with path,onset_s,offset_s,label[,fold][,group], one line an event.
        out: the CSV for detected events, of the same form.
        layers: layers to read: last, all, or numbers from 1 on; auto is what the encoder's file states, else last.
        baselines: also score the encoder untrained and log-mels without one.
        save_model: a folder for a detector that is trained once more, on all recordings of the table, which `melmask
            predict` applies.
    """
    from melmask.cli.steps import exit_if_left_out, prepare_task, print_appended, results_table
    from melmask.detect.events import write_events
    from melmask.detect.run import evaluate_detection
    from melmask.encoders.pretrained import PretrainedEncoder
    from melmask.evaluation.results import append_results
    from melmask.extras import need
    from melmask.models import file
    from melmask.models.training import detector_of_table

    need("events", "melmask detect")
    encoder = PretrainedEncoder.load(run, FeatureSettings(layers))
    store = prepare_task(task, encoder.spec, workers)
    with noted_bar(task.stem) as show:
        results, detection = evaluate_detection(
            encoder,
            task,
            store,
            test_folds=test_folds,
            num_seeds=seeds,
            allow_duplicates=allow_duplicates,
            baselines=baselines,
            command=command_line(),
            progress=show,
        )
    console.print(results_table(results))
    console.print(classes_table(encoder.name, results, detection))
    print_notes(detection.notes)
    write_events(out, detection.events)
    print_path(out, after=f": {sum(map(len, detection.events.values())):,} events")
    if save_model:
        model = detector_of_table(encoder, task, store, results[0], allow_duplicates=allow_duplicates)
        print_path(file.save_model(model, save_model, command=command_line()), "a model for melmask predict: ")
    answer.update(results=results, classes=detection.by_class)
    if Path(run).is_dir():
        print_appended([append_results(Path(run), results)])
    if save_model:
        print_next("melmask", "predict", save_model, "RECORDINGS", "--out", "events_found.csv")
    elif Path(run).is_dir():
        print_next("melmask", "report", run, "--out", "report")
    else:
        print_next("melmask", "detect", run, "--task", task, "--out", out, "--save-model", "detector")
    exit_if_left_out([store.rejected])


def classes_table(name: str, results: Sequence[Result], detection: Detection) -> Table:
    """The scores of one encoder by class."""
    table = Table(title=escape(name), title_justify="left")
    table.add_column("class", overflow="fold")
    for result in results[:2]:
        table.add_column(result.probe, justify="right")
    for label, scores in detection.by_class.items():
        cells = (f"{100 * s.value:.1f} [dim]{100 * s.low:.1f} to {100 * s.high:.1f}[/]" for s in scores)
        table.add_row(escape(label), *cells)
    return table
