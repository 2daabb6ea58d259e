"""What tests of modules outside the package share: what they import is forgotten after each."""

import sys
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def imports_are_forgotten(tmp_path: Path):
    """Modules that a test wrote to its own folder and imported are not found by the next one, nor is the folder."""
    paths = list(sys.path)
    yield
    sys.path[:] = paths
    for name, module in list(sys.modules.items()):
        if str(tmp_path) in str(getattr(module, "__file__", None)):
            del sys.modules[name]
