"""Self-supervised audio representations by masked prediction on log-mel spectrograms.

The public names are listed here and described in `melmask docs api`; each is imported when it is first used.
"""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from melmask import masking
    from melmask.api import prepare, pretrain, recipe
    from melmask.encoders.registry import load
    from melmask.evaluation.compare import compare
    from melmask.evaluation.run import evaluate
    from melmask.models.file import load_model
    from melmask.models.run import predict
    from melmask.types import PatchGrid

    __version__: str

# Read by OpenMP as torch loads. A thread that waits for the others of an operation spins so often before it sleeps; ten
# times as often by default, which costs more beside other processes and gains nothing on an idle machine.
if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")

__all__ = [
    "PatchGrid", "__version__", "compare", "evaluate", "load", "load_model", "masking", "predict", "prepare",
    "pretrain", "recipe",
]  # fmt: skip

_DEFINED_IN = {
    "PatchGrid": "melmask.types",
    "compare": "melmask.evaluation.compare",
    "evaluate": "melmask.evaluation.run",
    "load": "melmask.encoders.registry",
    "load_model": "melmask.models.file",
    "predict": "melmask.models.run",
    "prepare": "melmask.api",
    "pretrain": "melmask.api",
    "recipe": "melmask.api",
}


def __getattr__(name: str) -> Any:
    """Import a public name, the first time that it is asked for."""
    if name == "masking":
        return import_module("melmask.masking")
    if name == "__version__":
        from importlib.metadata import version

        return version("melmask")
    if name not in _DEFINED_IN:
        raise AttributeError(f"module 'melmask' has no attribute {name!r}; the public names are {', '.join(__all__)}")
    return getattr(import_module(_DEFINED_IN[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
