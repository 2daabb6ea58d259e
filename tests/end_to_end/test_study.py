"""The study "smoke" on the built-in corpus: trained, evaluated, analysed, and asked what it could have seen."""

import csv

import pytest

from melmask.cli.main import main
from melmask.demo.corpus import make_demo
from melmask.evaluation.results import read_results
from melmask.study.shipped import STUDIES


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_study_smoke_runs_on_the_built_in_corpus(tmp_path, capsys):
    make_demo(tmp_path / "corpus", clips_per_task=60)
    out, study = tmp_path / "smoke", STUDIES["smoke"]
    main(["study", "run", "smoke", "--data", str(tmp_path / "corpus"), "--out", str(out), "--jobs", "0"])
    assert f"{len(study.runs)} of {len(study.runs)} runs" in capsys.readouterr().out
    results = read_results(out / "results.jsonl")
    num_floors = len(study.groups) * len(study.seeds) + 1  # untrained encoders, and log-mel statistics
    assert len(results) == (len(study.runs) + num_floors) * len(study.tasks) * len(study.probes)
    main(["study", "analyse", "smoke", "--out", str(out), "--csv", str(tmp_path / "differences.csv")])
    assert "dwm against random" in capsys.readouterr().out
    with (tmp_path / "differences.csv").open() as file:
        rows = list(csv.DictReader(file))
    # Three arms against random in two frameworks, by two probes: on all tasks, events, others, and on each of two.
    assert len([row for row in rows if row["scope"] == "all tasks"]) == 3 * 2 * 2
    assert all(float(row["low"]) <= float(row["value"]) <= float(row["high"]) for row in rows)
    main(["study", "power", "smoke", "--out", str(out), "--budget-hours", "1", "--run-minutes", "1"])
    assert "with a power of 80 %" in capsys.readouterr().out
