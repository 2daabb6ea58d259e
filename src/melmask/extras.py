"""The optional packages: which extra brings which, and a clear error before any work where one is missing."""

import importlib.util
import sys

# The extras of pyproject.toml that a command or a call may need, and what they bring, by the names that are imported.
EXTRAS = {
    "demo": ("pretty_midi", "sf2utils", "espeakng_loader", *(("audioop",) if sys.version_info >= (3, 13) else ())),
    "events": ("sed_eval", "pkg_resources"),
    "av": ("av",),
    "hdf5": ("h5py",),
    "onnx": ("onnxruntime",),
    "hf": ("transformers",),
    "sklearn": ("sklearn",),
    "search": ("usearch",),
    "slurm": ("submitit",),
}


def need(extra: str, what: str) -> None:
    """Check that an extra is installed, before anything is done that ends in its absence.

    Args:
        extra: its name.
        what: needs it: "melmask detect".

    Raises:
        ImportError: it is not; the message says how to install it.
    """
    missing = [name for name in EXTRAS[extra] if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"{what} needs {' and '.join(missing)}: pip install 'melmask[{extra}]'")
