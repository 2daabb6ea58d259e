"""A run that starts from other weights: which it takes, what is said of them, and what is refused."""

import json
import os
import signal

import pytest
import torch

import melmask
from melmask.files import read_tensors, select_prefix, write_tensors
from melmask.logmel import LogMelSpec
from melmask.nn.encoder_file import ENCODER, Beside, EncoderFile, FrontEnd
from melmask.nn.vit import SIZES, Size
from melmask.report.crops import crops_of
from melmask.study.runs import read_runs
from melmask.train import loop
from melmask.train.checkpoint import MODEL
from melmask.train.distributed import World
from melmask.train.initial import Initial
from melmask.train.recipe import Recipe
from melmask.train.run_folder import CHECKPOINT, DATA, INIT, RECIPE
from published import published_tensors, save_published


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """A size that published weights can have, and that trains quickly."""
    monkeypatch.setitem(SIZES, "narrow", Size(64, 2, 1))


def recipe(framework="m2d", **changes):
    settings = {
        "size": "narrow", "position_order": "time-freq", "decoder_dim": 32, "decoder_depth": 1, "steps": 2,
        "batch_size": 4, "log_every": 1, "save_every": 1,
    }  # fmt: skip
    return melmask.recipe(f"micro-{framework}", **settings | changes)


@pytest.fixture
def published(tmp_path):
    def make(kind, **changes):
        tensors = published_tensors(kind, dim=64, decoder=(32, 1), **changes)
        return save_published(tmp_path / f"{kind}-80x96p16x16.pth", tensors), tensors

    return make


def state_of(run):
    return select_prefix(read_tensors(run / CHECKPOINT)[0], MODEL)


def started(recipe, path, store):
    """A fresh model that has started from the weights, and what is said."""
    initial = Initial.read(path)
    initial.check(recipe, store.spec)
    model = recipe.make_model()
    return model, initial.start(model)


def test_all_of_a_published_model_is_taken(published, store):
    path, tensors = published("m2d")
    model, said = started(recipe(), path, store)
    assert said.startswith("encoder, target, predictor from") and "new" not in said and "not used" not in said
    state = model.state_dict()
    for theirs, ours in {
        "blocks.1.attn.qkv.weight": "encoder.blocks.1.attn.qkv.weight",
        "target_blocks.0.norm2.bias": "target.blocks.0.norm2.bias",
        "target_norm.weight": "target.norm.weight",
        "cls_token": "target.cls_token",
        "decoder_embed.weight": "predictor.embed.weight",
        "decoder_blocks.0.mlp.fc1.bias": "predictor.blocks.0.mlp.fc1.bias",
        "mask_token": "predictor.mask_token",
        "decoder_pred.bias": "predictor.pred.bias",
    }.items():
        assert torch.equal(state[ours], tensors[theirs]), ours
    assert torch.equal(state["target.patch_embed.proj.weight"], tensors["patch_embed.proj.weight"].flatten(1))


def test_a_target_that_the_file_lacks_starts_from_the_encoder(published, store):
    model, said = started(recipe(), published("encoder")[0], store)
    assert "; new: predictor" in said
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(model.target.state_dict()[name], tensor)


def test_another_frameworks_decoder_is_not_used_and_named(published, store):
    model, said = started(recipe(decoder_dim=16), published("msm-mae")[0], store)
    assert "; new: predictor; not used: decoder" in said
    assert model.predictor.size.dim == 16


def test_training_starts_from_the_weights_with_a_new_optimiser(published, store, tmp_path):
    path, _ = published("m2d")
    notes = []
    run = tmp_path / "run"
    slow = recipe(learning_rate=1e-9)
    assert loop.pretrain(slow, store, run, init=path, note=notes.append)
    expected = Initial.read(path).saved.encoder.state_dict()
    for name, tensor in EncoderFile.load(run / ENCODER).encoder.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=0)
    assert EncoderFile.load(run / ENCODER).encoder.positions.order == "time-freq"
    assert notes[0].startswith("started from other weights: encoder")
    assert json.loads((run / INIT).read_text())["path"] == str(path)
    assert int(read_tensors(run / CHECKPOINT)[0]["optimiser.step.encoder.norm.bias"]) == 2


