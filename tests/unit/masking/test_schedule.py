"""Hints, guidance and exponents over a run."""

import itertools

import pytest

from melmask.masking import ExponentSchedule, GuidanceSchedule, HintSchedule
from melmask.masking.base import num_hints_of
from melmask.masking.laws import guidance, hint_ratio_for


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


def test_a_cosine_falls_from_one_to_nothing_and_is_half_way_in_the_middle():
    schedule = HintSchedule(shape="cosine", start=0.25)
    values = [schedule(step / 100) for step in range(101)]
    assert values[:25] == [1.0] * 25 and values[50] == pytest.approx(0.5) and values[100] == pytest.approx(0.0)
    assert values[25] == pytest.approx(0.853553) and values[25:] == sorted(values[25:], reverse=True)


def test_a_delayed_strategy_is_random_until_its_start_and_pure_from_then_on():
    schedule = HintSchedule(shape="delayed", start=50 / 300)
    assert [schedule(epoch / 300) for epoch in range(300)] == [1.0] * 50 + [0.0] * 250


def test_an_unknown_shape_is_refused(as_for_users):
    with pytest.raises(ValueError, match='in the shape "power", "cosine" or "delayed", got \'linear\''):
        HintSchedule(shape="linear")


@pytest.mark.parametrize(("num_patches", "num_masked"), [(190, 133), (65, 48), (7, 3), (190, 1), (10, 9)])
def test_no_number_of_hints_comes_nearer_to_the_wanted_guidance(num_patches, num_masked):
    reached = [guidance(num_patches, num_masked, u / num_masked) for u in range(num_masked + 1)]
    assert all(one > other for one, other in itertools.pairwise(reached))
    for step in range(201):
        wanted = step / 200
        hint_ratio = hint_ratio_for(wanted, num_patches, num_masked)
        num_hints = num_hints_of(num_masked, hint_ratio)
        assert abs(reached[num_hints] - wanted) == pytest.approx(min(abs(value - wanted) for value in reached))


def test_every_number_of_hints_is_found_again_from_its_guidance():
    for num_hints in range(134):
        hint_ratio = hint_ratio_for(guidance(190, 133, num_hints / 133), 190, 133)
        assert num_hints_of(133, hint_ratio) == num_hints


def test_the_asked_guidance_is_linear_between_its_points_and_level_outside():
    schedule = GuidanceSchedule(((0.2, 0.1), (0.6, 0.5), (0.8, 0.3)), num_patches=190, num_masked=133)
    asked = [schedule.guidance(progress) for progress in (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 1.0)]
    assert asked == pytest.approx([0.1, 0.1, 0.3, 0.5, 0.4, 0.3, 0.3])
    for progress in (0.0, 0.33, 0.5, 0.9):
        reached = guidance(190, 133, schedule(progress))
        assert reached == pytest.approx(schedule.guidance(progress), abs=0.02)


@pytest.mark.parametrize(
    "points", [(), ((0.5, 0.1), (0.5, 0.2)), ((0.5, 0.1), (0.4, 0.2)), ((0.0, 1.2),), ((-0.1, 0.5),)]
)
def test_points_that_make_no_schedule_are_refused(points):
    with pytest.raises(ValueError, match=r"growing progress|must lie in \[0, 1\]"):
        GuidanceSchedule(points, num_patches=190, num_masked=133)


@pytest.mark.parametrize("wanted", [-0.1, 1.1, float("nan")])
def test_a_guidance_out_of_range_is_refused(wanted):
    with pytest.raises(ValueError, match="guidance must lie in"):
        hint_ratio_for(wanted, 190, 133)


@pytest.mark.parametrize(("final", "power"), [(1.0, 1.0), (2.0, 3.0), (0.0, 1.0)])
def test_an_exponent_rises_from_nothing_to_its_end(final, power):
    schedule = ExponentSchedule(final, power)
    assert [schedule(p) for p in (0.0, 0.5, 1.0)] == pytest.approx([0.0, final * 0.5**power, final])


@pytest.mark.parametrize("settings", [{"power": 0.0}, {"final": -1.0}, {"final": float("inf")}])
def test_an_exponent_that_cannot_be_annealed_is_refused(settings):
    with pytest.raises(ValueError, match="an exponent is annealed with power > 0"):
        ExponentSchedule(**settings)
