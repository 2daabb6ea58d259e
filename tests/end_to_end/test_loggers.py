"""The loggers of a training with the packages that they are for, which reach no network."""

import dataclasses
import sqlite3
import warnings
from pathlib import Path

import pytest

from melmask.callbacks import make_logger
from melmask.train import loop
from melmask.train.recipe import RECIPES
from melmask.train.run_folder import read_log

pytestmark = [pytest.mark.adapters, pytest.mark.filterwarnings("default")]
RECIPE = dataclasses.replace(RECIPES["micro-m2d"], steps=6, batch_size=4, log_every=2, save_every=2)


def train(logger: str, store, run: Path) -> list[float]:
    """Train to step 4, resume from step 2 with that logger, and return the logged losses; nothing fails."""

    def stop_at_four(entry) -> None:
        if entry.step == 4:
            raise KeyboardInterrupt

    told: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        loop.pretrain(RECIPE, store, run, callbacks=[make_logger(logger)], failed=told.append, report=stop_at_four)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loop.pretrain(RECIPE, store, run, resume=True, callbacks=[make_logger(logger)], failed=told.append)
    assert not told
    return [line["loss"] for line in read_log(run)]


def test_wandb_offline(store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    train("wandb", store, tmp_path / "run")
    written = [path.read_bytes() for path in (tmp_path / "run").rglob("run-*.wandb")]
    assert written and all(b"loss" in content and b"effective_rank" in content for content in written)


def test_trackio_local(store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    train("trackio", store, tmp_path / "run")
    [database] = (tmp_path / "trackio").rglob("*.db")
    with sqlite3.connect(database) as opened:
        rows = opened.execute("SELECT run_name, step, metrics FROM metrics ORDER BY step").fetchall()
    assert {name for name, _, _ in rows} == {rows[0][0]} and sorted({step for _, step, _ in rows}) == [2, 4, 6]
    assert all("loss" in str(metrics) for _, _, metrics in rows)


def test_mlflow_in_the_runs_folder(store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "")  # so that what the logger sets is taken back
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    losses = train("mlflow", store, tmp_path / "run")
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"file:{tmp_path / 'run' / 'mlruns'}")
    [experiment] = [one for one in client.search_experiments() if one.name == "melmask"]
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.status for run in runs) == ["FINISHED", "KILLED"]
    [whole] = [run.info.run_id for run in runs if run.info.status == "FINISHED"]
    found = client.get_metric_history(whole, "loss")
    assert [point.value for point in sorted(found, key=lambda point: point.step)] == pytest.approx(losses[1:])
    assert runs[0].data.params["strategy"] == "random"
