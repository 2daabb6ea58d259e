"""The moving average of the encoder's weights: its value, and that training does not see it."""

import dataclasses

import pytest
import torch

from melmask.files import read_tensors
from melmask.nn.encoder_file import ENCODER, EncoderFile
from melmask.train import loop
from melmask.train.recipe import RECIPES
from melmask.train.run_folder import CHECKPOINT, kept_encoder

pytestmark = pytest.mark.numerical


def recipe(framework, **changes):
    settings = {"steps": 6, "batch_size": 8, "keep_every": 1, **changes}
    return dataclasses.replace(RECIPES[f"micro-{framework}"], **settings)


@pytest.mark.parametrize("framework", ["msm-mae", "m2d"])
def test_the_encoder_file_is_the_average_of_all_steps(framework, store, tmp_path):
    plain, averaged = tmp_path / "plain", tmp_path / "averaged"
    loop.pretrain(recipe(framework), store, plain)
    loop.pretrain(recipe(framework, weights_ema=0.3), store, averaged)
    torch.manual_seed(0)
    average = recipe(framework).make_model().encoder.state_dict()
    for step in range(1, 7):
        kept = min(0.3, (1 + step) / (10 + step))  # the ramp in the first steps, and then the decay
        current = EncoderFile.load(kept_encoder(plain, step)).encoder.state_dict()
        average = {name: kept * value + (1 - kept) * current[name] for name, value in average.items()}
        written = EncoderFile.load(kept_encoder(averaged, step)).encoder.state_dict()
        for name, value in written.items():
            torch.testing.assert_close(value, average[name], rtol=1e-5, atol=1e-7)
    last = EncoderFile.load(averaged / ENCODER).encoder.state_dict()
    assert all(torch.equal(value, written[name]) for name, value in last.items())
    without, with_average = read_tensors(plain / CHECKPOINT)[0], read_tensors(averaged / CHECKPOINT)[0]
    assert {name for name in with_average if name not in without} == {f"average.{name}" for name in last}
    assert all(torch.equal(value, with_average[name]) for name, value in without.items())
    weight = "encoder.blocks.0.attn.qkv.weight"
    assert not torch.equal(with_average[f"model.{weight}"], last["blocks.0.attn.qkv.weight"])
