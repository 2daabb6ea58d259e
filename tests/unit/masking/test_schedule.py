"""Hints over a run."""

import pytest

from melmask.masking import HintSchedule


@pytest.mark.parametrize("power", [1.0, 2.0, 4.0, 8.0])
def test_hints_follow_the_papers_formula_from_the_start_on(power):
    schedule = HintSchedule(power=power, start=50 / 300)
    for epoch in range(300):
        expected = 1.0 if epoch < 50 else 1 - (epoch / 300) ** power
        assert schedule(epoch / 300) == pytest.approx(expected, abs=1e-12)
    assert schedule(1.0) == 0.0


def test_a_constant_holds_throughout():
    assert {HintSchedule(constant=0.5)(progress) for progress in (0.0, 0.1, 0.9, 1.0)} == {0.5}
    assert HintSchedule(constant=0.0)(0.0) == 0.0


@pytest.mark.parametrize("setting", [{"power": 0.0}, {"power": -1.0}, {"start": -0.1}, {"start": 1.1}])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match=r"power > 0 and start in \[0, 1\]"):
        HintSchedule(**setting)


@pytest.mark.parametrize("constant", [-0.1, 1.5])
def test_a_constant_out_of_range_is_refused(constant):
    with pytest.raises(ValueError, match=rf"\[0, 1\], got {constant}"):
        HintSchedule(constant=constant)
