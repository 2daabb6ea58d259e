"""The state of a training: a restored one takes the same next step, and the names in the file do not change."""

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from melmask.files import read_tensors, write_tensors
from melmask.train.checkpoint import load_training, save_training

OPTIMISERS = {
    "adamw": lambda model: AdamW(model.parameters(), lr=0.1, fused=True),
    "sgd": lambda model: SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True),
    "plain sgd": lambda model: SGD(model.parameters(), lr=0.1),
}


def model_of(seed: int, width: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width))


def take_step(model: nn.Module, optimiser: torch.optim.Optimizer, seed: int) -> None:
    inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(seed))
    model(inputs).square().sum().backward()
    optimiser.step()
    optimiser.zero_grad()


@pytest.mark.parametrize("make_optimiser", OPTIMISERS.values(), ids=OPTIMISERS)
def test_a_restored_training_takes_the_same_next_step(make_optimiser, tmp_path):
    model, other = model_of(0), model_of(1)
    optimiser, other_optimiser = make_optimiser(model), make_optimiser(other)
    take_step(model, optimiser, seed=2)
    extra = {"masking.loss": torch.arange(3.0), "best.0.weight": torch.ones(2)}
    save_training(tmp_path / "state.safetensors", model, optimiser, extra, {"step": "1"})
    restored, metadata = load_training(tmp_path / "state.safetensors", other, other_optimiser)
    assert metadata == {"step": "1"} and set(restored) == set(extra)
    assert all(torch.equal(restored[name], extra[name]) for name in extra)
    for each in ((model, optimiser), (other, other_optimiser)):
        take_step(*each, seed=3)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


def test_tensors_keep_the_names_that_earlier_versions_wrote(tmp_path):
    model = model_of(0)
    optimiser = OPTIMISERS["adamw"](model)
    take_step(model, optimiser, seed=2)
    save_training(tmp_path / "state.safetensors", model, optimiser, {}, {})
    saved = set(read_tensors(tmp_path / "state.safetensors")[0])
    assert {name for name in saved if name.startswith("model.")} == {f"model.{name}" for name in model.state_dict()}
    parameters, keys = ("0.weight", "0.bias", "1.weight", "1.bias"), ("step", "exp_avg", "exp_avg_sq")
    assert saved == {f"model.{name}" for name in model.state_dict()} | {
        f"optimiser.{key}.{name}" for key in keys for name in parameters
    }


def test_what_modules_share_is_saved_once_and_restored_shared(tmp_path):
    models = [nn.Sequential(layer := nn.Linear(4, 4), nn.ReLU(), layer) for _ in range(2)]
    optimisers = [OPTIMISERS["adamw"](model) for model in models]
    take_step(models[0], optimisers[0], seed=2)
    save_training(tmp_path / "state.safetensors", models[0], optimisers[0], {}, {})
    saved = read_tensors(tmp_path / "state.safetensors")[0]
    assert {name for name in saved if name.startswith("model.")} == {"model.0.weight", "model.0.bias"}
    load_training(tmp_path / "state.safetensors", models[1], optimisers[1])
    for model, optimiser in zip(models, optimisers, strict=True):
        take_step(model, optimiser, seed=3)
    assert models[1][2].weight is models[1][0].weight
    assert all(torch.equal(value, models[1].state_dict()[name]) for name, value in models[0].state_dict().items())


def test_a_checkpoint_of_another_model_or_a_damaged_one_is_refused(tmp_path):
    model, wider = model_of(0), model_of(0, width=5)
    save_training(tmp_path / "state.safetensors", model, OPTIMISERS["adamw"](model), {}, {})
    with pytest.raises(ValueError, match=r"state\.safetensors is of another model than the recipe's"):
        load_training(tmp_path / "state.safetensors", wider, OPTIMISERS["adamw"](wider))
    (tmp_path / "state.safetensors").write_bytes(b"cut off")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        load_training(tmp_path / "state.safetensors", model, OPTIMISERS["adamw"](model))


def test_weights_alone_are_restored_where_no_optimiser_state_was_saved(tmp_path):
    model, other = model_of(0), model_of(1)
    write_tensors(tmp_path / "s.safetensors", {f"model.{k}": v for k, v in model.state_dict().items()}, {"step": "0"})
    optimiser = OPTIMISERS["adamw"](other)
    load_training(tmp_path / "s.safetensors", other, optimiser)
    assert torch.equal(other[0].weight, model[0].weight) and not optimiser.state
