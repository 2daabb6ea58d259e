"""The command that compares two encoders."""

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table
from tyro.conf import Positional

from melmask.cli.console import console, noted_bar
from melmask.cli.options import NUM_CORES, prepare_task
from melmask.encoders.features import FeatureSettings, Layers, Pooling
from melmask.encoders.fixed_length import ClipLength
from melmask.evaluate.compare import Comparison
from melmask.evaluate.metrics import Score


def compare(
    a: Positional[str],
    b: Positional[str],
    task: tuple[Path, ...],
    probe: tuple[str, ...] = ("logistic",),
    layers: Layers = "last",
    pooling: Pooling = "mean",
    clip_s: ClipLength = "task",
    test_folds: tuple[str, ...] = (),
    seeds: int = 3,
    out: Path | None = None,
    workers: int = NUM_CORES,
) -> None:
    """Compare two encoders on the same clips: their difference with its interval, and how sure it is.

    Args:
        a: a run's folder, or another encoder that `melmask evaluate` takes; untrained-of:RUN is a run's own form
            untrained.
        b: the encoder it is compared with.
        task: CSV files with path,label[,fold][,group].
        probe: how to read labels from frozen embeddings; settings follow a colon, as in fewshot:num_per_class=10.
        layers: of melmask encoders: last, all, or numbers from 1 on.
        pooling: of melmask encoders, over time.
        clip_s: length of each clip in seconds; 0 for whole clips; task for the clip length of a named task.
        test_folds: judge on these folds only; all in turn if none are given.
        seeds: of probes with chance.
        out: a folder for what stands behind each score: classes, confusions and calibration, as tables and pictures.
        workers: processes that decode.
    """
    from melmask.encoders import registry
    from melmask.encoders.registry import specs_of
    from melmask.evaluate import compare as comparing
    from melmask.evaluate.per_class import details_of
    from melmask.files import file_name
    from melmask.report.per_class import save_per_class

    entrants = registry.entrants_of((a, b), FeatureSettings(layers, pooling))
    names = [entrant.name for entrant in entrants]
    for table in task:
        specs = specs_of(entrants)
        stores = [prepare_task(table, spec, workers) for spec in specs]
        with noted_bar(table.stem) as show:
            labelled, pairs = comparing.judge_both(
                entrants,
                table,
                stores,
                probe,
                clip_length=clip_s,
                test_folds=test_folds,
                num_seeds=seeds,
                progress=show,
            )
        print_comparisons([comparing.compare(*pair, labelled, names) for pair in pairs])
        if out is None:
            continue
        for pair in pairs:
            for letter, result in zip("ab", pair, strict=True):
                folder = out / file_name(labelled.name, result.probe, letter)
                console.print(f"wrote [bold]{save_per_class(details_of(result, labelled), folder)}[/]", soft_wrap=True)


def print_comparisons(comparisons: Sequence[Comparison]) -> None:
    """A table with a line for every probe, and under it what each says."""
    first = comparisons[0]
    table = Table(
        title=f"{first.task}: A = {escape(first.name_a)}, B = {escape(first.name_b)}",
        caption=f"{first.metric} in %, 95 % intervals; {first.difference.num_clips:,} test clips",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("probe", overflow="fold")
    for column in ("A", "B", "A - B, paired", "P(A > B)", "only A : only B", "McNemar p"):
        table.add_column(column, justify="right")
    for one in comparisons:
        cells = [_cell(one.a), _cell(one.b), _cell(one.difference, "+")]
        test = one.mcnemar
        exact = (f"{test.num_only_a} : {test.num_only_b}", f"{test.p_value:.2g}") if test else ("", "")
        table.add_row(one.probe, *cells, f"{one.superiority:.3f}", *exact)
    console.print(table)
    for one in comparisons:
        console.print(escape(one.verdict))
    for note in dict.fromkeys(note for one in comparisons for note in one.notes):
        console.print(f"[dim]note: {escape(note)}[/]")


def _cell(score: Score, sign: str = "") -> str:
    value, low, high = (f"{100 * number:{sign}.1f}" for number in (score.value, score.low, score.high))
    return f"[bold]{value}[/]\n[dim]{low} to {high}[/]"
