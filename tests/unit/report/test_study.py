"""The report of a study: its numbers are those of the analysis, and what is missing is said."""

import csv
import dataclasses
import re
import shutil

import numpy as np
import pytest

from melmask.cli.main import main
from melmask.files import write_json
from melmask.plan.flops import Part, StepFlops
from melmask.report.study import study_report
from melmask.report.study_short import in_short
from melmask.report.study_tables import points, scores_html, scores_sheet, span
from melmask.report.study_words import lead, shortfalls
from melmask.study import cost
from melmask.study.analysis import analyse
from melmask.study.answers import read_answers
from melmask.study.curves import CURVES, collect_curves, read_curves
from melmask.study.evidence import ellipse, read_evidence
from melmask.study.shipped import STUDIES
from melmask.study.study import Study, StudyTask, grid
from melmask.train.recipe import RECIPES
from melmask.viz import style
from melmask.viz.study import looks_of
from studies import write_study

DRAWS = 2000
MICRO = {"msm-mae": RECIPES["micro-msm-mae"], "m2d": RECIPES["micro-m2d"]}
STUDY = Study(
    name="simulated",
    question="Is it reported?",
    cells=grid(MICRO, {"random": {}, "dwm": {"strategy": "dwm"}, "ibm": {"strategy": "ibm"}}),
    sources=("open.csv",),
    tasks=(StudyTask("bark.csv", kind="events"), StudyTask("horn.csv", kind="events"), StudyTask("word.csv")),
)
EFFECTS = {("dwm", "events"): 0.1, ("ibm", "events"): 0.05, ("ibm", "other"): -0.2}


@pytest.fixture
def logs(tmp_path):
    """A run folder of a finished and one of an unfinished run, with their logs."""
    for name, steps in (("msm-mae-random-seed0", 4), ("msm-mae-dwm-seed0", 2)):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        next(run.recipe for run in STUDY.runs if run.name == name).save(folder / "recipe.json")
        write_json(folder / "machine.json", {"hardware": "a loom"})
        entry = {"num_steps": 4, "mask_share": 0.25, "samples_per_s": 100.0, "num_threads": 1}
        lines = [
            {"step": step, "loss": 1 / step, "effective_rank": 9.87654321, **entry} for step in range(1, steps + 1)
        ]
        (folder / "log.jsonl").write_text("".join(f"{line}\n".replace("'", '"') for line in lines))
    return tmp_path


