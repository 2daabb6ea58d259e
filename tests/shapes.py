"""How far shapes are checked under pytest: in the first calls of every test.

A training makes the same few calls by the thousand, and to check each of them takes as long as the training.
"""

import functools
from collections.abc import Callable
from typing import Any

import jaxtyping
from beartype import beartype

NUM_CHECKS = 5000  # a test; about a second
_done = 0


def first_calls(function: Callable[..., Any]) -> Callable[..., Any]:
    """The type checker of --jaxtyping-packages: beartype, until a test has had its number of checks."""
    checked = beartype(function)

    @functools.wraps(checked)
    def counted(*args: Any, **kwargs: Any) -> Any:
        global _done
        _done += 1
        if _done == NUM_CHECKS:
            jaxtyping.config.update("jaxtyping_disable", True)
        return checked(*args, **kwargs)

    return counted


def check_again() -> None:
    """The next calls are checked; does not end what a test has switched off itself."""
    global _done
    if _done >= NUM_CHECKS:
        jaxtyping.config.update("jaxtyping_disable", False)
    _done = 0


def pytest_runtest_setup() -> None:
    """Before what a test shares with others is made."""
    check_again()


def pytest_runtest_call() -> None:
    """Before the test, as its setup may have had all checks."""
    check_again()
