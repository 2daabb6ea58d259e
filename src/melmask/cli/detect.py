"""Commands that find events: detect."""

import shlex
import sys
from pathlib import Path

from rich.markup import escape
from rich.table import Table
from tyro.conf import Positional

from melmask.cli.console import console, noted_bar, results_table
from melmask.cli.options import NUM_CORES, prepare_task
from melmask.encoders.features import FeatureSettings, Layers


def detect(
    run: Positional[Path],
    labels: Positional[Path],
    out: Path,
    layers: Layers = "last",
    test_folds: tuple[str, ...] = (),
    seeds: int = 3,
    baselines: bool = True,
    workers: int = NUM_CORES,
) -> None:
    """Learn to detect events from a frozen encoder and strong labels; score on test folds, and write what was detected.

    Args:
        run: the run's folder, or an encoder file.
        labels: a CSV with path,onset_s,offset_s,label[,fold][,group], a line for every event.
        out: the CSV to write detected events of the tested recordings to, in the same form.
        layers: which to read: last, all, or numbers from 1 on.
        test_folds: judge on these folds only; all in turn if none are given.
        seeds: trainings per fold.
        baselines: whether the encoder untrained and log-mels without one stand beside.
        workers: processes that decode.
    """
    from melmask.detect.events import write_events
    from melmask.detect.run import judge_events
    from melmask.encoders.pretrained import PretrainedEncoder
    from melmask.evaluate.results import append_results

    encoder = PretrainedEncoder.load(run, FeatureSettings(layers))
    store = prepare_task(labels, encoder.spec, workers)
    with noted_bar(labels.stem) as show:
        results, detection = judge_events(
            encoder,
            labels,
            store,
            test_folds=test_folds,
            num_seeds=seeds,
            baselines=baselines,
            command=f"melmask {shlex.join(sys.argv[1:])}",
            progress=show,
        )
    console.print(results_table(results))
    by_class = Table(title=encoder.name, title_justify="left")
    by_class.add_column("class", overflow="fold")
    for result in results[:2]:
        by_class.add_column(result.probe, justify="right")
    for label, scores in detection.by_class.items():
        cells = (f"{100 * s.value:.1f} [dim]{100 * s.low:.1f} to {100 * s.high:.1f}[/]" for s in scores)
        by_class.add_row(escape(label), *cells)
    console.print(by_class)
    for note in detection.notes:
        console.print(f"[dim]note: {escape(note)}[/]")
    write_events(out, detection.events)
    console.print(f"[bold]{out}[/]: {sum(map(len, detection.events.values())):,} events", soft_wrap=True)
    if run.is_dir():
        console.print(f"appended to [bold]{append_results(run, results)}[/]", soft_wrap=True)
