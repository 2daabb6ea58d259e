"""Copy the numbers of a study's folder to one that is kept in the repository: no recordings, weights or paths.

python tools/study_numbers.py out/small studies/small --study small --study ablations
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from melmask.evaluation.results import RESULTS
from melmask.files import write_text
from melmask.study.curves import CURVES, collect_curves
from melmask.study.kept import CLIPS, TASKS
from melmask.study.shipped import STUDIES
from melmask.study.study import load_study

COPIED = (RESULTS, CLIPS, TASKS, CURVES)


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, bring the curves up to date, and copy every line but those that another replaces."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help="the study's folder")
    parser.add_argument("target", type=Path, help="the folder to write")
    parser.add_argument("--study", action="append", required=True, help="whose curves are kept; repeatable")
    given = parser.parse_args(arguments)
    for name in given.study:
        collect_curves(load_study(name, STUDIES), given.source)
    given.target.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        if (given.source / name).exists():
            lines = [without_folders(line) for line in (given.source / name).read_text(encoding="utf-8").splitlines()]
            if name == CURVES:
                lines = last_of_each_run(lines)
            write_text(given.target / name, "".join(f"{line}\n" for line in lines))
            print(f"{given.target / name}: {len(lines)} lines")


def without_folders(line: str) -> str:
    """A line with the file's name in place of each table's path.

    >>> without_folders('{"task_path": "/home/me/esc50.csv"}')
    '{"task_path": "esc50.csv"}'
    """
    values = json.loads(line)
    if "task_path" in values:
        values["task_path"] = Path(values["task_path"]).name
    return json.dumps(values)


def last_of_each_run(lines: Sequence[str]) -> list[str]:
    """The lines of curves without those that were written before their run had ended.

    >>> last_of_each_run(['{"run": "a", "step": [20]}', '{"run": "b", "step": [40]}', '{"run": "a", "step": [40]}'])
    ['{"run": "a", "step": [40]}', '{"run": "b", "step": [40]}']
    """
    return list({json.loads(line)["run"]: line for line in lines}.values())


if __name__ == "__main__":
    main()
