"""Callbacks of a training that come with melmask: an online probe, and loggers for other tools, each an extra."""

from collections.abc import Callable

from melmask.callbacks.loggers import MLflow, TensorBoard, Trackio, Wandb
from melmask.callbacks.online_probe import OnlineProbe
from melmask.registry import lookup
from melmask.train.callbacks import Callback, Started

__all__ = ["LOGGERS", "Callback", "MLflow", "OnlineProbe", "Started", "TensorBoard", "Trackio", "Wandb", "make_logger"]

LOGGERS: dict[str, Callable[[], Callback]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "wandb": Wandb,
    "mlflow": MLflow,
}


def make_logger(name: str) -> Callback:
    """The logger of that name.

    Args:
        name: a key of `LOGGERS`, or "package.module:Class" of a `Callback` outside the package.

    Raises:
        ValueError: there is none.
        ImportError: its library is not installed.
    """
    made = lookup(name, LOGGERS, "logger")()
    if not isinstance(made, Callback):
        raise ValueError(f"{name} is no logger: make it a subclass of melmask.callbacks.Callback")
    return made