@pytest.mark.parametrize("framework", ["m2d", "msm-mae"])
def test_a_run_starts_from_another_run_and_from_its_encoder_file(framework, store, tmp_path):
    first = melmask.pretrain(recipe(framework), store, tmp_path / "first")
    model, said = started(recipe(framework), first, store)
    assert "new" not in said
    for name, tensor in state_of(first).items():
        assert torch.equal(model.state_dict()[name], tensor), name
    second = melmask.pretrain(recipe(framework), store, tmp_path / "second", init=str(first / ENCODER))
    assert "new: " in started(recipe(framework), first / ENCODER, store)[1]
    assert json.loads((second / INIT).read_text())["path"] == str(first / ENCODER)


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_from_the_same_weights(published, store, tmp_path):
    path, _ = published("m2d")
    loop.pretrain(recipe(), store, tmp_path / "whole", init=path)
    loop.pretrain(recipe(), store, tmp_path / "killed", init=path)
    (tmp_path / "killed" / CHECKPOINT).unlink()
    loop.pretrain(recipe(), store, tmp_path / "killed", resume=True)
    whole, killed = state_of(tmp_path / "whole"), state_of(tmp_path / "killed")
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


def test_a_start_that_is_cut_off_leaves_no_run_without_its_weights(published, store, tmp_path, monkeypatch):
    """recipe.json says that the folder holds a run, so init.json must be there before."""

    def die(self, path):
        raise KeyboardInterrupt

    path, run = published("m2d")[0], tmp_path / "run"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Recipe, "save", die)
        loop.pretrain(recipe(), store, run, init=path)
    assert (run / INIT).exists() and not (run / RECIPE).exists()
    assert loop.pretrain(recipe(), store, run)  # from random weights, as nothing else is asked for
    assert not (run / INIT).exists()


def test_no_process_looks_at_the_folder_while_another_makes_it(published, store, tmp_path, monkeypatch):
    """A second process that saw the recipe of the first would take its start for a resumption from other weights."""
    calls = []
    monkeypatch.setattr(World, "wait", lambda world: calls.append("wait"))
    monkeypatch.setattr(loop, "find_initial", lambda *given: calls.append("look"))
    monkeypatch.setattr(loop, "open_run", lambda *given: calls.append("make"))
    monkeypatch.setattr(loop.Trainer, "train", lambda *given: True)
    loop.pretrain(recipe(), store, tmp_path / "run")
    assert calls == ["look", "wait", "make", "wait"]


def test_a_run_is_not_resumed_from_other_weights(published, store, tmp_path):
    path, _ = published("m2d")
    loop.pretrain(recipe(), store, tmp_path / "run", init=path)
    loop.pretrain(recipe(), store, tmp_path / "run", init=path, resume=True)
    other, _ = published("m2d", seed=1)
    with pytest.raises(ValueError, match=r"was not started from .* as it is now"):
        loop.pretrain(recipe(), store, tmp_path / "run", init=other, resume=True)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"size": "micro"}, "--size narrow"),
        ({"position_order": "freq-time"}, "--position-order time-freq"),
        ({"patch_shape": (8, 16)}, "--patch-shape 16 16"),
        ({"decoder_dim": 64, "decoder_depth": 3}, "--decoder-dim 32 --decoder-depth 1 .or start from the encoder"),
        ({"size": "micro", "position_order": "freq-time"}, "--size narrow --position-order time-freq"),
    ],
)
def test_a_recipe_of_another_form_is_told_what_it_needs(changes, named, published, store, tmp_path):
    path, _ = published("m2d")
    with pytest.raises(ValueError, match=f"of another form than the recipe's. It needs {named}"):
        melmask.pretrain(recipe(**changes), store, tmp_path / "run", init=path)
    assert not (tmp_path / "run").exists()


