"""comparisons.jsonl: what is compared is kept with the runs, read once, and shown."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from melmask.cli.main import main
from melmask.evaluation.comparisons import COMPARISONS, read_comparisons
from melmask.evaluation.results import read_results
from melmask.report.comparisons import comparisons_section
from melmask.report.page import Figures

PROBES = ("knn", "logistic")


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


@pytest.fixture(scope="module")
def evaluated(compared: Path, recordings: Path) -> Path:
    """The file of results of that run, of another of the same form, and of an encoder without a run."""
    folder = compared.parent
    shutil.copytree(compared, folder / "other", ignore=shutil.ignore_patterns("*.jsonl"))
    shutil.copy(compared / "encoder.safetensors", folder / "alone.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MELMASK_CACHE", str(folder / "cache"))
        (compared / COMPARISONS).rename(folder / "by-compare.jsonl")
        names = [str(folder / name) for name in ("run", "other", "alone.safetensors")]
        out = folder / "scores.jsonl"
        main(["evaluate", *names, "--task", str(recordings), "--probe", "knn", "logistic", "--out", str(out)])
    return out


def test_evaluate_keeps_how_each_encoder_stands_to_its_baselines(evaluated: Path) -> None:
    beside = [one.comparison for one in read_comparisons([evaluated])]
    rivals = ("run untrained", "log-mel statistics")  # one untrained form, which all three share
    expected = {(name, rival, probe) for name in ("run", "other", "alone") for rival in rivals for probe in PROBES}
    assert {(one.name_a, one.name_b, one.probe) for one in beside} == expected
    for name in ("run", "other"):
        kept = [one.comparison for one in read_comparisons([evaluated.parent / name])]
        assert kept == [one for one in beside if one.name_a == name]


def test_evaluate_finds_the_differences_that_compare_finds(evaluated: Path) -> None:
    by_compare = (evaluated.parent / "by-compare.jsonl").read_text().splitlines()
    beside = {(one.comparison.name_b, one.comparison.probe): one.comparison for one in read_comparisons([evaluated])}
    for line in map(json.loads, by_compare):
        found = beside["run untrained", line["comparison"]["probe"]]
        assert line["comparison"]["difference"] == vars(found.difference)


def test_evaluate_without_baselines_compares_nothing(recordings: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MELMASK_CACHE", str(tmp_path / "cache"))
    for given in (["untrained:micro", "--no-baselines"], ["logmel-stats"]):
        main(["evaluate", *given, "--task", str(recordings), "--probe", "knn", "--out", str(tmp_path / "scores.jsonl")])
    assert not list(tmp_path.glob(f"*{COMPARISONS}"))


def test_the_report_says_what_evaluate_found_of_encoders_and_their_baselines(evaluated: Path, tmp_path: Path) -> None:
    main(["report", "--results", str(evaluated), "--out", str(tmp_path)])
    text = (tmp_path / "report.html").read_text()
    assert "not compared yet" not in text and '<section id="comparisons">' in text
    assert all(
        f"{name} beside untrained encoder and log-mel statistics: " in text for name in ("run", "other", "alone")
    )


def test_many_comparisons_have_a_figure_for_each_encoder(evaluated: Path, tmp_path: Path) -> None:
    kept = read_comparisons([evaluated])
    comparisons_section(kept, {}, Figures(tmp_path))
    assert len(list(tmp_path.glob("comparisons*.png"))) == 1
    many = [
        replace(one, comparison=replace(one.comparison, task=f"task {number}")) for number in range(4) for one in kept
    ]
    comparisons_section(many, {}, Figures(tmp_path))
    assert len(list(tmp_path.glob("comparisons*.png"))) == 3
