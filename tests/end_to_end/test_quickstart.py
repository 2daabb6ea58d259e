"""The quickstart as a newcomer runs it: minutes, so only with `make test-slow`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "quickstart.sh"


def quickstart(out: Path, *arguments: str, **settings: str) -> str:
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": search, "OUT": str(out), **settings}
    done = subprocess.run(
        ["bash", str(SCRIPT), *arguments], env=environment, capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_built_in_corpus_is_learnt_from_and_judged_with_both_maskings(tmp_path):
    printed = quickstart(tmp_path / "out")
    page = Path(printed.strip().splitlines()[-1].removeprefix("the report: "))
    assert page.is_file() and page.parent == tmp_path / "out" / "report"
    for strategy in ("random", "dwm"):
        lines = [json.loads(line) for line in (tmp_path / "out" / strategy / "results.jsonl").read_text().splitlines()]
        judged = {(line["task"], line["features"]) for line in lines if line["probe"] == "logistic"}
        features = {"encoder", "untrained", "log-mel statistics"}
        assert judged == {(task, of) for task in ("instruments", "chroma", "words") for of in features}
        assert all(line["low"] <= line["score"] <= line["high"] for line in lines)
        # Of a batch from unseen masks; that some minutes of it lift a score above the baselines is not to be expected.
        log = [json.loads(line) for line in (tmp_path / "out" / strategy / "log.jsonl").read_text().splitlines()]
        assert log[-1]["loss"] < 0.75 * log[0]["loss"]
    assert "already" not in quickstart(tmp_path / "out")  # again: nothing is trained anew, nothing breaks


@pytest.mark.slow
def test_a_folder_of_ones_own_goes_the_same_way(recordings, tmp_path):
    (tmp_path / "my sounds").mkdir()
    for path in recordings.parent.glob("*.wav"):
        (tmp_path / "my sounds" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "my sounds" / "broken.wav").write_text("no audio")
    printed = quickstart(tmp_path / "an out", str(tmp_path / "my sounds"), STEPS="5")
    assert "1 rejected" in printed and (tmp_path / "an out" / "report" / "report.html").is_file()
    assert (tmp_path / "an out" / "store" / "rejected.csv").read_text().count("broken.wav") == 1
