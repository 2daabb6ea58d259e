"""What every strategy promises: an exact partition, reproducible chance, independent samples, sane edge cases."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from melmask.masking import draw, make_strategy
from melmask.masking.base import num_visible_of
from melmask.types import Mask, PatchGrid

GRIDS = [
    PatchGrid(5, 38, (4, 4)),
    PatchGrid(5, 13, (4, 4)),
    PatchGrid(8, 64, (4, 4)),
    PatchGrid(1, 50, (4, 4)),
    PatchGrid(12, 53, (4, 4)),
]
RATIOS = ["0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9"]
SMALL = PatchGrid(5, 13, (4, 4))
by_grid = pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid.freq}x{grid.time}")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def masked_at(mask: Mask) -> torch.Tensor:
    """True where a patch is masked [b, n]."""
    return torch.zeros(len(mask.masked), mask.num_patches, dtype=torch.bool).scatter_(1, mask.masked, True)


def equal(one: Mask, other: Mask) -> bool:
    return torch.equal(one.masked, other.masked) and torch.equal(one.visible, other.visible)


def assert_partition(mask: Mask, batch_size: int, num_patches: int, num_visible: int) -> None:
    """Exact counts; both sides strictly ascending; together every patch once."""
    assert mask.visible.shape == (batch_size, num_visible)
    assert mask.masked.shape == (batch_size, num_patches - num_visible)
    for side in (mask.visible, mask.masked):
        assert side.dtype == torch.int64
        assert (side.diff(dim=1) > 0).all()
    together = torch.cat([mask.visible, mask.masked], dim=1).sort(dim=1).values
    assert torch.equal(together, torch.arange(num_patches).expand(batch_size, -1))


@by_grid
def test_a_mask_is_a_partition_with_exact_counts(strategy, grid, guide_for):
    guide = guide_for(strategy, 2, grid)
    for i, ratio in enumerate(RATIOS):
        num_visible = math.floor(grid.num_patches * (1 - Fraction(ratio)))
        mask = draw(
            strategy, grid=grid, batch_size=2, mask_ratio=float(ratio), rng=seeded(1), guide=guide,
            hint_ratio=(0.0, 0.37, 1.0)[i % 3],
        )  # fmt: skip
        assert_partition(mask, 2, grid.num_patches, num_visible)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    freq=st.integers(1, 9), time=st.integers(1, 21), mask_ratio=st.floats(0.02, 0.98), hint_ratio=st.floats(0, 1),
    num_valid=st.lists(st.integers(0, 21), min_size=2, max_size=2),
)  # fmt: skip
def test_any_grid_ratio_hints_and_padding_make_a_partition(
    strategy, freq, time, mask_ratio, hint_ratio, num_valid, guide_for
):
    grid = PatchGrid(freq, time, (4, 4))
    num_visible = math.floor(grid.num_patches * (1 - mask_ratio) + 1e-9)
    assume(0 < num_visible < grid.num_patches)
    valid = (torch.arange(time) < torch.tensor(num_valid)[:, None]).repeat(1, freq)
    mask = draw(
        strategy, grid=grid, batch_size=2, mask_ratio=mask_ratio, rng=seeded(1), guide=guide_for(strategy, 2, grid),
        hint_ratio=hint_ratio, valid=valid,
    )  # fmt: skip
    assert_partition(mask, 2, grid.num_patches, num_visible)


def test_the_same_generator_gives_the_same_mask_and_another_one_another(strategy, guide_for):
    guide = guide_for(strategy, 4, SMALL)

    def drawn(seed: int) -> Mask:
        return draw(
            strategy, grid=SMALL, batch_size=4, mask_ratio=0.7, rng=seeded(seed), guide=guide, hint_ratio=0.5
        )  # fmt: skip

    assert equal(drawn(3), drawn(3))
    assert not equal(drawn(3), drawn(4))


def test_the_only_chance_is_the_generators(strategy, guide_for):
    guide = guide_for(strategy, 4, SMALL)
    masks = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        masks.append(
            draw(strategy, grid=SMALL, batch_size=4, mask_ratio=0.7, rng=seeded(3), guide=guide, hint_ratio=0.5)
        )
        assert torch.equal(torch.get_rng_state(), before)
    assert equal(*masks)


@pytest.mark.parametrize("hint_ratio", [0.0, 0.5])
def test_samples_of_a_batch_get_masks_of_their_own(strategy, hint_ratio, guide_for):
    guide = guide_for(strategy, 64, SMALL)
    mask = draw(
        strategy, grid=SMALL, batch_size=64, mask_ratio=0.7, rng=seeded(5), guide=guide, hint_ratio=hint_ratio
    )  # fmt: skip
    # Not all: two squares on a grid this small may fall on the same places twice.
    assert len(mask.masked.unique(dim=0)) >= 60


@pytest.mark.parametrize("hint_ratio", [0.0, 0.5])
def test_a_mask_does_not_depend_on_the_neighbours_content(alone, hint_ratio, guide_for):
    guide = guide_for(alone, 32, SMALL)
    others = guide_for(alone, 32, SMALL, seed=9) * 30.0
    others[1] = guide[1]
    masks = [
        draw(alone, grid=SMALL, batch_size=32, mask_ratio=0.7, rng=seeded(5), guide=g, hint_ratio=hint_ratio)
        for g in (guide, others)
    ]
    assert torch.equal(masks[0].masked[1], masks[1].masked[1])
    assert not torch.equal(masks[0].masked, masks[1].masked)  # content does matter


@pytest.mark.parametrize("num_valid_frames", [13, 6])
def test_a_mask_does_not_depend_on_the_neighbours_padding(strategy, num_valid_frames, guide_for):
    guide = guide_for(strategy, 2, SMALL)

    def drawn(neighbour: int, hint_ratio: float) -> Mask:
        valid = (torch.arange(SMALL.time) < torch.tensor([num_valid_frames, neighbour])[:, None]).repeat(1, SMALL.freq)
        return draw(
            strategy, grid=SMALL, batch_size=2, mask_ratio=0.7, rng=seeded(5), hint_ratio=hint_ratio, valid=valid,
            guide=guide,
        )  # fmt: skip

    for hint_ratio in (0.0, 0.21, 0.5):
        assert torch.equal(drawn(13, hint_ratio).masked[0], drawn(2, hint_ratio).masked[0]), hint_ratio


@pytest.mark.parametrize("grid", [SMALL, PatchGrid(1, 50, (4, 4))], ids=["5x13", "1x50"])
def test_every_patch_is_reached_in_both_roles(strategy, grid, guide_for):
    # A patch masked or visible with probability 5 % or more stays unseen in one role of 600 masks with a chance under
    # 1e-13; over all patches the false alarm is below 1e-9.
    guide = guide_for(strategy, 600, grid)
    mask = draw(strategy, grid=grid, batch_size=600, mask_ratio=0.7, rng=seeded(7), guide=guide)
    times_masked = masked_at(mask).sum(dim=0)
    assert (times_masked > 0).all() and (times_masked < 600).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_guides_are_ranked_in_float32(informed, dtype, guide_for):
    guide = guide_for(informed, 8, SMALL).to(dtype)
    masks = [
        draw(informed, grid=SMALL, batch_size=8, mask_ratio=0.7, rng=seeded(5), guide=g) for g in (guide, guide.float())
    ]
    assert equal(*masks)
    assert_partition(masks[0], 8, 65, 19)


def test_autocast_does_not_change_a_mask(strategy, guide_for):
    guide = guide_for(strategy, 64, SMALL)
    plain = draw(strategy, grid=SMALL, batch_size=64, mask_ratio=0.7, rng=seeded(5), guide=guide)
    with torch.autocast("cpu", torch.bfloat16):
        cast = draw(strategy, grid=SMALL, batch_size=64, mask_ratio=0.7, rng=seeded(5), guide=guide)
    assert equal(plain, cast)


@pytest.mark.parametrize("content", ["silence", "constant", "half silence"])
def test_featureless_input_is_masked_like_any_other(informed, content, guide_for):
    guide = guide_for(informed, 4, SMALL)
    if content == "half silence":
        guide[:, ::2] = 0.0
    else:
        guide[:] = {"silence": 0.0, "constant": -1.7}[content]
    for hint_ratio in (0.0, 0.5):
        mask = draw(
            informed, grid=SMALL, batch_size=4, mask_ratio=0.7, rng=seeded(5), guide=guide, hint_ratio=hint_ratio
        )  # fmt: skip
        assert_partition(mask, 4, 65, 19)
        assert not torch.equal(mask.masked[0], mask.masked[1])


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_a_broken_guide_is_refused_by_the_samples_number(informed, poison, guide_for):
    guide = guide_for(informed, 4, SMALL)
    guide[2, 7, -1] = poison
    for hint_ratio in (0.0, 1.0):
        with pytest.raises(ValueError, match="sample 2"):
            draw(informed, grid=SMALL, batch_size=4, mask_ratio=0.7, rng=seeded(5), guide=guide, hint_ratio=hint_ratio)


@by_grid
def test_padding_takes_its_proportional_part_of_both_roles(strategy, grid, guide_for):
    num_patches, num_visible = grid.num_patches, num_visible_of(grid.num_patches, 0.7)
    num_valid_frames = torch.tensor([grid.time, grid.time // 2, 3, 1, 0])
    valid = (torch.arange(grid.time) < num_valid_frames[:, None]).repeat(1, grid.freq)
    num_valid, guide = num_valid_frames * grid.freq, guide_for(strategy, 5, grid)
    for hint_ratio in (0.0, 0.5, 1.0):
        mask = draw(
            strategy, grid=grid, batch_size=5, mask_ratio=0.7, rng=seeded(5), hint_ratio=hint_ratio, valid=valid,
            guide=guide,
        )  # fmt: skip
        assert_partition(mask, 5, num_patches, num_visible)
        num_valid_visible = valid.gather(1, mask.visible).sum(dim=1)
        assert torch.equal(num_valid_visible, num_valid * num_visible // num_patches)
        # Sound is never starved: it holds its share of the visible set, less than one patch short of it.
        assert (num_valid_visible / num_visible > num_valid / num_patches - 1 / num_visible).all()


def test_an_all_valid_batch_is_masked_as_without_validity(strategy, guide_for):
    masks = [
        draw(
            strategy, grid=SMALL, batch_size=3, mask_ratio=0.7, rng=seeded(5), hint_ratio=0.5, valid=valid,
            guide=guide_for(strategy, 3, SMALL),
        )
        for valid in (None, torch.ones(3, 65, dtype=torch.bool))
    ]  # fmt: skip
    assert equal(*masks)


def test_padding_of_dwm_does_not_touch_the_choice_of_sound(guide_for):
    guide, strategy = guide_for(make_strategy("dwm"), 2, SMALL), make_strategy("dwm")
    valid = (torch.arange(SMALL.time) < torch.tensor([6, 9])[:, None]).repeat(1, SMALL.freq)
    masks = [
        draw(strategy, grid=SMALL, batch_size=2, mask_ratio=0.7, rng=seeded(5), guide=g, hint_ratio=0.5, valid=valid)
        for g in (guide, torch.where(valid[:, :, None], guide, 1e4 * guide))
    ]
    assert equal(*masks)


@pytest.mark.parametrize("mask_ratio", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_a_ratio_outside_0_to_1_is_refused(mask_ratio):
    with pytest.raises(ValueError, match="mask_ratio must lie between 0 and 1"):
        draw("random", grid=SMALL, batch_size=2, mask_ratio=mask_ratio, rng=seeded(0))


@pytest.mark.parametrize("mask_ratio", [0.995, 0.999])
def test_a_ratio_that_empties_a_side_is_refused(mask_ratio):
    with pytest.raises(ValueError, match="leaves 0 visible"):
        draw("random", grid=SMALL, batch_size=2, mask_ratio=mask_ratio, rng=seeded(0))


@pytest.mark.parametrize("hint_ratio", [-0.1, 1.1, math.nan])
def test_a_hint_ratio_outside_0_to_1_is_refused(informed, hint_ratio, guide_for):
    with pytest.raises(ValueError, match="hint_ratio"):
        draw(
            informed, grid=SMALL, batch_size=2, mask_ratio=0.7, rng=seeded(0), hint_ratio=hint_ratio,
            guide=guide_for(informed, 2, SMALL),
        )  # fmt: skip


def test_a_missing_or_misshapen_guide_is_refused(informed, guide_for):
    with pytest.raises(ValueError, match=f"needs the {informed.needs.guide} as its guide"):
        draw(informed, grid=SMALL, batch_size=2, mask_ratio=0.7, rng=seeded(0))
    for shape in ((2, 64, 16), (3, 65, 16)):
        with pytest.raises(ValueError, match=r"not \[2, 65, \.\.\.\]"):
            draw(informed, grid=SMALL, batch_size=2, mask_ratio=0.7, rng=seeded(0), guide=torch.zeros(shape))


def test_misshapen_validity_is_refused():
    with pytest.raises(ValueError, match=r"valid is \(2, 64\), not \[2, 65\]"):
        valid = torch.ones(2, 64, dtype=torch.bool)
        draw("random", grid=SMALL, batch_size=2, mask_ratio=0.7, rng=seeded(0), valid=valid)


def test_unknown_names_and_options_are_refused_with_what_there_is():
    with pytest.raises(ValueError, match=r"no masking strategy 'dmw': did you mean dwm\? there are: random, .*dwm"):
        draw("dmw", grid=SMALL, batch_size=2, mask_ratio=0.7, rng=seeded(0))
    with pytest.raises(ValueError, match=r"dwm has no option 'statistics'; it has: .*statistic"):
        make_strategy("dwm", {"statistics": "mad"})
    with pytest.raises(ValueError, match="random has no option 'needs'; it has: none"):
        make_strategy("random", {"needs": "patches"})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dwm", {"statistic": "std"}, "the statistics mad, variance, .*, got 'std'"),
        ("dwm_ibm", {"side": 0}, "squares need side >= 1, got side 0"),
        ("dwm_band", {"bands": "runing"}, 'bands "running" or "batch", got \'runing\''),  # codespell:ignore
        ("dwm_inverse", {"statistic": "std"}, "the statistics mad, .*, got 'std'"),
        ("ibm", {"blocks": "papers"}, 'blocks "paper" or "cover", got \'papers\''),
        ("ibm", {"side": 0}, "side >= 1 and adjust in .*, got side 0"),
        ("ibm", {"adjust": 1.0}, "side >= 1 and adjust in .*, got side 5, adjust 1.0"),
    ],
)
def test_option_values_out_of_range_are_refused(name, options, message, as_for_users):
    with pytest.raises(ValueError, match=message):
        make_strategy(name, options)
