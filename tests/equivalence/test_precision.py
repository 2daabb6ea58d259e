"""bfloat16 learns as float32 does: loss curves of the same seeds on the same data."""

import dataclasses

import numpy as np
import pytest

from melmask.train import loop
from melmask.train.recipe import RECIPES
from melmask.train.run_folder import read_log

SEEDS, NUM_STEPS, WINDOW = (0, 1, 2), 2000, 10


def curve(framework: str, precision: str, seed: int, store, folder) -> np.ndarray:
    """The run's loss, in means of ``WINDOW`` lines of the log."""
    recipe = dataclasses.replace(
        RECIPES[f"micro-{framework}"],
        precision=precision,
        seed=seed,
        steps=NUM_STEPS,
        log_every=10,
        save_every=NUM_STEPS,
    )
    run = folder / f"{precision}-{seed}"
    assert loop.pretrain(recipe, store, run)
    return np.array([line["loss"] for line in read_log(run)]).reshape(-1, WINDOW).mean(axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["msm-mae", "m2d"])
def test_the_loss_curve_in_bf16_is_within_the_noise_of_float32(framework, store, tmp_path):
    exact, rounded = (
        np.array([curve(framework, precision, seed, store, tmp_path) for seed in SEEDS])
        for precision in ("float32", "bf16")
    )
    assert exact.shape == (len(SEEDS), NUM_STEPS // (10 * WINDOW))
    assert not np.array_equal(exact, rounded)  # or bf16 would not have been used
    fallen = exact[:, 0].mean() - exact[:, -1].mean()
    assert fallen > 0.1
    noise = exact.std(axis=0, ddof=1).mean()  # of the choice of seeds
    assert abs((rounded - exact).mean()) < noise and np.abs((rounded - exact).mean(axis=0)).max() < 3 * noise
    # A tenth of what is learnt would be a difference that matters, however noisy the seeds are.
    assert abs((rounded - exact)[:, -3:].mean()) < 0.1 * fallen
