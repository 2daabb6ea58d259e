"""Two processes take the same steps as one, with and without accumulation."""

import dataclasses
import os
import socket
import subprocess
import sys
import weakref

import pytest
import torch
from torch import distributed

from melmask.files import read_tensors
from melmask.train import distributed as ranks
from melmask.train import loop
from melmask.train.recipe import RECIPES
from melmask.train.run_folder import CHECKPOINT

STRATEGIES = ("dwm", "dwm_band", "hard")
OPTIMISED = {"optimiser": "muon", "weights_ema": 0.9, "schedule": "wsd"}
RUNS = {strategy: {"strategy": strategy} for strategy in STRATEGIES} | {"muon": OPTIMISED}
OF_BLOCKS = {"ema_start": 0.99, "ema_end": 0.999, "target": "blocks"}  # shares weights between its encoders
# Each process trains all recipes in turn, and keeps what it remembers at the end of each.
CODE = """
import os, sys, time
from pathlib import Path
import torch
from safetensors.torch import save_file
from melmask.data.store import Store
from melmask.train import loop
from melmask.train.distributed import RankLost
from melmask.train.recipe import Recipe

torch.set_num_threads(int(os.environ["NUM_THREADS"]))
memory, after_step = {}, loop.Masker.after_step

def watched(masker):
    after_step(masker)
    memory.update(masker.state())

loop.Masker.after_step = watched
def stuck(trainer, step, parts):
    if step == 4 and trainer.world.rank == 1:
        while not (Path(silent) / "lost0").exists():
            time.sleep(0.05)
    return train_step(trainer, step, parts)

train_step, (store, last, *runs) = loop.Trainer.step, sys.argv[1:]
for run in runs:
    recipe, port, run = run.split(",")
    os.environ["MASTER_PORT"] = port
    memory.clear()
    loop.pretrain(Recipe.load(Path(recipe)), Store.open(Path(store)), Path(run))
    save_file(memory, Path(run) / ("memory" + os.environ["RANK"]))

recipe, os.environ["MASTER_PORT"], silent = last.split(",")
loop.Trainer.step = stuck
if os.environ["RANK"] == "1":
    time.sleep(6)  # starts later than the other by more than it may be silent for
try:
    loop.pretrain(Recipe.load(Path(recipe)), Store.open(Path(store)), Path(silent), rank_timeout_s=4)
except RankLost as error:
    (Path(silent) / ("lost" + os.environ["RANK"])).write_text(str(error))
"""


def settings(**changes):
    options = OF_BLOCKS if changes.get("strategy") == "dwm" else RECIPES["micro-m2d"].framework_options
    changes = {"framework_options": options, **changes}
    return dataclasses.replace(RECIPES["micro-m2d"], steps=6, batch_size=8, hint_start=0.0, **changes)


def learnt(run):
    tensors = read_tensors(run / CHECKPOINT)[0]
    return {name: value for name, value in tensors.items() if not name.startswith("optimiser.")}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def two_processes(store, tmp_path_factory):
    """The folder of the runs, trained by two processes."""
    folder = tmp_path_factory.mktemp("two")
    runs = []
    for name, changes in {"silent": {"save_every": 3}, **RUNS}.items():
        settings(**changes).save(folder / f"{name}.json")
        runs.append(f"{folder / name}.json,{free_port()},{folder / name}")
    processes = []
    for rank in range(2):
        world = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        world["NUM_THREADS"] = str(torch.get_num_threads())
        arguments = [sys.executable, "-c", CODE, str(store.folder), *runs]
        processes.append(subprocess.Popen(arguments, env={**os.environ, **world}))
    assert [process.wait(timeout=240) for process in processes] == [0, 0]
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_equal_one_that_accumulates(name, two_processes, store, tmp_path):
    loop.pretrain(settings(**RUNS[name], accumulate=2), store, tmp_path / "one")
    one, two = learnt(tmp_path / "one"), learnt(two_processes / name)
    assert one.keys() == two.keys()
    for name in one:
        assert torch.allclose(one[name], two[name], atol=1e-5, equal_nan=True), name
    start = loop.Recipe.make_model  # the runs did move: equality of two untouched models would prove nothing
    torch.manual_seed(0)
    fresh = start(settings()).state_dict()
    assert not torch.allclose(one["model.encoder.blocks.0.attn.qkv.weight"], fresh["encoder.blocks.0.attn.qkv.weight"])


@pytest.mark.parametrize(("strategy", "remembered"), [("dwm", set()), ("dwm_band", {"profile"}), ("hard", {"loss"})])
def test_all_processes_record_the_same(strategy, remembered, two_processes):
    one, other = (read_tensors(two_processes / strategy / f"memory{rank}")[0] for rank in range(2))
    assert one.keys() == other.keys() == remembered
    for name in one:
        assert one[name].numpy().tobytes() == other[name].numpy().tobytes()
        assert one[name].isfinite().any()


def test_a_process_that_does_not_answer_ends_the_other_and_the_checkpoint_is_kept(two_processes, store):
    run = two_processes / "silent"
    assert "process 0 of 2 ends: another one ended, or did not answer for 4 s" in (run / "lost0").read_text()
    assert "resume with --resume" in (run / "lost1").read_text()
    assert read_tensors(run / CHECKPOINT)[1]["step"] == "3"
    assert loop.pretrain(settings(save_every=3), store, run, resume=True)


def test_nothing_holds_the_group_of_processes_when_it_is_destroyed():
    """What does holds Python's lock too while the threads of gloo end, which wait for it: now and then a run hung."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    world, model = ranks.World(0, 2, torch.device("cpu")), torch.nn.Linear(3, 2)
    wrapped = world.wrap(model)
    wrapped(torch.ones(1, 3)).sum().backward()
    held = [weakref.ref(one) for one in (wrapped.reducer, wrapped.logger, wrapped.process_group)]
    world.leave()
    assert [one() for one in held] == [None] * 3 and not distributed.is_initialized()
    assert model.weight.grad is not None and wrapped.module is model


def test_a_process_that_never_joins_is_named(monkeypatch):
    monkeypatch.setattr(ranks, "RANK_TIMEOUT_S", 1.0)
    port = str(free_port())
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(ranks.RankLost, match=f"not all of them joined at 127.0.0.1:{port} within 1 s"),
        ranks.join_world(1.0),
    ):
        pass
