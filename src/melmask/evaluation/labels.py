"""Labels and splits as tables write them: classes joined by ``;``, by ``|`` or as a list; names of official splits."""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped

# Names of official splits, without case. "dev" is the training split where no other name means that.
DEVELOPMENT = ("dev", "devel", "development")
OFFICIAL = {
    "train": ("train", "training", "trn", "tr"),
    "valid": ("val", "valid", "validation", "validate", "vld", *DEVELOPMENT),
    "test": ("test", "testing", "tst", "te", "eval", "evaluation", "evaluate", "heldout", "holdout"),
}
BRACKETS = {"[": "]", "(": ")", "{": "}"}
QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")
SUSPECTS = ("/", "+", "&")  # in names of classes, and between labels; a comma is looked at more closely


def split_labels(labels: Sequence[str], task: str) -> tuple[list[list[str]], tuple[str, ...]]:
    """The class names in each clip's label, and notes on how they were read.

    Args:
        labels: as written, one a clip; an empty one has no class. A ``;`` anywhere joins labels, and then nothing else
            does. Without one, ``|`` does, and so do lists in brackets, such as ``['a', 'b']``.
        task: its name, for messages.

    Raises:
        ValueError: commas seem to join labels. Names of classes contain commas too, so they are never split.

    >>> split_labels(["dog; cat", "dog"], "pets")
    ([['dog', 'cat'], ['dog']], ())
    >>> split_labels(["['dog', 'cat']", "[]"], "pets")[0]
    [['dog', 'cat'], []]
    """
    written = [label.strip() for label in labels]
    given = [label for label in written if label]
    if any(";" in label for label in given):
        return [_parts(label, ";") for label in written], ()
    if given and all(BRACKETS.get(label[0]) == label[-1] and len(label) > 1 for label in given):
        return [_listed(label) for label in written], (f"labels such as {given[0]} are read as lists",)
    if any("|" in label for label in given):
        example = next(label for label in given if "|" in label)
        return [_parts(label, "|") for label in written], (f"labels such as {example} are split at '|'",)
    return [[label] if label else [] for label in written], _suspicious(given, task)


def _parts(label: str, separator: str) -> list[str]:
    return [part.strip() for part in label.split(separator) if part.strip()]


def _listed(label: str) -> list[str]:
    inner = label[1:-1]
    quoted = [(single or double).strip() for single, double in QUOTED.findall(inner)]
    return [part for part in quoted if part] if quoted else _parts(inner, ",")


def _suspicious(labels: Sequence[str], task: str) -> tuple[str, ...]:
    """A note on labels that may be several; an error if there is no doubt."""
    names = dict.fromkeys(labels)
    joined = [name for name in names if "," in name.strip(",")]
    for name in joined:
        parts = _parts(name, ",")
        alone = next((part for part in parts if part in names), None)
        others = [other for other in joined if other != name and ", " not in other + name]
        again = [other for other in others if set(_parts(other, ",")) & set(parts)]
        if alone or again:
            why = f"{alone!r} is a label of other clips" if alone else f"{again[0]!r} is another label"
            raise ValueError(
                f"task {task} has the label {name!r}, and {why}: join several labels of a clip by ';'. If this is the "
                "name of one class, write it without a comma"
            )
    suspects = [(name, ",") for name in joined]
    suspects += [(name, sign) for sign in SUSPECTS for name in names if set(_parts(name, sign)) & (set(names) - {name})]
    return tuple(
        f"the label {name!r} is one class, as all labels with {sign!r}: several labels of a clip are joined by ';'"
        for name, sign in suspects[:1]
    )


def known_splits() -> str:
    """The names of official splits, in words."""
    return "known are " + "; ".join(f"{', '.join(names)} for {role}" for role, names in OFFICIAL.items())


def role_of(split: str) -> str:
    """What an official split is for: train, valid or test; empty if the name is not known."""
    name = split.strip().lower()
    return next((role for role, names in OFFICIAL.items() if name in names), "")


def roles_of(folds: Sequence[str]) -> Shaped[np.ndarray, " clip"]:
    """The role of each clip's fold; development clips are for training if no others are."""
    roles = {fold: role_of(fold) for fold in set(folds)}
    if "train" not in roles.values():
        roles |= {fold: "train" for fold in roles if fold.strip().lower() in DEVELOPMENT}
    return np.array([roles[fold] for fold in folds])
