"""The command novelty: which recordings differ from known good ones."""

from typing import Annotated

from rich.table import Table
from tyro.conf import arg

from melmask.cli.console import answer, console, named, noted_bar, print_next, print_notes, print_path
from melmask.cli.embed import DEFAULT_ENCODER
from melmask.cli.options import OptionalEncoder, OptionalFile, Workers

NUM_SHOWN = 20
Recordings = Annotated[tuple[str, ...], arg(metavar="SOURCE [SOURCE ...]", help_behavior_hint="(required)")]


def novelty(
    good: Recordings,
    test: Recordings,
    encoder: OptionalEncoder = None,
    false_alarms: float = 0.05,
    neighbours: int = 2,
    out: OptionalFile = None,
    workers: Workers = None,
) -> None:
    """Find recordings that differ from known good ones, as of a machine.

    Example: melmask novelty --good good --test today --out novelty.csv

    Args:
        good: recordings of normal operation, as for embed; those of one group in a manifest are held out together.
        test: recordings to judge.
        encoder: tiny, which comes with melmask, unless another is named.
        false_alarms: share of good recordings that may be called novel; the threshold is set by it, on good recordings
            that are held out in turn.
        neighbours: nearest good recordings whose mean cosine distance is taken.
        out: a CSV to write as well.
    """
    from melmask.cli import steps
    from melmask.collection.novelty import novelty as judge
    from melmask.collection.novelty import write_csv
    from melmask.collection.parts import embedded
    from melmask.encoders.registry import as_encoder

    made = as_encoder(encoder or DEFAULT_ENCODER)
    with noted_bar("embedding") as show:
        known, of_known, rejected = embedded(made, good, workers, show)
        tested, of_tested, more = embedded(made, test, workers, show)
    groups = [clip.group or number for number, clip in enumerate(known)]
    found = judge(of_known, groups, of_tested, false_alarms, neighbours)
    rows = [
        (str(clip.path), float(distance), found.threshold, bool(novel), float(p_value), str(known[nearest].path))
        for clip, distance, novel, p_value, nearest in zip(
            tested, found.distance, found.is_novel, found.p_value, found.nearest.tolist(), strict=True
        )
    ]
    rows.sort(key=lambda row: -row[1])
    table = Table(title=f"{int(found.is_novel.sum()):,} of {len(rows):,} recordings are novel", title_justify="left")
    table.add_column("recording", overflow="fold")
    for column in ("distance", "threshold", "p", "novel"):
        table.add_column(column, justify="right", no_wrap=True)
    for path, distance, threshold, novel, p_value, _ in rows[:NUM_SHOWN]:
        table.add_row(named(path), f"{distance:.4f}", f"{threshold:.4f}", f"{p_value:.3f}", "yes" if novel else "no")
    console.print(table)
    if len(rows) > NUM_SHOWN:
        print_notes([f"the {NUM_SHOWN} most distant of {len(rows):,}; --out FILE writes all of them"])
    if out:
        write_csv(out, ("path", "distance", "threshold", "novel", "p_value", "nearest_good"), rows)
        print_path(out)
    print_notes([f"the threshold holds for a false-alarm rate of {false_alarms:g}, of {len(known):,} good recordings"])
    if rejected or more:
        console.print(steps.rejections_table([*rejected, *more]))
    print_next("melmask", "map", *([encoder] if encoder else []), *test, "--out", "map.html")
    answer.update(threshold=found.threshold, novel=int(found.is_novel.sum()), recordings=len(rows))
    steps.exit_if_left_out([rejected, more])
