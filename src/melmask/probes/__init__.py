"""The classifiers that predict a task's classes from frozen features, and how they are named.

A probe only fits and predicts; `melmask.probes.run` does what is the same for all of them.
"""

import ast
from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from melmask.probes.attentive import AttentiveProbe
from melmask.probes.base import Probe
from melmask.probes.fewshot import FewShotProbe
from melmask.probes.knn import KnnProbe
from melmask.probes.linear import LinearProbe
from melmask.probes.logistic import LogisticProbe
from melmask.probes.mlp import MlpProbe
from melmask.probes.ridge import RidgeProbe
from melmask.registry import lookup

GROUP = "melmask.probes"  # of the entry points by which an installed package offers probes
PROBES: dict[str, type[Probe]] = {
    "linear": LinearProbe,
    "logistic": LogisticProbe,
    "ridge": RidgeProbe,
    "knn": KnnProbe,
    "mlp": MlpProbe,
    "fewshot": FewShotProbe,
    "attentive": AttentiveProbe,
}
WANTED = {int: "a whole number", float: "a number", bool: "True or False", str: "a text in quotes"}


def make_probe(name: str, options: Mapping[str, Any] | None = None) -> Probe:
    """Make a probe from its name, with settings of its own.

    Args:
        name: a key of `PROBES`, a name that an installed package offers, or "package.module:Class" of a probe outside
            the package; settings may follow a colon, written as in Python.
        options: further settings by name.

    Raises:
        ValueError: no such probe or setting, a value out of its range, or a class that is not a probe.

    >>> make_probe("linear:learning_rate=3e-5") == make_probe("linear", {"learning_rate": 3e-5})
    True
    >>> make_probe("logistic:strengths=(0.1, 1.0), max_iterations=50").strengths
    (0.1, 1.0)
    """
    base, written = _split_name(name)
    probe_class = lookup(base, PROBES, "probe", GROUP)
    given = {**_parse_settings(base, written), **(options or {})}
    known = [field.name for field in _settings_of(probe_class)]
    for setting in given:
        if setting not in known:
            raise ValueError(f"{base} has no setting {setting!r}: choose from {sorted(known)}")
    kinds = get_type_hints(probe_class) if given else {}
    settings = {setting: _checked(f"{base}:{setting}", value, kinds[setting]) for setting, value in given.items()}
    probe = probe_class(**settings) if isinstance(probe_class, type) else None
    if not isinstance(probe, Probe):
        raise ValueError(f"{base} is not a probe: make it a subclass of melmask.probes.base.Probe")
    return probe


def label_of(probe: Probe) -> str:
    """Name a probe as `make_probe` takes it, with the settings that differ from the defaults.

    >>> label_of(KnnProbe(num_neighbours=3))
    'knn:num_neighbours=3'
    """
    names = [name for name, probe_class in PROBES.items() if type(probe) is probe_class]
    base = names[0] if names else f"{type(probe).__module__}:{type(probe).__qualname__}"
    values = [(field, getattr(probe, field.name)) for field in _settings_of(type(probe))]
    changed = [f"{field.name}={value!r}" for field, value in values if value != field.default]
    return ":".join([base, ",".join(changed)] if changed else [base])


def can_be_saved(probe: Probe) -> bool:
    """Whether it trains to tensors that it predicts by; one that defines `fit_predict` alone does not.

    >>> can_be_saved(KnnProbe())
    True
    """
    return type(probe).train is not Probe.train and type(probe).predict is not Probe.predict


def _settings_of(probe_class: type[Any]) -> tuple[Field[Any], ...]:
    return fields(probe_class) if is_dataclass(probe_class) else ()


def _split_name(name: str) -> tuple[str, str]:
    """The part of a probe's name that `lookup` takes, and the settings after it.

    >>> _split_name("knn:num_neighbours=3"), _split_name("package.module:Class:size=2")
    (('knn', 'num_neighbours=3'), ('package.module:Class', 'size=2'))
    """
    first, _, rest = name.partition(":")
    attribute, _, written = rest.partition(":")
    if first in PROBES or not attribute.isidentifier():
        return first, rest
    return f"{first}:{attribute}", written


def _parse_settings(base: str, written: str) -> dict[str, Any]:
    """Settings from NAME=VALUE,NAME=VALUE; only literals are read, and nothing is run."""
    try:
        call = ast.parse(f"settings({written})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("a value without a name")
        return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (ValueError, SyntaxError) as error:
        raise ValueError(
            f"'{base}:{written}' is not a probe and its settings: write {base}:NAME=NUMBER,NAME=NUMBER"
        ) from error


def _checked(setting: str, value: Any, kind: Any) -> Any:
    """The value as its type wants it: floats may be written as integers, and tuples of one as the one."""
    if get_origin(kind) is tuple:
        several = value if isinstance(value, tuple | list) else (value,)
        return tuple(_checked(setting, one, get_args(kind)[0]) for one in several)
    kinds = get_args(kind) or (kind,)
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) not in kinds:
        wanted = {int: "a whole number", float: "a number", bool: "True or False", str: "a text in quotes"}.get(
            kinds[0], str(kind)
        )
        raise ValueError(f"{setting}={value!r}: give {wanted}")
    return value
