"""Fine-tuning on synthesised sounds, with the smallest encoder."""

import json
import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import soundfile
import torch

from bounds import assert_features_close
from melmask.cli.main import main
from melmask.data.prepare import prepare
from melmask.encoders.features import FeatureSettings, Statistics
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.evaluation.metrics import score_of
from melmask.evaluation.run import run_probe
from melmask.evaluation.splits import splits_of
from melmask.evaluation.task import make_task
from melmask.files import read_tensors, write_tensors
from melmask.finetune import trainer
from melmask.finetune.augment import draw_lines
from melmask.finetune.batches import ClipBatches, prefetch
from melmask.finetune.model import HEAD, FinetunedModel, pool, soft_cross_entropy
from melmask.finetune.recipe import FINETUNE_RECIPES, FinetuneRecipe
from melmask.finetune.run import CHECKPOINT, PREDICTIONS, finetune
from melmask.finetune.trainer import Training, make_optimiser, train, with_recipe
from melmask.nn.encoder_file import ENCODER, EncoderFile, FrontEnd
from melmask.nn.vit import SIZES, Encoder
from melmask.patches import patchify
from melmask.train.loop import Diverged
from melmask.types import PatchGrid

RECIPE = FinetuneRecipe(
    learning_rate=3e-3, epochs=8, warmup_epochs=1, batch_size=8, standardise=True, precision="float32"
)
FROM_PROBE = replace(RECIPE, head="probe", pooling="mean+std")
AUGMENTED = replace(
    RECIPE, mixup=0.3, resized_crop=True, max_hidden_bands=8, max_hidden_frames=16, patch_mask_ratio=0.3,
    label_smoothing=0.1, layer_decay=0.75, weight_decay=0.05, grad_clip=1.0,
)  # fmt: skip
BATCH_NORM_AND_AMSGRAD = {
    "standardise": False, "frequency": "mean", "loss": "binary", "batch_norm": True, "amsgrad": True, "beta2": 0.95,
}  # fmt: skip
PITCHES_HZ = {"low": 300, "middle": 1200, "high": 4800}


