"""Callbacks: what they measure is in the log, what they do changes nothing, and none of them stops a run."""

import dataclasses
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import melmask
from melmask.callbacks import LOGGERS, Callback, OnlineProbe, make_logger
from melmask.cli import console
from melmask.cli.main import main
from melmask.cli.pretrain import steps_shown
from melmask.files import read_tensors
from melmask.train import loop
from melmask.train.recipe import RECIPES
from melmask.train.run_folder import CHECKPOINT, read_log

RECIPE = dataclasses.replace(RECIPES["micro-m2d"], steps=12, batch_size=8, log_every=3, save_every=6)


class Recorder(Callback):
    """Keeps what it is called with."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def on_start(self, started):
        self.seen.append((started.first_step, started.num_steps))

    def on_log(self, entry):
        self.seen.append((entry.step, dict(entry.measured)))

    def on_end(self, complete):
        self.seen.append(complete)


class Failing(Callback):
    def on_log(self, entry):
        raise ConnectionError("no network")


def stop_at_nine(entry) -> None:
    if entry.step == 9:
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def plain(store, tmp_path_factory) -> Path:
    """A run without callbacks."""
    run = tmp_path_factory.mktemp("runs") / "plain"
    loop.pretrain(RECIPE, store, run)
    return run


def test_callbacks_see_the_run_and_change_nothing(plain, store, recordings, tmp_path: Path) -> None:
    run, recorder, told = tmp_path / "run", Recorder(), []
    callbacks = [OnlineProbe(recordings, every=6, num_workers=0), Failing(), recorder]
    with pytest.raises(KeyboardInterrupt):
        loop.pretrain(RECIPE, store, run, callbacks=callbacks, failed=told.append, report=stop_at_nine)
    [text] = told
    assert text == "Failing failed, and is left out from here on; the training goes on: ConnectionError: no network"
    first, *entries, complete = recorder.seen
    assert first == (0, 12) and complete is False
    [name] = entries[0][1]
    assert name == "knn chirps accuracy"
    assert [(step, list(measured)) for step, measured in entries] == [(3, [name]), (6, [name]), (9, [])]
    again = Recorder()
    callbacks = [OnlineProbe(recordings, every=6, num_workers=0), again]
    assert loop.pretrain(RECIPE, store, run, resume=True, callbacks=callbacks)
    assert again.seen[0] == (6, 12) and again.seen[-1] is True
    log = read_log(run)
    assert [list(line["measured"]) for line in log] == [[name], [name], [name], [name]]  # resumed at 6; 12 is the last
    assert all(0 <= line["measured"][name] <= 1 for line in log)
    assert all(line["measured"] == {} for line in read_log(plain))
    whole, measured = (read_tensors(folder / CHECKPOINT)[0] for folder in (plain, run))
    assert whole.keys() == measured.keys() and all(torch.equal(whole[key], measured[key]) for key in whole)


def test_the_online_probe_is_its_score_by_a_saved_encoder(plain, store, recordings, tmp_path) -> None:
    from melmask.nn.encoder_file import EncoderFile

    probe = OnlineProbe(recordings, num_workers=0)
    loop.pretrain(RECIPE, store, tmp_path / "run", callbacks=[probe])
    [last] = read_log(tmp_path / "run")[-1]["measured"].values()
    assert last == probe.score(EncoderFile.load(tmp_path / "run/encoder.safetensors"))
    assert not set(probe.split.test.tolist()) & {*probe.split.train.tolist(), *probe.split.valid.tolist()}
    for wrong in ({"every": 0}, {"table": tmp_path / "none.csv"}):
        with pytest.raises(ValueError, match=r"give 1 or more|none\.csv"):
            OnlineProbe(**{"table": recordings, **wrong})


def test_the_command_measures_and_logs(store, recordings, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("melmask.data.prepare.num_cores", lambda: 0)
    run = tmp_path / "run"
    options = ["--steps", "4", "--batch-size", "4", "--log-every", "2", "--online-probe", str(recordings)]
    loggers = ["--probe-every", "2", "--log-to", "tensorboard"]
    main(["pretrain", str(store.folder), "--out", str(run), "--recipe", "micro-m2d", *options, *loggers])
    assert "knn chirps accuracy" in capsys.readouterr().out
    [events] = run.glob("events.out.tfevents.*")
    board = EventAccumulator(str(events))
    board.Reload()
    logged = read_log(run)
    for name in ("loss", "knn chirps accuracy"):
        values = [line.get(name, line["measured"].get(name)) for line in logged]
        assert [point.value for point in board.Scalars(name)] == pytest.approx(values)


def test_a_logger_that_is_missing_is_named_with_its_extra_before_the_run(store, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorboard", None)
    for name in LOGGERS:
        if name == "tensorboard":
            with pytest.raises(ImportError, match=rf"pip install 'melmask\[{name}\]'"):
                make_logger(name)
    with pytest.raises(SystemExit):
        main(["pretrain", str(store.folder), "--out", str(tmp_path / "run"), "--log-to", "tensorboard"])
    assert "melmask[tensorboard]" in capsys.readouterr().err and not (tmp_path / "run").exists()
    run = melmask.pretrain(melmask.recipe("micro-m2d", steps=1, batch_size=4), store, tmp_path / "without")
    assert not list(run.glob("events*"))
    with pytest.raises(ValueError, match="no logger 'tensorbord': did you mean tensorboard"):
        make_logger("tensorbord")
    with pytest.warns(UserWarning, match="Failing failed, and is left out"):
        melmask.pretrain(
            melmask.recipe("micro-m2d", steps=1, batch_size=4), store, tmp_path / "b", callbacks=[Failing()]
        )


def test_the_bar_has_the_whole_length_and_the_time_left_before_the_first_entry_of_the_log(store, tmp_path) -> None:
    shown: list[tuple[float, float | None, bool]] = []
    with console.bar("training") as (progress, task):

        class Reader(Callback):
            def on_step(self, step: int) -> None:
                state = progress.tasks[0]
                shown.append((state.completed, state.total, state.time_remaining is not None))

        callbacks = [steps_shown(progress, task), Reader()]
        loop.pretrain(dataclasses.replace(RECIPE, log_every=12), store, tmp_path / "run", callbacks=callbacks)
        narrow = Console(width=80, record=True, force_terminal=True)
        narrow.print(*progress.get_renderables())
    assert [(done, total) for done, total, _ in shown] == [(step, 12) for step in range(1, 13)]
    assert all(known for _, _, known in shown[2:])
    assert "12/12" in narrow.export_text()
