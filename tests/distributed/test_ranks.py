"""Many processes or one, accumulated or not: the same batch gives the same step."""

import dataclasses
import os
import socket
import subprocess
import sys

import torch

from melmask.train import loop
from melmask.train.checkpoint import CHECKPOINT, read_tensors
from melmask.train.recipe import RECIPES

CODE = (
    "import sys; from pathlib import Path; import torch; torch.set_num_threads(1)\n"
    "from melmask.data.store import Store; from melmask.train import loop\n"
    "from melmask.train.recipe import Recipe\n"
    "store, recipe, run = map(Path, sys.argv[1:])\n"
    "loop.pretrain(Recipe.load(recipe), Store.open(store), run)\n"
)


def settings(**changes):
    return dataclasses.replace(RECIPES["micro-m2d"], steps=6, batch_size=8, strategy="dwm", hint_start=0.0, **changes)


def weights(run):
    return {name: value for name, value in read_tensors(run / CHECKPOINT)[0].items() if name.startswith("model.")}


def test_two_processes_are_one_that_accumulates(store, tmp_path):
    loop.pretrain(settings(accumulate=2), store, tmp_path / "one")
    settings().save(tmp_path / "settings.json")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = []
    for rank in range(2):
        world = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        arguments = [sys.executable, "-c", CODE, store.folder, tmp_path / "settings.json", tmp_path / "two"]
        processes.append(subprocess.Popen(list(map(str, arguments)), env={**os.environ, **world}))
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one.keys() == two.keys()
    for name in one:
        assert torch.allclose(one[name], two[name], atol=1e-5), name
    start = loop.Recipe.make_model  # the runs did move: equality of two untouched models would prove nothing
    torch.manual_seed(0)
    fresh = start(settings()).state_dict()
    assert not torch.allclose(one["model.encoder.blocks.0.attn.qkv.weight"], fresh["encoder.blocks.0.attn.qkv.weight"])
