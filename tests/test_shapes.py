"""Shapes are checked in every test, and no longer after its first calls."""

import jaxtyping
import pytest
import torch

import shapes
from melmask.patches import patchify

FLAT = torch.zeros(80, 96)


@pytest.mark.parametrize("again", [False, True])
def test_every_test_has_its_checks(again):
    with pytest.raises(jaxtyping.TypeCheckError):
        patchify(FLAT, (16, 16))
    for _ in range(shapes.NUM_CHECKS):
        patchify(FLAT[None], (16, 16))
    with pytest.raises(Exception) as raised:
        patchify(FLAT, (16, 16))
    assert not isinstance(raised.value, jaxtyping.TypeCheckError)


def test_a_test_that_wants_none_has_none(as_for_users):
    shapes.check_again()
    with pytest.raises(Exception) as raised:
        patchify(FLAT, (16, 16))
    assert not isinstance(raised.value, jaxtyping.TypeCheckError)