def test_a_page_is_written_of_an_incomplete_grid(logs, recordings, monkeypatch):
    flops = StepFlops((Part("blocks", 9, 3_000_000, 6_000_000), Part("guide pass", 9, 1_000_000, 0)), 0, 16)
    monkeypatch.setattr(cost, "step_flops", lambda recipe, num_mels: flops)  # which takes seconds for the first time
    monkeypatch.setattr(cost, "RECIPES", {})
    monkeypatch.setitem(style._STYLE, "figure.dpi", 50)
    write_study(STUDY, logs, EFFECTS, lacking=2)
    folder = logs / "page"
    page = study_report([STUDY], logs, folder, sounds=[recordings.parent / "00.wav"], num_draws=DRAWS).read_text()
    shown = re.sub(r"<[^>]*>", " ", page)
    assert "16 of 18 runs are there: an incomplete grid" in shown
    assert "m2d-dwm, m2d-ibm with seed 2." in shown and "melmask study run simulated" in shown
    assert "<script" not in page and 'src="http' not in page and "mpeg" not in page
    # The numbers of the page and of the files are those of the analysis.
    answers = read_answers(STUDY, logs, "ridge")
    expected = analyse(answers, "random", 0.01, num_draws=DRAWS)
    with (folder / "differences.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["probe"] == "ridge"]
    assert [float(row["value"]) for row in rows] == [one.value for one in expected]
    assert [row["p_holm"] for row in rows] == [str(one.p_holm) for one in expected]
    for one in expected[:3]:
        row = f"{one.arm}, {one.scope} {points(one.value)} {span(one.low, one.high)}"
        assert row in " ".join(shown.split()) and f"| {points(one.value)} |" in (folder / "differences.md").read_text()
    assert {one.num_seeds for one in expected if one.group == "m2d"} == {2}
    assert expected[1].scope == "event tasks" and expected[1].value == pytest.approx(0.1)
    for name in ("differences", "trade-off", "curves", "masks"):
        assert (folder / f"{name}.png").stat().st_size > 1000 and (folder / f"{name}.svg").read_text().startswith(
            "<?xml"
        )
    for name in ("differences", "scores", "cost", "other-choices"):
        assert all((folder / f"{name}.{end}").stat().st_size for end in ("csv", "md", "tex"))
    # A step's crops at 100 a second, a quarter of the time for masking.
    step_ms = 10 * MICRO["msm-mae"].batch_size
    row = f"| msm-mae dwm | {step_ms} | {step_ms / 4:.1f} | 25.0% | 10.0 | 10.0% | – |"
    assert row in (folder / "cost.md").read_text()
    # Curves outlive the run folders.
    shutil.rmtree(logs / "runs")
    kept = collect_curves(STUDY, logs)
    assert kept == read_curves(logs) and kept["msm-mae-random-seed0"].step == (1, 2, 3, 4)
    assert kept["msm-mae-random-seed0"].effective_rank[0] == 9.8765 and kept["msm-mae-dwm-seed0"].num_steps == 4
    assert len((logs / CURVES).read_text().splitlines()) == 2


def test_the_answer_says_what_was_shown(tmp_path, monkeypatch, capsys):
    write_study(STUDY, tmp_path, EFFECTS)
    evidence = read_evidence(STUDY, tmp_path, DRAWS)
    of_events = {one.arm: one for one in evidence.trade_offs if one.group == "m2d"}
    assert of_events["dwm"].events == pytest.approx(0.1) and of_events["ibm"].others == pytest.approx(-0.2)
    assert evidence.find("m2d", "ibm", "other tasks").finding == "worse"
    advice, over_all, on_events, on_others, choices, seen = in_short(evidence)
    dwm = evidence.find("msm-mae", "dwm", "all tasks")
    chosen = f"dwm (+6.7 points, {span(dwm.low, dwm.high)})"  # on both: they get the same answers right
    assert advice == f"Over all tasks, choose msm-mae {chosen}; m2d {chosen}."
    assert over_all.startswith("All tasks: differences of -3.3 (ibm in msm-mae) to +6.7 (dwm in msm-mae) points.")
    assert "worse: ibm in msm-mae (-3.3, " in over_all and "better: dwm in msm-mae (+10.0, " in on_events
    assert on_events.endswith("shown to be worse: none.")
    assert "worse: ibm in msm-mae (-20.0, " in on_others and "other choices" in choices.lower() and "four times" in seen
    assert "18 of 18 runs are there. Of 4 comparisons" in lead(evidence)
    assert [one.kind for one in evidence.contrasts] == ["framework", "probe", "probe"]
    assert [one.value for one in evidence.contrasts] == [0, 0, 0]  # as both get the same answers right
    (direct,) = [
        one for one in evidence.between([(("m2d", "dwm"), ("m2d", "ibm"))]) if one.scope == "all tasks"
    ]  # fmt: skip
    assert direct.value == pytest.approx((0.05 + 0.05 + 0.2) / 3) and direct.baseline == "ibm"
    monkeypatch.setattr("sys.argv", ["melmask", "study"])
    monkeypatch.setitem(STUDIES, "other", dataclasses.replace(STUDY, name="other", tasks=(StudyTask("absent.csv"),)))
    with pytest.raises(SystemExit):
        main(["study", "report", "other", "--out", str(tmp_path)])
    assert "has no results of study other" in capsys.readouterr().err


FLOORS = {("untrained", kind): -0.2 for kind in ("events", "other")} | {("log-mel statistics", "other"): 0.3}


def floors_of(evidence):
    """What training is compared with, and by how much it is above; the least first."""
    found = sorted((one for one in evidence.contrasts if one.kind == "floor"), key=lambda one: one.value)
    return [(one.what, points(one.value)) for one in found]


def test_floors_are_beside_the_arms_and_in_none_of_their_tests(tmp_path):
    write_study(STUDY, tmp_path / "alone", EFFECTS)
    write_study(STUDY, tmp_path, EFFECTS | FLOORS, floors=True)
    evidence, alone = read_evidence(STUDY, tmp_path, 400), read_evidence(STUDY, tmp_path / "alone", 400)
    assert evidence.differences == alone.differences and evidence.runs == alone.runs
    assert not floors_of(alone) and not shortfalls(alone)
    assert floors_of(evidence) == [
        ("msm-mae with random masking against log-mel statistics, ridge", "-10.0"),
        ("m2d with random masking against log-mel statistics, ridge", "-10.0"),
        ("msm-mae with random masking against untrained encoder, ridge", "+20.0"),
        ("m2d with random masking against untrained encoder, ridge", "+20.0"),
    ]
    assert all(one.low > 0 for one in evidence.contrasts if one.kind == "floor" and one.value > 0)
    assert [text.partition(" points")[0] for text in shortfalls(evidence)] == [
        "msm-mae with random masking against log-mel statistics, ridge: below it: -10.0",
        "m2d with random masking against log-mel statistics, ridge: below it: -10.0",
    ]
    rows = [row[0] for row in scores_sheet(evidence, "scores").rows]
    assert rows[-3:] == ["msm-mae untrained", "m2d untrained", "log-mel statistics"] and len(rows) == 9
    shown = re.sub(r"<[^>]*>", " ", scores_html(evidence, "m2d", looks_of(["random", "dwm", "ibm"], "random"), "ridge"))
    assert shown.count("untrained encoder") == shown.count("log-mel statistics") == 1


def test_an_ellipse_holds_most_of_the_draws():
    rng = np.random.default_rng(0)
    drawn = np.linalg.cholesky([[4, 1.2], [1.2, 1]]) @ rng.standard_normal((2, 4000))
    outline = ellipse(np.zeros(2), drawn)
    # The outline of a normal distribution's ellipse is at a Mahalanobis distance of sqrt(chi2) at 95 %.
    distance = np.sqrt(np.einsum("pi,ij,pj->p", outline, np.linalg.inv([[4, 1.2], [1.2, 1]]), outline))
    assert distance == pytest.approx(5.991**0.5, rel=0.06)
    assert ellipse(np.zeros(2), np.stack([drawn[0], 0 * drawn[0]]))[:, 1].tolist() == [0, 0]
