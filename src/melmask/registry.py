"""How a name becomes a class: a plain dict of names, or ``package.module:Class`` for what stands outside melmask."""

import importlib
import sys
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import TypeVar

T = TypeVar("T")


def lookup(name: str, registered: Mapping[str, T], kind: str) -> T:
    """What a name stands for: an entry of the registry, or an attribute of a module outside the package.

    ``package.module:Attribute`` imports the module as any import does. A module that is not found so is looked for in
    the current folder, which then joins the end of ``sys.path``: there it shadows nothing that is installed.

    Args:
        name: a key of ``registered``, or "package.module:Attribute".
        registered: the names that the package knows.
        kind: what the names stand for, for messages: "strategy", "framework", ...

    Raises:
        ValueError: the name is neither registered nor of that form, or its module or attribute does not exist.

    >>> lookup("one", {"one": 1, "two": 2}, "number")
    1
    >>> lookup("math:pi", {"one": 1.0}, "number")
    3.141592653589793
    """
    if name in registered:
        return registered[name]
    module_name, colon, attribute = name.partition(":")
    if not (colon and attribute.isidentifier() and all(part.isidentifier() for part in module_name.split("."))):
        raise ValueError(f"{unknown(name, registered, kind)}; name one of your own as package.module:Class")
    module = _imported(module_name, name, kind)
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        raise ValueError(f"no {kind} {name!r}: {module.__file__} defines no {attribute}") from error


def unknown(name: str, known: Iterable[str], kind: str) -> str:
    """What to say of a name that is not known: the nearest that is, and all of them.

    >>> unknown("dwn", ["random", "dwm"], "strategy")
    "no strategy 'dwn': did you mean dwm? there are: random, dwm"
    """
    known = list(known)
    return f"no {kind} {name!r}{nearest(name, known) or ';'} there are: {', '.join(known)}"


def nearest(name: str, known: Iterable[str]) -> str:
    """A question for the known name that is nearest to a mistyped one; "" where none is near."""
    close = get_close_matches(name, known, n=1)
    return f": did you mean {close[0]}?" if close else ""


def _imported(module_name: str, name: str, kind: str) -> ModuleType:
    try:
        try:
            return importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            folder = str(Path.cwd())
            if not _is_part_of(module_name, error.name) or folder in sys.path:
                raise
            sys.path.append(folder)  # a console script, unlike python -m, does not search the current folder
            return importlib.import_module(module_name)
    except ImportError as error:
        remedy = "run from the folder that holds it, or put that folder on PYTHONPATH"
        if not _is_part_of(module_name, error.name):
            remedy = f"what {module_name} imports must be installed too"
        raise ValueError(f"no {kind} {name!r}: {error}; {remedy}") from error


def _is_part_of(module_name: str, missing: str | None) -> bool:
    """Whether what is missing is the module itself or a package that holds it, and not something that it imports."""
    return f"{module_name}.".startswith(f"{missing}.")
