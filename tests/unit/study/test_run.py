"""Studies run: what is missing is trained and evaluated, once; what fails is recorded and stops nothing."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from melmask.cli.main import main
from melmask.data.manifest import read_manifest
from melmask.evaluation.results import read_results
from melmask.locks import Locked
from melmask.study.cost import masking_costs
from melmask.study.curves import read_curves
from melmask.study.kept import CLIPS, RUNS, read_failures, read_right, read_tested
from melmask.study.progress import missing
from melmask.study.run import open_store, run_study, shard_of
from melmask.study.shipped import ABLATIONS, ARMS, STUDIES
from melmask.study.study import Study, StudyTask, grid, load_study
from melmask.train.recipe import RECIPES

MICRO = dataclasses.replace(RECIPES["micro-msm-mae"], steps=4, batch_size=4, log_every=2, save_every=2)


@pytest.fixture
def study(recordings: Path) -> Study:
    """Two cells with one seed on one task, without the folds that are tested on."""
    return Study(
        name="chirps",
        question="Does it run?",
        cells=grid({"msm-mae": MICRO}, {"random": {}, "dwm": {"strategy": "dwm"}}),
        sources=(str(recordings),),
        exclude=("chirps:1",),
        tasks=(StudyTask(str(recordings), ("1",), "events"),),
        seeds=(0,),
        probes=("ridge", "knn"),
    )


def test_a_study_trains_and_evaluates_what_is_missing(study, tmp_path, capsys, monkeypatch):
    told = []
    first = run_study(study, tmp_path, jobs=0, num_workers=0, report=told.append)
    assert first.done == ("msm-mae-random-seed0", "msm-mae-dwm-seed0") and not first.failures and not first.interrupted
    assert told[-1].num_done == 2 and told[-1].steps_done == told[-1].num_steps == 8 and told[-1].left_s == 0
    results = read_results(tmp_path / "results.jsonl")
    floors = {"msm-mae-untrained-seed0": "untrained", "log-mel-statistics": "log-mel statistics"}
    assert len(results) == 8 and {one.encoder for one in results} == {*first.done, *floors}
    assert {one.encoder: one.features for one in results if one.encoder in floors} == floors
    assert len({one.identity for one in results}) == 4
    right, tested = read_right(tmp_path), read_tested(tmp_path)
    for one in results:
        kept = right[one.encoder, one.task, one.probe]
        assert kept.share.mean() == pytest.approx(one.score) and len(kept.right) == one.num_clips == 8
        assert set(tested[one.task, one.content].folds) == {0} and len(set(tested[one.task, one.content].groups)) == 2
    curves = read_curves(tmp_path)
    assert set(curves) == set(first.done) and all(one.step[-1] == one.num_steps == 4 for one in curves.values())
    assert "chirps:1" in json.loads((tmp_path / RUNS / first.done[0] / "recipe.json").read_text())["exclude"]

    # A second call has nothing to do; a cell with another recipe under the same name is no other's result.
    before = (tmp_path / "results.jsonl").read_text()
    assert run_study(study, tmp_path, jobs=0).done == first.done
    assert (tmp_path / "results.jsonl").read_text() == before
    # Another probe is evaluated alone, without training; a cell of another recipe than its folder's is
    # recorded as failed, and the rest goes on.
    longer = dataclasses.replace(study.cells[1].recipe, steps=6)
    cells = (dataclasses.replace(study.cells[1], recipe=longer), study.cells[0])
    more = dataclasses.replace(study, cells=cells, probes=("ridge", "logistic"))
    second = run_study(more, tmp_path, jobs=0)
    assert second.done == first.done[:1]
    assert [(one.run, one.stage) for one in second.failures] == [("msm-mae-dwm-seed0", "train")]
    assert "another recipe" in second.failures[0].error and read_failures(tmp_path) == list(second.failures)
    assert len(read_results(tmp_path / "results.jsonl")) == 11
    store = open_store(more, tmp_path)
    assert [missing(more, tmp_path, run, store) for run in more.runs] == [["train"], []]
    check_commands(tmp_path, capsys, monkeypatch, study)
    # Where only the .jsonl files were kept nothing is trained again; floors that lack are evaluated without the runs.
    shutil.rmtree(tmp_path / RUNS)
    lines = (tmp_path / CLIPS).read_text().splitlines()
    (tmp_path / CLIPS).write_text("".join(f"{line}\n" for line in lines if "seed0" in line and "untrained" not in line))
    last = run_study(study, tmp_path, jobs=0, report=told.append)
    assert last.done == first.done and not (tmp_path / RUNS).exists() and told[-1].num_done == 2
    assert {key: one for key, one in read_right(tmp_path).items() if key in right} == right
    assert {one.identity for one in read_results(tmp_path / "results.jsonl")} == {one.identity for one in results}


def check_commands(out, capsys, monkeypatch, study):
    """The command on a finished study: what it costs, what is missing, what it shows, and what a pilot lacks."""
    monkeypatch.setitem(STUDIES, "chirps", study)
    monkeypatch.setattr("sys.argv", ["melmask", "study"])
    main(["study", "plan", "chirps", "--device", "h100", "--commands"])
    shown = capsys.readouterr().out
    num_clips = len(read_manifest(Path(study.tasks[0].table)))
    assert f"{num_clips} clips of its tasks" in " ".join(shown.split()) and "cannot be read" not in shown
    assert " ms a step are its products alone" in " ".join(shown.split())
    assert "2 runs" in shown and "melmask pretrain" in shown and "--strategy dwm" in shown and "--test-folds 1" in shown
    main(["study", "run", "chirps", "--out", str(out), "--dry-run"])
    assert capsys.readouterr().out.count(": done") == 2
    main(["study", "analyse", "chirps", "--out", str(out), "--csv", str(out / "differences.csv")])
    shown = capsys.readouterr().out
    assert "dwm against random" in shown and "1 seed says nothing of other seeds" in shown
    rows = (out / "differences.csv").read_text().splitlines()
    assert len(rows) == 3 and rows[0].startswith("group,arm,baseline,probe,scope,value,low,high")
    with pytest.raises(SystemExit):
        main(["study", "power", "chirps", "--out", str(out)])
    assert "two seeds" in capsys.readouterr().err


def test_the_cost_of_masking_is_counted_and_estimated(study):
    cells = grid({"msm-mae": MICRO}, {"random": {}, "dwm": {"strategy": "dwm"}, "sgim": {"strategy": "sgim"}})
    random, dwm, sgim = masking_costs(dataclasses.replace(study, cells=cells), {})
    assert random.guide_flops == 0 and sgim.guide_flops > dwm.guide_flops >= 0 and sgim.flops > random.flops
    assert sgim.guide_flops == sgim.flops - random.flops and random.step_s is None
    # The paper's recipe at AudioSet's scale: one more pass of all patches makes a run longer.
    assert random.hours == pytest.approx(dwm.hours, rel=1e-3) and 1.2 < sgim.hours / random.hours < 3


@pytest.mark.slow
def test_shards_run_in_processes_of_their_own(study, tmp_path):
    shards = [run_study(study, tmp_path, jobs=2, shard=shard, num_workers=0) for shard in ("1/2", "2/2")]
    assert [one.done for one in shards] == [("msm-mae-random-seed0",), ("msm-mae-dwm-seed0",)]


def test_shards_partition_the_runs():
    runs = STUDIES["small"].runs
    shards = [shard_of(runs, f"{i}/5") for i in range(1, 6)]
    assert sorted(run.name for shard in shards for run in shard) == sorted(run.name for run in runs)
    for wrong in ("0/2", "3/2", "2", "a/b"):
        with pytest.raises(ValueError, match="shard"):
            shard_of(runs, wrong)


def test_shipped_studies_compare_equals():
    for study in STUDIES.values():
        for group in study.groups:
            recipes = [cell.recipe for cell in study.cells if cell.group == group]
            assert len({(one.steps, one.epochs, one.batch_size, one.learning_rate, one.size) for one in recipes}) == 1
    assert all("hint" in str(ARMS[name]) for name in ("ibm", "freq_profile"))
    for cell in STUDIES["small"].cells:
        assert cell.recipe.takes_hints or cell.arm == "random"
    assert len([name for name in ABLATIONS if "guidance" in name]) == 5


def test_the_studies_of_the_repository_share_the_cells_of_small():
    small = {run.name: run.recipe for run in STUDIES["small"].runs}
    folder = Path(__file__).parents[3] / "studies" / "small"
    pilot, rates, m2d = (load_study(str(folder / f"{name}.py"), {}) for name in ("pilot", "learning_rate", "m2d"))
    assert len(pilot.runs) == 6 and all(small[run.name] == run.recipe for run in pilot.runs)
    for settled, differ in ((rates, ("learning_rate",)), (m2d, ("learning_rate", "optimiser", "framework_options"))):
        assert {run.recipe.strategy for run in settled.runs} == {"random"}
        for run in settled.runs:
            base = small[f"{run.cell.group}-random-seed0"]
            if run.cell.group == "msm-mae" or settled is m2d:  # nothing else differs
                changes = {name: vars(base)[name] for name in differ}
                assert dataclasses.replace(run.recipe, **changes) == base
    chosen = {"msm-mae-0.001": rates, "m2d-muon-ema-.99": m2d}  # what small trains with
    for name, settled in chosen.items():
        (run,) = [run for run in settled.runs if run.cell.name == name]
        assert run.recipe == small[f"{run.cell.group}-random-seed0"]


def test_what_fails_after_a_training_is_recorded_and_is_no_busy_run(study, tmp_path, monkeypatch):
    def locked(out, names):
        raise Locked("another process is writing")

    monkeypatch.setattr("melmask.study.run.keep_curves", locked)
    outcome = run_study(dataclasses.replace(study, cells=study.cells[:1]), tmp_path, jobs=0, num_workers=0)
    assert not outcome.busy and not outcome.done
    assert [(one.run, one.stage) for one in outcome.failures] == [("msm-mae-random-seed0", "keep its curves")]


def test_many_runs_are_named_in_few_words():
    study = STUDIES["smoke"]
    assert study.summed_up([]) == ""
    assert study.summed_up([run.name for run in study.runs]) == "every cell with every seed"
    assert study.summed_up([run.name for run in study.runs if run.recipe.seed == 1]) == "every cell with seed 1"
    some = {run.name for run in study.runs if run.cell.group == "m2d" or run.name == "msm-mae-dwm-seed1"}
    assert study.summed_up(some) == "msm-mae-dwm with seed 1; every cell of m2d with every seed"


def test_a_study_is_a_name_or_a_file(study, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from melmask.study.shipped import STUDIES\nstudy = STUDIES['smoke']\n")
    assert load_study(str(file), {}) == STUDIES["smoke"] == load_study("smoke", STUDIES)
    file.write_text("studies = 1\n")
    with pytest.raises(ValueError, match="defines no study"):
        load_study(str(file), {})
    file.write_text("import no_such_module\n")
    with pytest.raises(ValueError, match="cannot be run"):
        load_study(str(file), {})
    with pytest.raises(ValueError, match="did you mean small"):
        load_study("smal", STUDIES)
    with pytest.raises(ValueError, match="no such file"):
        load_study(str(tmp_path / "none.py"), {})
    for changes, message in (
        ({"baseline": "ibm"}, "no arm 'ibm'"),
        ({"seeds": (0, 0)}, "twice"),
        ({"seeds": ()}, "no seeds"),
        ({"margin": 1.0}, "margin"),
        ({"probes": ("fewshot",)}, "trainings"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(study, **changes)
    with pytest.raises(ValueError, match="--data"):
        dataclasses.replace(study, sources=("none",)).check_data()