def tone(hz: float, seconds: float, rng: np.random.Generator) -> np.ndarray:
    time_s = np.arange(int(seconds * 16_000)) / 16_000
    return 0.2 * np.sin(2 * np.pi * hz * rng.uniform(0.8, 1.25) * time_s + rng.uniform(0, 6))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """72 noisy tones of 0.2 to 1.6 s in three pitches, two folds and a validation split that is drawn."""
    folder, rng = tmp_path_factory.mktemp("tones"), np.random.default_rng(0)
    lines, many = ["path,label,fold"], ["path,label,fold"]
    for i in range(72):
        seconds, name = rng.uniform(0.2, 1.6), list(PITCHES_HZ)[i % 3]
        other = list(PITCHES_HZ)[(i + i // 36) % 3]
        for names, rows, file in (({name}, lines, f"{i:02}.wav"), ({name, other}, many, f"many-{i:02}.wav")):
            sound = sum(tone(PITCHES_HZ[pitch], seconds, rng) for pitch in sorted(names))
            soundfile.write(folder / file, sound + 0.1 * rng.standard_normal(len(sound)), 16_000)
            rows.append(f"{file},{';'.join(sorted(names))},{1 + i // 3 % 2}")
    (folder / "tones.csv").write_text("\n".join(lines) + "\n")
    (folder / "many.csv").write_text("\n".join(many) + "\n")
    return folder / "tones.csv"


@pytest.fixture(scope="module")
def tones(table, tmp_path_factory):
    return prepare([table], tmp_path_factory.mktemp("stores") / "tones", num_workers=0)


@pytest.fixture(scope="module")
def chords(table, tmp_path_factory):
    return prepare([table.with_name("many.csv")], tmp_path_factory.mktemp("stores") / "many", num_workers=0)


def start_for(store) -> PretrainedEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        encoder = Encoder(SIZES["micro"], (16, 16))
    return PretrainedEncoder(encoder, FrontEnd(store.spec, store.mean, store.std), crop_frames=96)


def task_of(store):
    return make_task("tones", [stored.clip for stored in store.clips])


def train_fold(store, recipe=RECIPE, seed=0, task=None, report=lambda epoch: None):
    task = task or task_of(store)
    split = splits_of(task_of(store), test_folds=("1",))[0]
    model, best = train(Training(start_for(store), store, task, split, recipe, seed), report)
    return model, best, split, model.predict(store, split.test.tolist())


def test_it_learns_with_every_augmentation(tones):
    task = task_of(tones)
    _, _, split, predicted = train_fold(tones, replace(AUGMENTED, epochs=20))
    assert score_of(task.targets[split.test], predicted) > 0.85


def test_several_labels_are_learned(chords):
    task = task_of(chords)
    assert task.is_multilabel
    _, _, split, predicted = train_fold(chords, replace(AUGMENTED, epochs=16))
    assert score_of(task.targets[split.test], predicted) > 0.9
    assert not np.allclose(predicted.sum(axis=1), 1), "each class has a probability of its own"


def test_the_seed_alone_determines_the_weights(tones):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    recipe = replace(AUGMENTED, epochs=3)
    first, _, _, predicted = train_fold(tones, recipe)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    again, _, _, repeated = train_fold(tones, recipe)
    assert np.array_equal(predicted, repeated)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert not np.array_equal(predicted, train_fold(tones, recipe, seed=1)[3])


@pytest.mark.parametrize("recipe", [RECIPE, FROM_PROBE, replace(FROM_PROBE, train_on_valid=True)])
def test_test_labels_change_nothing_and_labels_that_are_trained_on_do(tones, recipe):
    task, recipe = task_of(tones), replace(recipe, epochs=3)
    _, best, split, predicted = train_fold(tones, recipe)
    trained = [split.train, split.valid] if recipe.train_on_valid else [split.train]
    for part, changes in ((split.test, False), *((part, True) for part in trained)):
        wrong = task.targets.copy()
        wrong[part] = (wrong[part] + 1) % 3
        _, other_best, _, other = train_fold(tones, recipe, task=replace(task, targets=wrong))
        assert np.array_equal(predicted, other) != changes
        assert (best == other_best) != changes


def test_the_epoch_with_the_best_validation_score_is_kept(tones):
    seen = []
    model, best, split, _ = train_fold(tones, replace(RECIPE, learning_rate=3e-2), report=seen.append)
    assert [epoch.epoch for epoch in seen] == list(range(1, RECIPE.epochs + 1))
    assert (
        best == max(seen, key=lambda epoch: (epoch.valid_score, -epoch.valid_loss)) == max(seen, key=lambda e: e.rank)
    )
    task = task_of(tones)
    assert score_of(task.targets[split.valid], model.predict(tones, split.valid.tolist())) == best.valid_score


@pytest.mark.parametrize("store", ["tones", "chords"])
def test_the_head_starts_from_the_logistic_probe(store, request):
    """Before the first step, the model predicts what `melmask evaluate` does with that probe."""
    store = request.getfixturevalue(store)
    task, start = task_of(store), with_recipe(start_for(store), FROM_PROBE)
    split = splits_of(task, test_folds=("1",))[0]
    model = FinetunedModel(start, task.classes, task.is_multilabel)
    model.initialise_head(store, task, split, on_both=True)
    expected = run_probe("logistic", start.embed_store(store), task, test_folds=("1",)).predictions[split.test]
    np.testing.assert_allclose(model.predict(store, split.test.tolist()), expected, atol=0.02)


def test_a_probe_that_no_epoch_improves_on_is_kept(tones):
    """With the probe's own predictions as validation labels, label smoothing only raises the validation loss."""
    task, recipe = task_of(tones), replace(FROM_PROBE, label_smoothing=0.9)
    start = with_recipe(start_for(tones), recipe)
    split = splits_of(task, test_folds=("1",))[0]
    probe = FinetunedModel(start, task.classes, task.is_multilabel)
    probe.initialise_head(tones, task, split, on_both=False)
    predicted_labels = task.targets.copy()
    predicted_labels[split.valid] = probe.predict(tones, split.valid.tolist()).argmax(axis=1)
    task = replace(task, targets=predicted_labels)
    probe.initialise_head(tones, task, split, on_both=False)  # they may choose another strength
    seen = []
    model, best, _, _ = train_fold(tones, recipe, task=task, report=seen.append)
    assert [epoch.epoch for epoch in seen] == list(range(9)) and best == seen[0] and best.valid_score == 1.0
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, probe.state_dict()[name]), name


def test_the_last_epoch_is_kept_if_validation_clips_are_trained_on(tones):
    seen = []
    _, best, _, _ = train_fold(tones, replace(FROM_PROBE, train_on_valid=True), report=seen.append)
    assert best == seen[-1] and best.epoch == 8 and {epoch.valid_score for epoch in seen} == {None}


def test_weights_are_interpolated_with_the_initial_ones(tones):
    far, near = (train_fold(tones, replace(FROM_PROBE, train_on_valid=True, epochs=2, start_share=share))[0]
                 for share in (0.0, 0.75))  # fmt: skip
    began = {f"encoder.{name}": tensor for name, tensor in start_for(tones).encoder.state_dict().items()}
    began |= {"head.weight": far.probe_weight, "head.bias": far.probe_bias}
    for name, parameter in near.named_parameters():
        expected = 0.25 * far.state_dict()[name] + 0.75 * began[name]
        torch.testing.assert_close(parameter.detach(), expected, atol=1e-6, rtol=1e-5)


def test_a_frozen_patch_embedding_stays_bit_identical(tones):
    before = start_for(tones).encoder.state_dict()
    for freeze in (True, False):
        model = train_fold(tones, replace(AUGMENTED, epochs=2, freeze_patch_embed=freeze))[0]
        for name, tensor in model.encoder.state_dict().items():
            assert torch.equal(tensor, before[name]) == (freeze and name.startswith("patch_embed.")), name


def test_the_encoder_passed_in_is_not_changed(tones):
    start = start_for(tones)
    before = {name: tensor.clone() for name, tensor in start.encoder.state_dict().items()}
    task = task_of(tones)
    train(Training(start, tones, task, splits_of(task)[0], replace(RECIPE, epochs=2, freeze_patch_embed=True), 0))
    assert all(torch.equal(tensor, before[name]) for name, tensor in start.encoder.state_dict().items())
    assert all(parameter.requires_grad for parameter in start.encoder.parameters())


def batches_of(store, recipe, rows=None):
    rows = np.arange(len(store)) if rows is None else rows
    flags = torch.eye(len(store))[torch.from_numpy(rows)]  # so that a flag identifies the clip
    return ClipBatches(store, rows, flags, recipe, start_for(store), seed=0)


def reading(start) -> FinetunedModel:
    """A fine-tuned encoder whose head has a class for each feature, and whose logits are the features it is given."""
    model = FinetunedModel(start, [str(i) for i in range(start.num_dims)], False)
    torch.nn.init.eye_(model.head.weight)
    return model


@pytest.mark.parametrize("excerpt_frames", [0, 1000])
@pytest.mark.parametrize("pooling", get_args(Statistics))
def test_a_clip_gives_the_same_in_a_training_batch_and_in_evaluation(tones, pooling, excerpt_frames):
    """Whole clips, in one chunk or several, give the same in a batch as alone: there is no padding."""
    recipe = replace(RECIPE, pooling=pooling, batch_size=len(tones), excerpt_frames=excerpt_frames)
    model, compared = reading(with_recipe(start_for(tones), recipe)), []
    for group in batches_of(tones, recipe).batch(0):
        logits = model(group.patches, group.grid)
        for row, found in zip(group.flags.argmax(dim=1).tolist(), logits, strict=True):
            num_steps = -(-tones.clips[row].num_frames // 16)
            if group.grid.time == num_steps:
                alone = model.classify(torch.from_numpy(model.as_encoder().embed_store(tones, [row])))[0]
                assert_features_close(found.detach().numpy(), alone.detach().numpy(), SIZES["micro"])
                compared.append(num_steps)
            else:
                assert group.grid.time == (6 if excerpt_frames == 0 else num_steps - 1)
    whole = {2, 3, 4, 5, 6} if excerpt_frames == 0 else {2, 3, 4, 5, 6, 8, 10}
    assert set(compared) == whole and len(compared) < len(tones), "some clips must be long enough to be cropped"


def test_an_epoch_visits_every_clip_once_in_a_new_order(tones):
    batches = batches_of(tones, RECIPE, rows=np.arange(3, 60))
    order = []
    for epoch in range(2):
        steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
        rows = [[int(i) for part in batches.batch(step) for i in part.flags.argmax(dim=1)] for step in steps]
        assert [len(batch) for batch in rows] == [8] * 7 + [1]
        order.append([row for batch in rows for row in batch])
        assert sorted(order[-1]) == list(range(3, 60))
    assert order[0] != order[1]


def test_prefetch_gives_the_same_and_raises_errors():
    assert list(prefetch(lambda step: step**2, range(1, 4))) == [1, 4, 9]
    assert list(prefetch(lambda step: step**2, range(0))) == []
    with pytest.raises(ZeroDivisionError):
        list(prefetch(lambda step: 1 // (2 - step), range(4)))


@torch.no_grad()
@pytest.mark.parametrize("num_chunks", [1, 3])
def test_masked_lines_equal_a_slow_loop(tones, num_chunks):
    """The same lines in every chunk; the head reads a mean and a deviation over the columns of all chunks."""
    model, chunk = reading(with_recipe(start_for(tones), FROM_PROBE)), PatchGrid(5, 6)
    rng = torch.Generator().manual_seed(0)
    for tensor in (model.mean, model.scale):
        torch.nn.init.normal_(tensor, generator=rng)
    log_mel, grid = torch.randn(3, 80, num_chunks * 96, generator=rng), PatchGrid(5, 6 * num_chunks)
    patches = patchify(log_mel, (16, 16))
    lines = draw_lines(3, chunk, 0.5, np.random.default_rng(0))
    found = model(patches, grid, lines)
    mean, scale = model.mean.view(2, 5, 32), model.scale.view(2, 5, 32)
    # No layer norm of 32 values gives more than the root of 31.
    largest = (6 + float(mean.abs().max())) * float(scale.abs().max())
    for i in range(3):
        rows, columns = lines.rows[i].tolist(), lines.columns[i].tolist()
        index = torch.tensor([[row * 6 + column for row in rows for column in columns]])
        pieces = [patchify(piece, (16, 16)) for piece in log_mel[i : i + 1].split(96, dim=2)]
        tokens = [model.encoder(piece, chunk, index)[0, 1:] for piece in pieces]
        given = torch.zeros(2, 5, 32)
        for place, row in enumerate(rows):
            here = slice(place * len(columns), (place + 1) * len(columns))
            steps = torch.cat([of_chunk[here] for of_chunk in tokens])
            for number, statistic in enumerate((steps.mean(dim=0), steps.std(dim=0, correction=0))):
                given[number, row] = (statistic - mean[number, row]) * scale[number, row] * 5 / len(rows)
        expected = given.flatten().numpy()
        assert_features_close(found[i].numpy(), expected, SIZES["micro"], largest=largest * 5 / len(rows))
    everything = draw_lines(3, chunk, 0.0, np.random.default_rng(0))
    both = (model(patches, grid, lines).numpy() for lines in (everything, None))
    assert_features_close(*both, SIZES["micro"], largest=largest)


def test_standardised_features_have_zero_mean_and_unit_deviation(tones):
    model = FinetunedModel(start_for(tones), ["a", "b"], False)
    returned = model.standardise(tones, range(40))
    given = (torch.from_numpy(model.as_encoder().embed_store(tones, range(40))) - model.mean) * model.scale
    assert torch.equal(given, returned)
    torch.testing.assert_close(given.mean(dim=0), torch.zeros(160), atol=1e-3, rtol=0)
    assert 0.9 < float(given.std(dim=0).median()) < 1.1


def test_learning_rates_decrease_from_the_head_down_and_weight_decay_is_on_matrices_only(tones):
    model = FinetunedModel(start_for(tones), ["a", "b"], False)
    optimiser = make_optimiser(model, replace(RECIPE, layer_decay=0.5, weight_decay=0.1))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    share = {names[id(p)]: (g["share"], g["weight_decay"]) for g in optimiser.param_groups for p in g["params"]}
    assert len(share) == len(names)
    assert share["head.weight"] == (1.0, 0.1) and share["head.bias"] == (1.0, 0.0)
    assert share["encoder.norm.weight"] == (1.0, 0.0)
    assert share["encoder.blocks.1.attn.qkv.weight"] == (0.5, 0.1)
    assert share["encoder.blocks.0.mlp.fc1.bias"] == (0.25, 0.0)
    assert share["encoder.patch_embed.proj.weight"] == (0.125, 0.1) and share["encoder.cls_token"] == (0.125, 0.0)


def test_a_deviation_of_nothing_has_no_gradient_and_no_nan():
    steps = torch.ones(1, 2, 3, 4, requires_grad=True)
    pool(steps, "mean+std").sum().backward()
    assert torch.equal(steps.grad, torch.full_like(steps, 1 / 3))


def test_losses_equal_torch_s():
    rng = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(6, 4, generator=rng), torch.tensor([0, 1, 2, 3, 0, 1])
    flags = torch.nn.functional.one_hot(labels, 4).float()
    smoothed = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1, reduction="none")
    torch.testing.assert_close(soft_cross_entropy(logits, flags, False, 0.1), smoothed)
    binary = torch.nn.functional.binary_cross_entropy_with_logits(logits, flags * 0.9 + 0.05, reduction="none")
    torch.testing.assert_close(soft_cross_entropy(logits, flags, True, 0.1), binary.mean(dim=1))


@pytest.mark.parametrize(
    ("changes", "every_s", "again_from"),
    [
        pytest.param({}, math.inf, 1, marks=pytest.mark.slow),
        pytest.param({}, 0.0, 2, marks=pytest.mark.slow),
        pytest.param({"optimiser": "sgd"}, 0.0, 2, marks=pytest.mark.slow),
        ({"head": "probe", "pooling": "mean+std"}, math.inf, 0),
        pytest.param({"head": "probe", "pooling": "mean+std"}, 0.0, 2, marks=pytest.mark.slow),
        pytest.param({"head": "probe", "train_on_valid": True}, 0.0, 2, marks=pytest.mark.slow),
        (BATCH_NORM_AND_AMSGRAD, 0.0, 2),
    ],
)
def test_a_killed_fine_tuning_resumes(tones, table, tmp_path, monkeypatch, changes, every_s, again_from):
    """Finished trainings are reused, and an interrupted one resumes from its checkpoint with the same result."""
    monkeypatch.setattr(trainer, "CHECKPOINT_EVERY_S", every_s)
    recipe = replace(AUGMENTED, epochs=3, batch_size=16, **changes)
    options = {"num_seeds": 2, "recipe_name": "test"}
    first = 0 if recipe.head == "probe" else 1
    whole = finetune(start_for(tones), table, tones, recipe, tmp_path / "whole", **options)

    def die_in_the_third(epoch):
        if (epoch.fold, epoch.seed, epoch.epoch) == ("2", 0, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(start_for(tones), table, tones, recipe, tmp_path / "cut", report=die_in_the_third, **options)
    again = []
    resumed = finetune(start_for(tones), table, tones, recipe, tmp_path / "cut", report=again.append, **options)
    numbers = [("2", 0, number) for number in range(again_from, 4)] + [("2", 1, number) for number in range(first, 4)]
    assert [(epoch.fold, epoch.seed, epoch.epoch) for epoch in again] == numbers
    assert replace(resumed, notes=()) == replace(whole, notes=())
    assert not list(tmp_path.rglob(CHECKPOINT))
    folders = sorted(path.parent.relative_to(tmp_path / "whole") for path in tmp_path.glob(f"whole/**/{PREDICTIONS}"))
    assert len(folders) == 4
    for folder in folders:
        for file in (tmp_path / "whole" / folder).iterdir():
            (tensors, metadata), (others, described) = (read_tensors(tmp_path / name / folder / file.name)
                                                        for name in ("whole", "cut"))  # fmt: skip
            assert metadata == described and tensors.keys() == others.keys()
            assert all(torch.equal(tensor, others[name]) for name, tensor in tensors.items()), file
    other = []
    finetune(start_for(tones), table, tones, replace(recipe, mixup=0.2), tmp_path / "cut", report=other.append)
    assert len(other) == 6 * (4 - first), "other settings are other trainings"


def test_the_saved_model_gives_the_reported_predictions(tones, table, tmp_path):
    recipe = replace(FROM_PROBE, epochs=2)
    result = finetune(start_for(tones), table, tones, recipe, tmp_path, test_folds=("2",), num_seeds=1)
    (path,) = tmp_path.glob(f"finetune/*/fold-2-seed-0/{PREDICTIONS}")
    saved, best = read_tensors(path)
    model = FinetunedModel.load(path.parent)
    assert model.classes == ("high", "low", "middle")
    predicted = model.predict(tones, saved["row"].tolist())
    assert np.array_equal(predicted, saved["probabilities"].numpy())
    score = score_of(task_of(tones).targets[saved["row"].numpy()], predicted)
    assert result.score == pytest.approx(score, abs=1e-9)
    assert result.probe == "finetune" and result.low <= result.score <= result.high and result.num_clips == 36
    assert result.num_dims == 2 * 5 * 32 and result.encoder == "encoder (last layer, mean+std)"
    assert json.loads(best["epoch"]) in (0, 1, 2)
    tuned = PretrainedEncoder.load(path.parent, FeatureSettings(pooling="mean+std"))
    assert np.array_equal(tuned.embed_store(tones, [0]), model.as_encoder().embed_store(tones, [0]))
    assert tuned.identity != start_for(tones).identity


def test_a_head_of_another_encoder_is_refused(tones, tmp_path):
    FinetunedModel(start_for(tones), ["a", "b"], False).save(tmp_path)
    EncoderFile(Encoder(SIZES["tiny"], (16, 16)), start_for(tones).front_end, 96).save(tmp_path / ENCODER)
    with pytest.raises(ValueError, match="another encoder"):
        FinetunedModel.load(tmp_path)
    with pytest.raises(ValueError, match="cannot be read"):
        FinetunedModel.load(tmp_path / "nowhere")


def test_a_head_of_the_first_version_is_read_as_mean_pooling(tones, tmp_path):
    model = FinetunedModel(start_for(tones), ["a", "b"], False)
    model.save(tmp_path)
    tensors, metadata = read_tensors(tmp_path / HEAD)
    del metadata["pooling"]
    write_tensors(tmp_path / HEAD, tensors, metadata)
    assert FinetunedModel.load(tmp_path).settings.pooling == "mean"


def test_classes_without_training_clips_are_noted(tones, table, tmp_path):
    clips = [s for s in tones.clips if s.clip.label != "low" or s.clip.fold == "2"]
    tones_without = type(tones)(tones.folder, {**tones.info, "fingerprint": "without"}, clips, [])
    recipe = replace(RECIPE, epochs=1, warmup_epochs=0)
    result = finetune(start_for(tones), table, tones_without, recipe, tmp_path, test_folds=("2",), num_seeds=1)
    assert any("no training clips of low" in note for note in result.notes)


def test_a_loss_that_is_not_finite_ends_it(tones):
    with pytest.raises(Diverged, match="lower learning rate"):
        train_fold(tones, replace(RECIPE, optimiser="sgd", learning_rate=1e30))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"mixup": -1.0}, "mixup must not be negative"),
        ({"patch_mask_ratio": 1.0}, r"patch_mask_ratio is a share in \[0, 1\)"),
        ({"layer_decay": 1.5}, "layer_decay is a share"),
        ({"epochs": 5}, "shorten the warm-up"),
        ({"head": "probe"}, "set standardise"),
        ({"start_share": 0.5}, "set head to probe"),
        ({"excerpt_frames": -1}, "excerpt_frames must not be negative"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        FinetuneRecipe(**changes)


def test_bad_input_is_refused(tones, table, tmp_path):
    with pytest.raises(ValueError, match="0 seeds"):
        finetune(start_for(tones), table, tones, RECIPE, tmp_path, num_seeds=0)
    with pytest.raises(ValueError, match="shorter than a patch"):
        train_fold(tones, replace(RECIPE, crop_frames=8))


@pytest.mark.parametrize("name", FINETUNE_RECIPES)
def test_every_named_recipe_takes_a_step(tones, name):
    recipe = replace(FINETUNE_RECIPES[name], epochs=1, warmup_epochs=0, batch_size=16)
    _, best, split, predicted = train_fold(tones, recipe)
    assert best.epoch == 1 and predicted.shape == (len(split.test), 3) and np.isfinite(predicted).all()


def test_the_command_shows_it_beside_the_untrained_encoder(tones, table, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MELMASK_CACHE", str(tmp_path / "cache"))
    start = start_for(tones)
    (tmp_path / "run").mkdir()
    EncoderFile(start.encoder, start.front_end, 96).save(tmp_path / "run" / ENCODER)
    command = [
        "finetune", str(tmp_path / "run"), "--task", str(table), "--test-folds", "1", "--seeds", "1", "--untrained",
        "--epochs", "2", "--warmup-epochs", "1", "--freeze-patch-embed", "--workers", "0",
    ]  # fmt: skip
    main(command)
    lines = [json.loads(line) for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines()]
    assert [(line["features"], line["probe"]) for line in lines] == [
        ("encoder", "finetune"),
        ("untrained", "finetune"),
    ]
    assert "small-changed" in lines[0]["settings"]
    shown = capsys.readouterr().out
    assert "epoch 2/2" in shown and "run untrained" in shown