def test_a_store_of_another_front_end_is_refused(published, store, tmp_path):
    path, _ = published("encoder")
    with pytest.raises(ValueError, match="takes log-mels of LogMelSpec"):
        Initial.read(path).check(recipe(), LogMelSpec(num_mels=96))
    with pytest.raises(ValueError, match="no weights to start from at"):
        melmask.pretrain(recipe(), store, tmp_path / "run", init="nothing.pth")


def test_missing_weights_of_a_part_are_named(published, store):
    path, tensors = published("m2d")
    del tensors["decoder_norm.bias"]
    with pytest.raises(ValueError, match=r"lacks weights of the recipe's model: predictor\.norm\.bias"):
        started(recipe(), save_published(path, tensors), store)


def test_a_safetensors_file_of_published_names_is_taken(published, store, tmp_path):
    _, tensors = published("m2d")
    write_tensors(tmp_path / "m2d.safetensors", tensors, {})
    assert "new" not in started(recipe(), tmp_path / "m2d.safetensors", store)[1]


def test_a_target_of_blocks_shares_the_online_encoders_embedding(published, store, tmp_path):
    """Whatever target the weights come from: here one with a patch embedding of its own."""
    first = melmask.pretrain(recipe(learning_rate=0.01), store, tmp_path / "first")
    state = state_of(first)
    name = "patch_embed.proj.weight"
    assert not torch.equal(state[f"target.{name}"], state[f"encoder.{name}"])
    of_blocks = recipe(framework_options={"target": "blocks"})
    for path in (first, published("m2d")[0]):
        model, said = started(of_blocks, path, store)
        assert "new" not in said
        assert torch.equal(model.state_dict()[f"target.{name}"], Initial.read(path).saved.encoder.state_dict()[name])
    model = started(of_blocks, first, store)[0]
    assert torch.equal(model.state_dict()["target.norm.bias"], state["target.norm.bias"])
    second = melmask.pretrain(of_blocks, store, tmp_path / "second", init=first)
    assert "new" not in started(of_blocks, second, store)[1]


def test_a_run_starts_from_an_encoder_that_another_kept(store, tmp_path):
    first = melmask.pretrain(recipe(keep_every=1), store, tmp_path / "first")
    model, said = started(recipe(), tmp_path / "first@1", store)
    assert said.startswith("encoder, target from") and "new: predictor" in said
    kept = EncoderFile.load(first / "encoders" / "1.safetensors").encoder.state_dict()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in model.encoder.state_dict().items())


def test_a_run_starts_from_the_encoder_that_comes_with_melmask(shipped_tiny, store, tmp_path):
    tiny = EncoderFile.load(shipped_tiny)
    settings = {"size": "micro", "position_order": "freq-time", "steps": 2, "learning_rate": 1e-9}
    run, notes = tmp_path / "run", []
    assert loop.pretrain(recipe("msm-mae", **settings), store, run, init="tiny", note=notes.append)
    assert notes == ["started from other weights: encoder from tiny; new: decoder"]
    written = EncoderFile.load(run / ENCODER)
    for name, tensor in written.encoder.state_dict().items():
        torch.testing.assert_close(tensor, tiny.encoder.state_dict()[name], atol=1e-6, rtol=0)
    begun = json.loads((run / INIT).read_text())
    assert begun["path"] == "shipped:tiny"  # wherever the package is installed, and whatever lies beside the run
    assert (written.layers, written.pooling) == (tiny.layers, tiny.pooling) == ((1, 2), "mean+std")
    told: list[str] = []  # its checkpoint has all that is needed
    assert loop.pretrain(recipe("msm-mae", **settings), store, run, resume=True, init="tiny", note=told.append)
    assert told == []
    (run / CHECKPOINT).unlink()
    loop.pretrain(recipe("msm-mae", **settings), store, run, resume=True)
    again = melmask.pretrain(recipe("msm-mae", **settings), store, tmp_path / "again", init=run / ENCODER)
    assert EncoderFile.load(again / ENCODER).layers == (1, 2)


