"""The entries of a run's log in other tools; each needs its library, which is an extra."""

import hashlib
import importlib
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from melmask.train.callbacks import Callback, Started
from melmask.train.recipe import as_text
from melmask.train.run_folder import LogEntry

PROJECT = "melmask"


class TensorBoard(Callback):
    """Event files in the run's folder, for `tensorboard --logdir`.

    Raises:
        ImportError: TensorBoard is not installed.
    """

    def __init__(self) -> None:
        library("tensorboard", "tensorboard")

    def on_start(self, started: Started) -> None:
        """See `Callback`; events after the step that is resumed from are hidden."""
        from torch.utils.tensorboard import SummaryWriter

        self.board = SummaryWriter(str(started.run), purge_step=started.first_step)

    def on_log(self, entry: LogEntry) -> None:
        """See `Callback`."""
        for name, value in entry.numbers().items():
            self.board.add_scalar(name, value, entry.step)

    def on_end(self, complete: bool) -> None:
        """See `Callback`."""
        self.board.close()


class Trackio(Callback):
    """Runs in the local database of trackio, shown by `trackio show`.

    Args:
        project: that the run is part of.

    Raises:
        ImportError: trackio is not installed.
    """

    def __init__(self, project: str = PROJECT) -> None:
        self.trackio, self.project = library("trackio", "trackio"), project

    def on_start(self, started: Started) -> None:
        """See `Callback`."""
        resume = "allow" if started.first_step else "never"
        self.trackio.init(project=self.project, name=named(started.run), config=settings(started), resume=resume)

    def on_log(self, entry: LogEntry) -> None:
        """See `Callback`."""
        self.trackio.log(entry.numbers(), step=entry.step)

    def on_end(self, complete: bool) -> None:
        """See `Callback`."""
        self.trackio.finish()


class Wandb(Callback):
    """Runs in Weights & Biases; with WANDB_MODE=offline in the folder "wandb" of the run alone.

    Args:
        project: that the run is part of.

    Raises:
        ImportError: wandb is not installed.
    """

    def __init__(self, project: str = PROJECT) -> None:
        self.wandb, self.project = library("wandb", "wandb"), project

    def on_start(self, started: Started) -> None:
        """See `Callback`."""
        self.logged = self.wandb.init(
            project=self.project,
            name=started.run.name,
            id=named(started.run),
            resume="allow",
            dir=str(started.run),
            config=settings(started),
        )

    def on_log(self, entry: LogEntry) -> None:
        """See `Callback`."""
        self.logged.log(entry.numbers(), step=entry.step)

    def on_end(self, complete: bool) -> None:
        """See `Callback`."""
        self.logged.finish(exit_code=0 if complete else 1)


class MLflow(Callback):
    """Runs in MLflow: at MLFLOW_TRACKING_URI, or else in the folder mlruns of the run.

    Args:
        experiment: that the run is part of.

    Raises:
        ImportError: MLflow is not installed.
    """

    def __init__(self, experiment: str = PROJECT) -> None:
        self.mlflow, self.experiment = library("mlflow", "mlflow"), experiment

    def on_start(self, started: Started) -> None:
        """See `Callback`."""
        place = os.environ.get("MLFLOW_TRACKING_URI")
        if not place:
            place = f"file:{(started.run / 'mlruns').resolve()}"
            # MLflow 3 asks for it; a database would need more than the extra installs.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self.client = self.mlflow.MlflowClient(tracking_uri=place)
        known = self.client.get_experiment_by_name(self.experiment)
        number = known.experiment_id if known else self.client.create_experiment(self.experiment)
        self.logged = self.client.create_run(number, run_name=started.run.name).info.run_id
        for name, value in settings(started).items():
            self.client.log_param(self.logged, name, value)

    def on_log(self, entry: LogEntry) -> None:
        """See `Callback`."""
        for name, value in entry.numbers().items():
            self.client.log_metric(self.logged, mlflow_name(name), value, step=entry.step)

    def on_end(self, complete: bool) -> None:
        """See `Callback`."""
        self.client.set_terminated(self.logged, "FINISHED" if complete else "KILLED")


def library(name: str, extra: str) -> Any:
    """A library that is installed with an extra.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"logging to {name} needs it installed ({error}): pip install 'melmask[{extra}]'") from error


def named(run: Path) -> str:
    """A name of a run's folder that is the same when it is resumed, and no other folder's."""
    return f"{run.name}-{hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:8]}"


def settings(started: Started) -> dict[str, str]:
    """The recipe and the data, as text."""
    values = asdict(started.recipe) | {"store": started.store.place, "num_steps": started.num_steps}
    return {name: as_text(value) for name, value in values.items()}


def mlflow_name(name: str) -> str:
    """A metric's name of the characters that MLflow takes.

    >>> mlflow_name("knn accuracy, birds 100 %")
    'knn accuracy  birds 100  '
    """
    return "".join(char if char.isalnum() or char in "_-. /" else " " for char in name)
