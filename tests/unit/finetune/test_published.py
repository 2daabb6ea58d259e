"""What the published recipes need: their loss, batch normalisation, mean over rows, and AdamW's options."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bounds import assert_features_close
from melmask.data.prepare import prepare
from melmask.encoders.pretrained import PretrainedEncoder, random_encoder
from melmask.evaluation.splits import Split, splits_of
from melmask.evaluation.task import make_task
from melmask.finetune.augment import draw_lines
from melmask.finetune.batches import ClipBatches
from melmask.finetune.model import HEAD, BatchNorm, FinetunedModel, soft_cross_entropy
from melmask.finetune.recipe import FINETUNE_RECIPES, FinetuneRecipe
from melmask.finetune.trainer import Training, _backward, make_optimiser, train, with_recipe
from melmask.nn.encoder_file import FrontEnd
from melmask.nn.vit import SIZES
from melmask.patches import patchify
from melmask.runtime import autocast_for
from melmask.types import PatchGrid

PAGE = Path(__file__).parents[3] / "docs" / "finetuning.md"
PUBLISHED = FinetuneRecipe(
    optimiser="sgd", learning_rate=0.5, loss="binary", epochs=6, warmup_epochs=1, batch_size=8, frequency="mean",
    batch_norm=True, precision="float32",
)  # fmt: skip


def start_for(store, **changes) -> PretrainedEncoder:
    encoder = random_encoder(SIZES["micro"], (16, 16), seed=1)
    return PretrainedEncoder(encoder, FrontEnd(store.spec, store.mean, store.std), crop_frames=96, **changes)


def model_for(store, recipe=PUBLISHED, classes=("a", "b", "c"), is_multilabel=False) -> FinetunedModel:
    start = with_recipe(start_for(store), recipe)
    form = {"loss": recipe.loss, "frequency": recipe.frequency, "batch_norm": recipe.batch_norm}
    return FinetunedModel(start, classes, is_multilabel, **form)


@pytest.fixture(scope="module")
def real_clips(real_audio, tmp_path_factory):
    """A store of one clip of each class of ESC-50."""
    rows, count = [], {}
    with (real_audio / "esc50.csv").open() as file:
        for row in csv.DictReader(file):
            count[row["label"]] = count.get(row["label"], 0) + 1
            if count[row["label"]] == 1:
                rows.append(f"{real_audio / row['path']},{row['label']},{row['fold']}")
    table = tmp_path_factory.mktemp("real") / "esc50.csv"
    table.write_text("\n".join(["path,label,fold", *rows]) + "\n")
    return prepare([table], table.with_suffix(""), num_workers=0)


@pytest.mark.parametrize("name", FINETUNE_RECIPES)
def test_every_named_recipe_lowers_its_loss_on_real_clips(real_clips, name):
    """With its own loss, rates and augmentation, on 50 clips of 50 classes; only the batch and the run are smaller."""
    task = make_task("esc50", [stored.clip for stored in real_clips.clips])
    everything = np.arange(len(real_clips))
    recipe = replace(FINETUNE_RECIPES[name], epochs=10, warmup_epochs=2, batch_size=32)
    epochs, split = [], Split("1", everything, everything[:10], everything[:10])
    train(Training(start_for(real_clips), real_clips, task, split, recipe, 0), epochs.append)
    losses = [epoch.loss for epoch in epochs if epoch.epoch > 0]  # without that of a probe, on clips not augmented
    assert max(losses) <= 1.1 * losses[0], losses
    assert np.mean(losses[-3:]) < np.mean(losses[:3]), losses


def test_the_page_states_loss_and_settings_of_every_recipe():
    rows = dict(re.findall(r"^\| `?(\w+)`? \| ((?:cross-entropy|binary) .*) \|$", PAGE.read_text(), re.MULTILINE))
    assert rows.keys() == FINETUNE_RECIPES.keys()
    for name, row in rows.items():
        recipe, (loss, optimiser, batch, epochs) = FINETUNE_RECIPES[name], row.split(" | ")[:4]
        assert loss == recipe.loss and batch == str(recipe.batch_size), name
        assert epochs == f"{recipe.epochs} ({recipe.warmup_epochs})", name
        assert optimiser.lower().startswith(recipe.optimiser) and f"{recipe.learning_rate:g}" in optimiser, name


def test_the_binary_loss_is_torch_s_mean_over_clips_and_classes():
    rng = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(6, 50, generator=rng), torch.arange(6)
    flags = F.one_hot(labels, 50).float()
    torch.testing.assert_close(
        soft_cross_entropy(logits, flags, True).mean(), F.binary_cross_entropy_with_logits(logits, flags)
    )
    zeros, others = (torch.zeros(6, 50, requires_grad=True) for _ in range(2))
    soft_cross_entropy(zeros, flags, False).mean().backward()
    soft_cross_entropy(others, flags, True).mean().backward()
    ratio = zeros.grad[0, 0] / others.grad[0, 0]
    assert ratio == pytest.approx(50 * (1 - 1 / 50) / 0.5), "so a rate for one loss is far too high for the other"


def test_classes_of_a_binary_loss_have_probabilities_of_their_own(store):
    model = model_for(store)
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(0))
    predicted = model.predict(store, [0, 1, 2])
    embedded = model.as_encoder().embed_store(store, [0, 1, 2]).reshape(3, 5, 32).mean(axis=1)
    logits = model.head(torch.from_numpy(embedded) / np.sqrt(1 + 1e-5))
    np.testing.assert_allclose(predicted, logits.sigmoid().detach().numpy(), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("num_chunks", [1, 2])
@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_the_mean_over_rows_is_over_the_visible_patches(store, num_chunks, ratio):
    model, chunk = model_for(store, replace(PUBLISHED, batch_norm=False)), PatchGrid(5, 6)
    log_mel = torch.randn(3, 80, num_chunks * 96, generator=torch.Generator().manual_seed(0))
    lines = draw_lines(3, chunk, ratio, np.random.default_rng(0))
    features, weight = model.features(patchify(log_mel, (16, 16)), PatchGrid(5, 6 * num_chunks), lines)
    assert weight is None and features.shape == (3, 32) == (3, model.head.in_features)
    for i in range(3):
        index = torch.tensor([[r * 6 + c for r in lines.rows[i].tolist() for c in lines.columns[i].tolist()]])
        pieces = [patchify(piece, (16, 16)) for piece in log_mel[i : i + 1].split(96, dim=2)]
        tokens = torch.cat([model.encoder(piece, chunk, index)[0, 1:] for piece in pieces])
        assert_features_close(features[i].numpy(), tokens.mean(dim=0).numpy(), SIZES["micro"])


def test_batch_normalisation_is_over_the_whole_batch_whatever_the_lengths_of_its_clips(store):
    model, flags = model_for(store), torch.eye(3)[torch.arange(len(store)) % 3]
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(0))
    recipe = replace(PUBLISHED, batch_size=len(store))
    parts = ClipBatches(store, np.arange(len(store)), flags, recipe, start_for(store), seed=0).batch(0)
    assert len(parts) > 1
    with torch.no_grad():
        features = torch.cat([model.features(part.patches, part.grid)[0] for part in parts])
    logits = model.head(F.batch_norm(features, None, None, training=True, eps=1e-5))
    expected = F.binary_cross_entropy_with_logits(logits, torch.cat([part.flags for part in parts]))
    total = _backward(model, parts, recipe, autocast_for("float32", model.device))
    assert float(total) / len(store) == pytest.approx(float(expected.detach()), rel=1e-4)
    torch.testing.assert_close(model.batch_norm.running_mean, 0.1 * features.mean(dim=0), atol=1e-5, rtol=1e-3)


def test_a_batch_of_one_clip_is_normalised_by_running_statistics():
    norm = BatchNorm(4)
    norm(torch.randn(16, 4))
    one = torch.randn(1, 4)
    torch.testing.assert_close(norm(one), norm.eval()(one))
    torch.testing.assert_close(norm(one), F.batch_norm(one, norm.running_mean, norm.running_var, eps=norm.eps))


def test_a_published_head_is_saved_and_loaded_with_its_statistics(store, tmp_path):
    task = make_task("chirps", [stored.clip for stored in store.clips])
    split = splits_of(task, test_folds=("1",))[0]
    recipe = replace(PUBLISHED, optimiser="adamw", learning_rate=3e-3, beta2=0.95, amsgrad=True)
    model, _ = train(Training(start_for(store), store, task, split, recipe, 0))
    model.save(tmp_path)
    loaded = FinetunedModel.load(tmp_path)
    assert (tmp_path / HEAD).is_file() and loaded.batch_norm is None and loaded.is_binary
    np.testing.assert_allclose(loaded.predict(store), model.predict(store), atol=1e-6)


def test_adamw_has_the_recipe_s_decay_rates(store):
    optimiser = make_optimiser(model_for(store), replace(PUBLISHED, optimiser="adamw", beta2=0.95, amsgrad=True))
    assert all(group["betas"] == (0.9, 0.95) and group["amsgrad"] for group in optimiser.param_groups)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"standardise": True}, "leave standardise out"),
        ({"frequency": "stacked", "patch_mask_ratio": 0.5}, "set frequency to mean"),
        ({"beta2": 1.0}, r"beta2 is a share in \[0, 1\)"),
        ({"batch_norm": False, "standardise": True, "head": "probe"}, "set loss to cross-entropy"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(PUBLISHED, **changes)