def test_the_decoder_in_an_encoder_file_is_started_from_where_the_recipes_is_of_its_form(store, tmp_path):
    """Without it a short run from other weights mostly moves the encoder away from them, as its decoder is new."""
    first, path = recipe("msm-mae"), tmp_path / "birds.safetensors"
    model = first.make_model()
    weights = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("encoder.")}
    assert weights and all(name.startswith("decoder.") for name in weights)
    front_end = FrontEnd(store.spec, store.mean, store.std)
    EncoderFile(model.encoder, front_end, 96, beside=Beside("msm-mae", first.decoder_size, weights)).save(path)

    def said(framework, **changes):
        notes = []
        run, settings = tmp_path / f"run-{len(list(tmp_path.iterdir()))}", recipe(framework, **changes)
        loop.pretrain(settings, store, run, init=path, note=notes.append)
        return notes[0].removeprefix("started from other weights: "), run

    text, run = said("msm-mae", learning_rate=1e-9)
    assert text == f"encoder, decoder from {path}"
    for name, tensor in select_prefix(read_tensors(run / CHECKPOINT)[0], MODEL).items():
        torch.testing.assert_close(tensor, model.state_dict()[name], atol=1e-6, rtol=0)
    new = f"encoder from {path}; new: decoder; not used: its decoder"
    assert said("msm-mae", decoder_depth=2)[0] == new
    assert said("msm-mae", decoder_heads=4)[0] == new  # which no tensor's shape tells
    assert said("msm-mae", framework_options={"decoder": "cross"})[0] == new
    assert said("m2d")[0] == f"encoder, target from {path}; new: predictor; not used: its decoder"


def test_a_run_keeps_the_normalisation_of_the_weights_it_starts_from(shipped_tiny, store, tmp_path):
    """Its encoder knows its input so: recordings that are louder than those it was trained on are louder to it."""
    front_end = EncoderFile.load(shipped_tiny).front_end
    assert (front_end.mean, front_end.std) != pytest.approx((store.mean, store.std), abs=0.1)
    settings = recipe("msm-mae", size="micro", position_order="freq-time", mask_ratio=0.5)
    run = melmask.pretrain(settings, store, tmp_path / "run", init="tiny")
    again = melmask.pretrain(settings, store, tmp_path / "again", init=run / ENCODER)
    for folder in (run, again):
        data = json.loads((folder / DATA).read_text())
        assert EncoderFile.load(folder / ENCODER).front_end == front_end
        assert (data["mean"], data["std"]) == (front_end.mean, front_end.std)
    [found] = read_runs([run])  # as reports do
    crops = crops_of(found, found.store, 1)
    row, start = int(crops.clip[0]), int(crops.start_frame[0])
    log_mel = store.log_mel(row, start)[:48].astype("float32").T
    expected = torch.from_numpy((log_mel - front_end.mean) / front_end.std)
    assert torch.allclose(crops.log_mel[0, :, : expected.shape[1]], expected, atol=1e-4)


def test_a_run_that_was_begun_with_the_stores_own_normalisation_is_resumed_with_it(shipped_tiny, store, tmp_path):
    settings = recipe("msm-mae", size="micro", position_order="freq-time", steps=4, save_every=2)
    run, before = tmp_path / "run", {"mean": store.mean, "std": store.std}
    stop = lambda entry: os.kill(os.getpid(), signal.SIGTERM) if entry.step == 2 else None  # noqa: E731
    assert not loop.pretrain(settings, store, run, init="tiny", report=stop)
    (run / DATA).write_text(json.dumps(json.loads((run / DATA).read_text()) | before))  # as earlier versions did
    loop.pretrain(settings, store, run, resume=True)
    front_end = EncoderFile.load(run / ENCODER).front_end
    assert {"mean": front_end.mean, "std": front_end.std} == before


