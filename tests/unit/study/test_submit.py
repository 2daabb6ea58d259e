"""Runs of a study as jobs: what Slurm is asked for, and jobs of this machine that are stopped, killed and finished."""

import dataclasses
import os
import signal
import time
from pathlib import Path

import pytest

from melmask.cli.main import main
from melmask.study.kept import RUNS, Failure, keep_failure, read_failures
from melmask.study.run import INTERRUPTED, prepare_study, run_study
from melmask.study.shipped import STUDIES
from melmask.study.study import Study, StudyTask, grid
from melmask.study.submit import LocalJobs, slurm_options
from melmask.train.recipe import RECIPES

MICRO = dataclasses.replace(RECIPES["micro-msm-mae"], steps=4, batch_size=4, log_every=2, save_every=2)
SBATCH = """#!/bin/bash
cp "$1" {folder}/script.sh
echo $((7 + $(cat {folder}/count))) > {folder}/count
echo Submitted batch job $(cat {folder}/count)
"""


def study_of(recordings: Path, **changes) -> Study:
    """Two runs and one task."""
    return Study(
        name="chirps",
        question="Does it run?",
        cells=grid({"msm-mae": dataclasses.replace(MICRO, **changes)}, {"random": {}, "dwm": {"strategy": "dwm"}}),
        sources=(str(recordings),),
        tasks=(StudyTask(str(recordings), ("1",)),),
        seeds=(0,),
        probes=("ridge",),
    )


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Path:
    """A folder with commands in place of Slurm's; sacct answers what is written to its file "states"."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "count").write_text("0")
    (folder / "states").write_text("JobID|State|NodeList\n")
    scripts = {
        "sbatch": SBATCH.format(folder=folder),
        "srun": "#!/bin/bash\n",
        "sacct": f"#!/bin/sh\ncat {folder}/states\n",
    }
    for name, text in scripts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return folder


def test_what_is_missing_is_submitted_to_slurm_once(cluster, recordings, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(STUDIES, "chirps", study_of(recordings))
    out = tmp_path / "out"

    def shown(*more: str) -> str:
        main(["study", "run", "chirps", "--out", str(out), "--submit", "slurm", "--workers", "0", *more])
        return capsys.readouterr().out

    options = ("partition=gpu", "time=60", "mem=", "setup=module load cuda", "reservation=night")
    text = shown("--jobs", "1", "--slurm-options", *options)
    assert "msm-mae-random-seed0: job 7_0, submitted" in text and "msm-mae-dwm-seed0: job 7_1, submitted" in text
    lines = (cluster / "script.sh").read_text().splitlines()
    for option in (
        "partition=gpu", "time=60", "gpus-per-node=1", "cpus-per-task=8", "array=0-1%1", "job-name=chirps",
        "reservation=night", "signal=USR2@90",
    ):  # fmt: skip
        assert f"#SBATCH --{option}" in lines
    assert "module load cuda" in lines and not [line for line in lines if "--mem" in line]
    assert len(list((out / "jobs").glob("*submitted.pkl"))) == 2 and any("srun" in line for line in lines)

    # While they wait or work nothing is submitted; one that was killed is recorded, and its run submitted again.
    (cluster / "states").write_text("JobID|State|NodeList\n7_0|RUNNING|a\n7_1|PENDING|\n")
    text = shown()
    assert "job 7_0, RUNNING" in text and "job 7_1, PENDING" in text and (cluster / "count").read_text().strip() == "7"
    (cluster / "states").write_text("JobID|State|NodeList\n7_0|RUNNING|a\n7_1|OUT_OF_MEMORY|a\n")
    text = shown()
    assert "msm-mae-random-seed0: job 7_0, RUNNING" in text and "msm-mae-dwm-seed0: job 14, submitted again" in text
    (failure,) = read_failures(out)
    assert failure.run == "msm-mae-dwm-seed0" and "OUT_OF_MEMORY" in failure.error and "7_1_0_log.err" in failure.error
    assert "--time=1440" in (cluster / "script.sh").read_text()  # a single run is no array


def test_wrong_options_and_a_machine_without_slurm_are_refused(cluster, recordings, tmp_path, monkeypatch, capsys):
    with pytest.raises(ValueError, match="KEY=VALUE"):
        slurm_options(["partition"])
    with pytest.raises(ValueError, match="minutes"):
        slurm_options(["time=1:00:00"])
    monkeypatch.setitem(STUDIES, "chirps", study_of(recordings))
    out = tmp_path / "out"
    command = ["study", "run", "chirps", "--out", str(out), "--submit"]
    (cluster / "sbatch").write_text("#!/bin/sh\necho sbatch: error: invalid partition >&2\nexit 1\n")
    for arguments, message in (
        (["slurm", "--workers", "0"], "invalid partition"),
        (["slurm", "--jobs", "0"], "from 1 on"),
        (["local", "--jobs", "0"], "jobs 0"),
        (["local", "--slurm-options", "mem=1GB"], "--submit slurm"),
    ):
        with pytest.raises(SystemExit):
            main([*command, *arguments])
        assert message in capsys.readouterr().err
    (cluster / "srun").unlink()
    with pytest.raises(SystemExit):
        main([*command, "slurm"])
    assert "srun" in capsys.readouterr().err


def child_of(pid: int) -> int:
    """The process that another one has started."""
    while not (children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        time.sleep(0.1)
    return int(children[0])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the job's process by Linux's /proc")
def test_a_local_job_that_is_stopped_or_killed_is_finished_by_the_next_call(recordings, tmp_path):
    study = study_of(recordings, steps=400, log_every=10, save_every=10)
    start, ended = LocalJobs(tmp_path), []
    prepare_study(study, tmp_path, num_workers=0)
    for run, working in [(run, start(study, tmp_path, run)) for run in study.runs]:
        while not (tmp_path / RUNS / run.name / "encoder.safetensors").exists():
            time.sleep(0.1)
        if run == study.runs[0]:
            working.stop()
        else:
            os.kill(child_of(int(working.job.job_id)), signal.SIGKILL)
        while (status := working.ended()) is None:
            time.sleep(0.1)
        ended.append(status)
    assert ended[0] == INTERRUPTED and "killed" in ended[1] and ".err" in ended[1]
    # A call to which that happens records it; the next one goes on with both.
    keep_failure(tmp_path, Failure(study.runs[1].name, "train or evaluate", ended[1]))
    told = []
    outcome = run_study(study, tmp_path, jobs=2, start=start, report=told.append)
    assert outcome.done == tuple(run.name for run in study.runs) and not outcome.failures and not outcome.interrupted
    assert 0 < told[0].steps_done < told[0].num_steps == told[-1].steps_done and told[-1].num_done == 2
