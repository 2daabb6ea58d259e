"""Measure the encoder that comes with melmask on six tasks, and write its model card.

    make model-card AUDIO=../shared/audio     # or: PYTHONPATH=tools python -m model_card --audio ../shared/audio

Takes about 20 minutes on two cores. A call that was stopped resumes with the next task.
"""

import argparse
import shutil
import sys
from pathlib import Path

from melmask.cli.console import noted_bar
from melmask.nn import shipped
from model_card import measure
from model_card.card import HERE, RESULTS, card

CARD = "MODEL_CARD.md"


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, measure unless only the text is wanted, and write the card."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--audio", type=Path, default=Path("../shared/audio"), help="folder of the tasks' tables")
    parser.add_argument("--work", type=Path, default=Path("out/model-card"), help="for what is measured so far")
    parser.add_argument("--card", type=Path, default=HERE, help="folder of the template and of results.jsonl")
    parser.add_argument("--text-only", action="store_true", help="measure nothing, write the card of what is there")
    given = parser.parse_args(arguments)
    if not given.text_only:
        missing = measure.missing_tables(given.audio, measure.TASKS)
        if missing:
            sys.exit(
                f"the model card's figures need labelled recordings, and {missing[0]} is not there ({len(missing)} of "
                f"{len(measure.TASKS)} tables are missing): make model-card AUDIO=folder names a folder with "
                f"{', '.join(f'{task.name}.csv' for task in measure.TASKS)}, each with path,label,fold,group; "
                "MODEL_CARD.md says what the tasks are"
            )
        with noted_bar("model card") as show:
            figures = list(measure.measure("shipped:tiny", given.audio, given.work, measure.TASKS, show))
        before = measure.read_figures(given.card / RESULTS)
        measure.write_figures(given.card / RESULTS, figures)
        shutil.rmtree(given.work)  # all is measured: the next call measures again
        largest = measure.changes(before, figures)
        if largest is not None:
            print(f"measured before too: no score differs by more than {100 * largest:.2f} points")
    (shipped.WEIGHTS / CARD).write_text(card(given.card, measure.TASKS), encoding="utf-8")
    print(shipped.WEIGHTS / CARD)


if __name__ == "__main__":
    main()
