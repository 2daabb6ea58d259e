"""The classifiers that read a task's classes from frozen features, and how they are named.

Each only fits and predicts; `melmask.probes.run` owns what must not differ between them.
"""

import ast
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, get_args, get_origin

from melmask.probes.attentive import AttentiveProbe
from melmask.probes.base import Probe
from melmask.probes.fewshot import FewShotProbe
from melmask.probes.knn import KnnProbe
from melmask.probes.linear import LinearProbe
from melmask.probes.logistic import LogisticProbe
from melmask.probes.mlp import MlpProbe
from melmask.probes.ridge import RidgeProbe

PROBES: dict[str, Probe] = {
    "linear": LinearProbe(),
    "logistic": LogisticProbe(),
    "ridge": RidgeProbe(),
    "knn": KnnProbe(),
    "mlp": MlpProbe(),
    "fewshot": FewShotProbe(),
    "attentive": AttentiveProbe(),
}


def make_probe(name: str, options: Mapping[str, Any] | None = None) -> Probe:
    """A probe by its name, with settings of its own.

    Args:
        name: a key of `PROBES`; settings may follow a colon, written as Python writes them.
        options: further settings by name.

    Raises:
        ValueError: no such probe or setting, or a value out of its range.

    >>> make_probe("linear:learning_rate=3e-5") == make_probe("linear", {"learning_rate": 3e-5})
    True
    >>> make_probe("logistic:strengths=(0.1, 1.0), max_iterations=50").strengths
    (0.1, 1.0)
    """
    base, _, written = name.partition(":")
    if base not in PROBES:
        raise ValueError(f"no probe {base!r}: choose from {sorted(PROBES)}")
    probe: Any = PROBES[base]
    try:
        call = ast.parse(f"settings({written})", mode="eval").body
        given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}  # type: ignore[attr-defined]
        if call.args:  # type: ignore[attr-defined]
            raise ValueError("a value without a name")
    except (ValueError, SyntaxError) as error:
        raise ValueError(f"{name!r} is not a probe and its settings: write {base}:NAME=NUMBER,NAME=NUMBER") from error
    kinds = {field.name: field.type for field in fields(probe)}
    settings = {}
    for setting, value in {**given, **(options or {})}.items():
        if setting not in kinds:
            raise ValueError(f"{base} has no setting {setting!r}: choose from {sorted(kinds)}")
        settings[setting] = _as_kind(f"{base}:{setting}", value, kinds[setting])
    return replace(probe, **settings)


def label_of(probe: Probe) -> str:
    """How a probe is called in tables: its name, with the settings that are not the usual ones.

    >>> label_of(KnnProbe(num_neighbours=3))
    'knn:num_neighbours=3'
    """
    for name, usual in PROBES.items():
        if type(probe) is type(usual) and is_dataclass(probe):
            mine = {field.name: getattr(probe, field.name) for field in fields(probe)}
            changed = [f"{key}={value!r}" for key, value in mine.items() if value != getattr(usual, key)]
            return ":".join([name, ",".join(changed)] if changed else [name])
    return type(probe).__name__


def _as_kind(setting: str, value: Any, kind: Any) -> Any:
    """A setting's value as its type wants it: a whole number from 1 on, a positive number, or several."""
    if get_origin(kind) is tuple:
        several = value if isinstance(value, tuple | list) else (value,)
        if not several:
            raise ValueError(f"{setting} is empty: give one value at least")
        return tuple(_as_kind(setting, one, get_args(kind)[0]) for one in several)
    is_whole = kind is int
    if isinstance(value, bool) or not isinstance(value, int if is_whole else int | float):
        raise ValueError(f"{setting}={value!r}: give a {'whole ' if is_whole else ''}number")
    may_be_zero = setting.endswith(("weight_decay", "dropout"))
    if not (value >= 1 if is_whole else 0 < value < math.inf or (value == 0 and may_be_zero)):
        wanted = "1 or more" if is_whole else "a positive number"
        raise ValueError(f"{setting}={value!r} is out of range: give {wanted}")
    return value if is_whole else float(value)
