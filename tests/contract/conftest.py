"""Every masking strategy with every choice of its options, so that one added later is held to the contract too."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch

from melmask.masking import STRATEGIES, MaskingStrategy, make_strategy
from melmask.types import PatchGrid


def cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each strategy as it comes, and once more for every other value of an option that is a choice or a switch."""
    for name, kind in STRATEGIES.items():
        yield name, {}
        for field in fields(kind):
            hint = get_type_hints(kind)[field.name]
            choices = get_args(hint) if get_origin(hint) is Literal else (False, True) if hint is bool else ()
            yield from ((name, {field.name: choice}) for choice in choices if choice != field.default)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``strategy`` is every strategy, ``informed`` every one that looks at something."""
    made = {"-".join([name, *(f"{k}={v}" for k, v in options.items())]): (name, options) for name, options in cases()}
    strategies = {case: make_strategy(*made[case]) for case in made}
    informed = {case: strategy for case, strategy in strategies.items() if strategy.needs != "nothing"}
    for argument, chosen in (("strategy", strategies), ("informed", informed)):
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, list(chosen.values()), ids=list(chosen))


@pytest.fixture(scope="session")
def guide_for():
    """A maker of random guides of the kind a strategy asks for, such as uneven patches or clustered features."""

    def guide_for(strategy: MaskingStrategy, batch_size: int, grid: PatchGrid, seed: int = 0) -> torch.Tensor | None:
        rng = torch.Generator().manual_seed(seed)
        shape = (batch_size, grid.num_patches)
        if strategy.needs == "nothing":
            return None
        if strategy.needs == "patches":
            return torch.randn(*shape, 16, generator=rng) * torch.randn(*shape, 1, generator=rng).exp() - 1.0
        if strategy.needs == "attention":
            return torch.randn(*shape, 3, generator=rng).softmax(dim=1)
        if strategy.needs == "loss":
            return torch.randn(*shape, 1, generator=rng).exp()
        towards = torch.where(torch.rand(*shape, 1, generator=rng) < 0.4, 1.0, -0.5)
        return torch.randn(*shape, 8, generator=rng) + towards * torch.randn(batch_size, 1, 8, generator=rng)

    return guide_for