def test_a_recipe_of_another_form_than_the_shipped_encoder_is_told_what_it_needs(shipped_tiny, store, tmp_path):
    message = "tiny is of another form than the recipe's. It needs --patch-shape 16 16"
    changes = {"size": "micro", "position_order": "freq-time"}
    with pytest.raises(ValueError, match=f"^{message}$"):
        melmask.pretrain(recipe("msm-mae", patch_shape=(8, 16), **changes), store, tmp_path / "run", init="tiny")


@pytest.mark.parametrize("framework, new", [("msm-mae", "decoder"), ("m2d", "predictor")])
def test_what_is_new_is_trained_alone_for_twice_the_warm_up(store, tmp_path, framework, new):
    """What passes through a decoder that has learned nothing would move the encoder away from what it had learned."""
    first = melmask.pretrain(recipe("msm-mae", decoder_depth=2), store, tmp_path / "first") / ENCODER
    given = EncoderFile.load(first).encoder.state_dict()
    settings, run, notes = recipe(framework, steps=8, warmup=0.25, keep_every=1), tmp_path / "run", []
    stop = lambda entry: os.kill(os.getpid(), signal.SIGTERM) if entry.step == 3 else None  # noqa: E731
    assert not loop.pretrain(settings, store, run, init=first, note=notes.append, report=stop)
    assert notes[0].endswith(f"; new: {new}; only what is new is trained in the first 4 steps")
    torch.manual_seed(settings.seed)
    begun = settings.make_model().state_dict()
    moved = {
        name.partition(".")[0]
        for name, tensor in state_of(run).items()
        if not torch.equal(tensor, given.get(name.partition(".")[2], begun[name]))
    }
    assert moved == {new}
    loop.pretrain(settings, store, run, resume=True)
    kept = [EncoderFile.load(run / "encoders" / f"{step}.safetensors").encoder.state_dict() for step in (4, 5)]
    assert all(torch.equal(tensor, given[name]) for name, tensor in kept[0].items())
    assert not any(torch.equal(kept[1][name], given[name]) for name in given if "qkv" in name)
    whole = melmask.pretrain(settings, store, tmp_path / "whole", init=first)
    assert all(torch.equal(tensor, state_of(whole)[name]) for name, tensor in state_of(run).items())


def test_a_run_that_was_begun_before_new_networks_were_recorded_goes_on_as_it_began(store, tmp_path):
    first = melmask.pretrain(recipe("msm-mae"), store, tmp_path / "first") / ENCODER
    given, run = EncoderFile.load(first).encoder.state_dict(), tmp_path / "run"
    settings = recipe("msm-mae", steps=8, warmup=0.25, keep_every=1)
    stop = lambda entry: os.kill(os.getpid(), signal.SIGTERM) if entry.step == 1 else None  # noqa: E731
    assert not loop.pretrain(settings, store, run, init=first, report=stop)
    begun = json.loads((run / INIT).read_text())
    assert begun.pop("new") == ["decoder"]
    (run / INIT).write_text(json.dumps(begun))  # as earlier versions did
    loop.pretrain(settings, store, run, resume=True, init=first)
    kept = EncoderFile.load(run / "encoders" / "2.safetensors").encoder.state_dict()
    assert not any(torch.equal(kept[name], given[name]) for name in given if "qkv" in name)


def test_all_is_trained_from_the_first_step_where_nothing_is_new(store, tmp_path):
    first = melmask.pretrain(recipe("msm-mae"), store, tmp_path / "first")
    given = EncoderFile.load(first / ENCODER).encoder.state_dict()
    settings, notes = recipe("msm-mae", steps=4, warmup=0.5, keep_every=1), []
    loop.pretrain(settings, store, tmp_path / "run", init=first, note=notes.append)
    assert "new" not in notes[0]
    kept = EncoderFile.load(tmp_path / "run" / "encoders" / "1.safetensors").encoder.state_dict()
    assert not any(torch.equal(kept[name], given[name]) for name in given if "qkv" in name)
