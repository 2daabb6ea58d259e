"""comparisons.jsonl: what is compared is kept with the runs, read once, and shown."""

import json
from pathlib import Path

import pytest

from melmask.cli.main import main
from melmask.evaluation.comparisons import COMPARISONS, read_comparisons
from melmask.evaluation.results import read_results
from melmask.report.comparisons import comparisons_section
from melmask.report.page import Figures


@pytest.fixture(scope="module")
def compared(recordings: Path, store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, compared with its untrained form by the command."""
    folder = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MELMASK_CACHE", str(folder / "cache"))
        run = str(folder / "run")
        main(["pretrain", str(store.folder), "--recipe", "micro-msm-mae", "--steps", "2", "--out", run])
        probes = ["--probe", "knn", "logistic"]
        main(["compare", run, f"untrained-of:{run}", "--task", str(recordings), *probes])
        main(["compare", run, f"untrained-of:{run}", "--task", str(recordings), "--probe", "knn"])
    return folder / "run"


def test_comparisons_of_a_run_are_kept_and_the_newest_is_read(compared: Path) -> None:
    assert len((compared / COMPARISONS).read_text().splitlines()) == 3
    kept = read_comparisons([compared, compared])
    assert [one.comparison.probe for one in kept] == ["knn", "logistic"]
    one = kept[0].comparison
    assert (one.task, one.name_a) == ("chirps", "run") and one.name_b.endswith("untrained")
    assert one.difference.value == pytest.approx(one.a.value - one.b.value) and one.mcnemar is not None
    assert kept[0].version == "0.1.0"


def test_scores_of_compared_runs_are_results_of_theirs(compared: Path) -> None:
    (knn, logistic) = read_results(compared)
    kept = read_comparisons([compared])
    assert (knn.score, logistic.score) == tuple(one.comparison.a.value for one in kept)
    assert knn.features == "encoder" and knn.probe == "knn"


def test_lines_that_are_no_comparisons_are_named(compared: Path, tmp_path: Path) -> None:
    line = (compared / COMPARISONS).read_text().splitlines()[0]
    (tmp_path / COMPARISONS).write_text(f"{line}\n{line[:50]}")  # the second was cut by a kill
    with pytest.warns(UserWarning, match=r"comparisons\.jsonl: line 2 is damaged and was skipped"):
        assert len(read_comparisons([tmp_path])) == 1
    later = {**json.loads(line), "more": 1}
    (tmp_path / COMPARISONS).write_text(json.dumps(later) + "\n")
    assert read_comparisons([tmp_path]) == read_comparisons([compared])[:1]
    (tmp_path / COMPARISONS).write_text('{"task": "a"}\n')
    with pytest.warns(UserWarning, match=r"comparisons\.jsonl: line 1 is damaged and was skipped"):
        assert not read_comparisons([tmp_path])


def test_findings_are_sentences_a_table_and_a_figure(compared: Path, tmp_path: Path) -> None:
    html = "\n".join(comparisons_section(read_comparisons([compared]), {"run": "#0072b2"}, Figures(tmp_path)))
    assert "<li>run and run untrained: " in html and "chirps, logistic" in html and "24</td>" in html
    assert (tmp_path / "comparisons.png").is_file()
