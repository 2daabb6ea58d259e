"""The state of a training on disk: a model, its optimiser and what else must be restored, in one safetensors file."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn
from torch.optim import Optimizer

from melmask.files import read_tensors, select_prefix, write_tensors

REMEDY = "restore it from a copy; or remove it, and train again from the start"
MODEL, OPTIMISER = "model.", "optimiser."


def save_training(
    path: Path,
    model: nn.Module,
    optimiser: Optimizer,
    extra: Mapping[str, Tensor],
    metadata: Mapping[str, str],
) -> None:
    """Save the state of a training between two steps, atomically.

    The tensors are named ``model.NAME``, ``optimiser.KEY.NAME`` with the parameter's name and the key of the
    optimiser's state, and as in ``extra``. What several modules share is saved once, under its first name.

    Args:
        path: the file.
        model: its parameters and buffers are saved.
        optimiser: of parameters of the model.
        extra: other tensors to restore; their names start with neither "model." nor "optimiser.".
        metadata: text to store beside the tensors.
    """
    assert not any(name.startswith((MODEL, OPTIMISER)) for name in extra)
    state, first = model.state_dict(), first_names(model)
    tensors = dict(extra) | {MODEL + name: state[name] for name in dict.fromkeys(first.values())}
    for name, parameter in model.named_parameters():
        own = optimiser.state.get(parameter, {})
        tensors |= {f"{OPTIMISER}{key}.{name}": value for key, value in own.items() if value is not None}
    write_tensors(path, tensors, dict(metadata))


def load_training(path: Path, model: nn.Module, optimiser: Optimizer) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Restore model and optimiser from what `save_training` saved.

    Returns:
        The extra tensors, on the CPU, and the metadata.

    Raises:
        ValueError: the file is missing, damaged or of another model.
    """
    tensors, metadata = read_tensors(path, remedy=REMEDY)
    load_weights(path, model, tensors)
    parameters = dict(model.named_parameters())
    for key_and_name, value in select_prefix(tensors, OPTIMISER).items():
        key, _, name = key_and_name.partition(".")
        if name not in parameters:
            raise ValueError(f"{path} is of another model than the recipe's: it has no parameter {name!r}; {REMEDY}")
        parameter = parameters[name]
        optimiser.state[parameter][key] = value.to(parameter.device)
    extra = {name: tensor for name, tensor in tensors.items() if not name.startswith((MODEL, OPTIMISER))}
    return extra, metadata


def step_of(path: Path, metadata: Mapping[str, str]) -> int:
    """The number of optimiser steps that the metadata of a checkpoint state.

    Raises:
        ValueError: they state none.
    """
    try:
        return int(metadata["step"])
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path} is no checkpoint of a run: its metadata state no step; {REMEDY}") from error


def load_weights(path: Path, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Restore a model's parameters and buffers from the tensors of a checkpoint.

    Args:
        path: the file they were read from, for the message.
        model: to be restored in place.
        tensors: as `save_training` names them.

    Raises:
        ValueError: they are of another model.
    """
    saved = select_prefix(dict(tensors), MODEL)
    shared = {name: saved[first] for name, first in first_names(model).items() if first in saved}
    try:
        model.load_state_dict(saved | shared)
    except RuntimeError as error:
        raise ValueError(f"{path} is of another model than the recipe's: {error}") from error


def first_names(model: nn.Module) -> dict[str, str]:
    """For every name in the model's state, the first name of the same tensor: another if modules share it.

    >>> layer = nn.Linear(2, 2)
    >>> first_names(nn.Sequential(layer, layer))
    {'0.weight': '0.weight', '0.bias': '0.bias', '1.weight': '0.weight', '1.bias': '0.bias'}
    """
    first: dict[int, str] = {}
    state = model.state_dict(keep_vars=True)  # the parameters themselves, and not new tensors of their values
    return {name: first.setdefault(id(tensor), name) for name, tensor in state.items()}
