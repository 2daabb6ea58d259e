"""Dataclasses of values that were read from JSON, each field checked against its annotation."""

import dataclasses
import json
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
KINDS: dict[Any, str] = {
    int: "a whole number", float: "a number", str: "a text", bool: "true or false", dict: "an object", list: "a list",
    NoneType: "null",
}  # fmt: skip


def make(cls: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass of the values of its fields; JSON's lists become tuples where the annotation says so.

    Args:
        cls: a dataclass, whose annotations are of what JSON holds, and of other such dataclasses.
        values: by field; those with a default may be left out.

    Raises:
        ValueError: a field is missing, unknown or of another type, or the class refuses its value; it names the field.

    >>> Point = dataclasses.make_dataclass("Point", [("x", int), ("y", tuple[float, ...])])
    >>> make(Point, {"x": 1, "y": [2.5]})
    Point(x=1, y=(2.5,))
    >>> make(Point, {"x": "a", "y": []})
    Traceback (most recent call last):
    ValueError: field 'x' is "a", not a whole number
    """
    known = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise ValueError(f"it has a field {name!r}, which this version does not know")
    for name, field in known.items():
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if name not in values and not has_default:
            raise ValueError(f"it has no field {name!r}")
    hints = get_type_hints(cls)
    return cls(**{name: fitted(value, hints[name], f"field {name!r}") for name, value in values.items()})


def fitted(value: Any, hint: Any, what: str = "it") -> Any:
    """A value of JSON as its annotation has it: lists as tuples, objects as dataclasses.

    Whole numbers are numbers; true and false are none.

    Args:
        value: as `json.loads` gives it.
        hint: the annotation.
        what: the value is, for the message.

    Raises:
        ValueError: it is of another type.

    >>> fitted([1, 2.5], tuple[float, ...]), fitted(None, int | None)
    ((1, 2.5), None)
    """
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, UnionType):
        for one in inner:
            try:
                return fitted(value, one)
            except ValueError:
                continue
        raise _unfit(what, value, " or ".join(_named(one) for one in inner))
    if origin is Literal:
        if not isinstance(value, str | int | bool | None) or value not in inner:
            raise _unfit(what, value, f"one of {', '.join(map(str, inner))}")
        return value
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return make(hint, value)
    if origin in (tuple, list, Sequence) and isinstance(value, list | tuple):
        return _fitted_items(value, hint, what)
    if origin in (dict, Mapping, MutableMapping) and isinstance(value, dict):
        return {name: fitted(item, inner[1], f"{name!r} of {what}") for name, item in value.items()}
    if not _is(value, hint):
        raise _unfit(what, value, _named(hint))
    return value


def _fitted_items(values: Sequence[Any], hint: Any, what: str) -> Any:
    """A list of JSON as the tuple or list of an annotation."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is not tuple:
        return [fitted(item, inner[0], f"an item of {what}") for item in values]
    hints = [inner[0]] * len(values) if len(inner) == 2 and inner[1] is Ellipsis else list(inner)
    if len(hints) != len(values):
        raise _unfit(what, values, f"a list of {len(hints)}")
    return tuple(fitted(item, one, f"an item of {what}") for item, one in zip(values, hints, strict=True))


def check_fields(values: Mapping[str, Any], kinds: Mapping[str, type]) -> None:
    """Check that there are these fields, each of its type: int, float, str, bool, list or dict; NaN is no float here.

    Raises:
        ValueError: one is missing or of another type; it names the field.

    >>> check_fields({"std": float("nan")}, {"std": float})
    Traceback (most recent call last):
    ValueError: field 'std' is NaN, not a finite number
    """
    for name, kind in kinds.items():
        if name not in values:
            raise ValueError(f"it has no field {name!r}")
        fitted(values[name], kind, f"field {name!r}")
        if kind is float and not abs(values[name]) <= sys.float_info.max:
            raise _unfit(f"field {name!r}", values[name], "a finite number")


def _is(value: Any, kind: Any) -> bool:
    if kind is float:
        kind = (int, float)
    return isinstance(kind, type | tuple) and isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _named(hint: Any) -> str:
    """What a value of an annotation is, in words."""
    kinds = {tuple: "a list", list: "a list", Sequence: "a list"}
    return KINDS.get(hint) or kinds.get(get_origin(hint), "an object")


def _unfit(what: str, value: Any, wanted: str) -> ValueError:
    return ValueError(f"{what} is {short(value)}, not {wanted}")


def short(value: Any) -> str:
    """A value as the start of its JSON, for a message.

    >>> short(["a", None])
    '["a", null]'
    """
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
