"""Patches that are not square, or do not divide the input, from the store to the embedding."""

import dataclasses
import warnings

import numpy as np
import pytest

from melmask.encoders.pretrained import PretrainedEncoder
from melmask.patches import _warn_of_rest
from melmask.train import loop
from melmask.train.recipe import RECIPES
from melmask.train.run_folder import read_log


@pytest.mark.parametrize("framework", ["m2d", "msm-mae"])
@pytest.mark.parametrize(("patch_shape", "num_rows"), [((16, 4), 5), ((80, 2), 1)])
def test_patches_that_are_not_square_learn_and_embed(framework, patch_shape, num_rows, store, tmp_path):
    recipe = dataclasses.replace(
        RECIPES[f"micro-{framework}"],
        patch_shape=patch_shape, strategy="dwm", steps=40, batch_size=8, learning_rate=3e-3,
    )  # fmt: skip
    assert min(clip.num_frames for clip in store.clips) < recipe.crop_frames  # some crops are padded
    assert loop.pretrain(recipe, store, tmp_path / "run")
    losses = [line["loss"] for line in read_log(tmp_path / "run")]
    assert losses[-1] < 0.98 * losses[0]
    embeddings = PretrainedEncoder.load(tmp_path / "run").embed_store(store)
    assert embeddings.shape == (len(store), num_rows * 32) and np.isfinite(embeddings).all()
    assert len(np.unique(embeddings.round(3), axis=0)) == len(store)


def test_training_and_embedding_say_once_what_fills_no_patch(store, tmp_path):
    recipe = dataclasses.replace(
        RECIPES["micro-m2d"], patch_shape=(32, 16), crop_frames=100, steps=3, batch_size=8
    )  # fmt: skip
    _warn_of_rest.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.pretrain(recipe, store, tmp_path / "run")
        embeddings = PretrainedEncoder.load(tmp_path / "run").embed_store(store)
    assert embeddings.shape == (len(store), 2 * 32)
    assert [str(warning.message).split(":")[0] for warning in caught] == [
        "80 mel bands are no multiple of a patch's 32",
        "100 frames are no multiple of a patch's 16",
    ]
