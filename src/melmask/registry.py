"""How a name becomes a class: a plain dict, what an installed package offers, or ``package.module:Class``."""

import importlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")


def lookup(name: str, registered: Mapping[str, T], kind: str, group: str = "") -> T:
    """What a name stands for: an entry of the registry, of an installed package, or an attribute of any module.

    An installed package offers names of its own by the entry points of ``group``; it can't replace a registered one.

    ``package.module:Attribute`` imports the module as any import does. A module that is not found so is looked for in
    the current folder, which then joins the end of ``sys.path``: there it shadows nothing that is installed.

    Args:
        name: a key of ``registered``, or "package.module:Attribute".
        registered: the names that the package knows.
        kind: what the names stand for, for messages: "strategy", "framework", ...
        group: of entry points, such as "melmask.strategies"; "" for none.

    Raises:
        ValueError: the name is neither registered nor of that form, its module or attribute does not exist, or several
            packages offer it.

    >>> lookup("one", {"one": 1, "two": 2}, "number")
    1
    >>> lookup("math:pi", {"one": 1.0}, "number")
    3.141592653589793
    """
    if name in registered:
        return registered[name]
    offered = offered_by_packages(group) if group else {}
    if name in offered:
        return _loaded(offered[name], name, kind)
    module_name, colon, attribute = name.partition(":")
    if not (colon and attribute.isidentifier() and all(part.isidentifier() for part in module_name.split("."))):
        raise ValueError(
            f"{unknown(name, [*registered, *offered], kind)}; name one of your own as package.module:Class"
        )
    module = _imported(module_name, name, kind)
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        raise ValueError(f"no {kind} {name!r}: {module.__file__} defines no {attribute}") from error


def offered_by_packages(group: str) -> dict[str, list[EntryPoint]]:
    """The names that installed packages offer, by the entry points of a group.

    >>> "sgim" in offered_by_packages("melmask.strategies")
    False
    """
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=group):
        found.setdefault(point.name, []).append(point)
    return found


def _loaded(points: Sequence[EntryPoint], name: str, kind: str) -> Any:
    """What an entry point stands for.

    Raises:
        ValueError: several stand for different things, or it cannot be imported.
    """
    values = sorted({point.value for point in points})
    if len(values) > 1:
        raise ValueError(f"the {kind} {name!r} is offered by several packages: name one of {', '.join(values)}")
    try:
        return points[0].load()
    except (ImportError, AttributeError) as error:
        package = points[0].dist.name if points[0].dist else "a package"
        raise ValueError(
            f"no {kind} {name!r}: {package} offers it as {values[0]}, which cannot be imported: {error}; install that "
            "package again, or ask who maintains it"
        ) from error


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
