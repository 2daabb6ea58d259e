"""Small artefacts of every kind, made once, and copied for each fault."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from torch import Tensor

from melmask.data.prepare import prepare
from melmask.data.store import Store
from melmask.encoders.cache import cached_embed
from melmask.encoders.embeddings import Embeddings
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.evaluation.results import Result, append_results
from melmask.files import read_tensors
from melmask.nn.encoder_file import ENCODER
from melmask.train.loop import pretrain
from melmask.train.recipe import RECIPES, Recipe
from melmask.train.run_folder import LogEntry

SAMPLE_RATE_HZ = 16_000
NUM_RECORDINGS = 8
RECIPE = replace(
    RECIPES["micro-msm-mae"], steps=6, batch_size=4, crop_frames=32, log_every=1, save_every=3, keep_every=3,
)  # fmt: skip
RESULT = Result(
    task="task", task_path="task.csv", probe="logistic", features="encoder", metric="accuracy", score=0.5, low=0.4,
    high=0.6, num_seeds=1, num_clips=8, num_classes=2, num_dims=32, rejected=0, test_folds=(), command="melmask",
    version="0.1.0", encoder="run", identity="a", content="b",
)  # fmt: skip


class Interrupted(Exception):
    """Ends a training between two checkpoints, as a kill does."""


@dataclass(frozen=True)
class Bench:
    """Copies of all artefacts, for one fault.

    Args:
        folder: that they are in.
        shop: where they were made, and what they hold without a fault.
    """

    folder: Path
    shop: "Workshop"

    @property
    def audio(self) -> Path:
        """Recordings and their table, task.csv. The store is of those in the workshop."""
        return self.folder / "audio"

    @property
    def store(self) -> Path:
        """The prepared recordings of the workshop."""
        return self.folder / "store"

    @property
    def run(self) -> Path:
        """A complete run on the store."""
        return self.folder / "run"

    @property
    def half(self) -> Path:
        """The same run, killed after four of six steps; its checkpoint is of step three."""
        return self.folder / "half"

    @property
    def cache(self) -> Path:
        """Features of the store by the run's encoder."""
        return self.folder / "cache"

    def prepare(self, **options: Any) -> Store:
        """Prepare the workshop's recordings to the store again."""
        return prepare([self.shop.base / "audio" / "task.csv"], self.store, num_workers=0, **options)

    def resume(self, run: Path, recipe: Recipe = RECIPE) -> dict[str, Tensor]:
        """Resume a run; the weights that it ends with."""
        pretrain(recipe, Store.open(self.store), run, resume=True, num_threads=1)
        return weights(run / ENCODER)


class Workshop:
    """Makes the artefacts.

    Args:
        root: a folder, which must not exist yet.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.base, self._num_benches = root, root / "base", 0
        root.mkdir(parents=True)
        make_recordings(self.base / "audio")
        store = prepare([self.base / "audio" / "task.csv"], self.base / "store", num_workers=0)
        pretrain(RECIPE, store, self.base / "run", num_threads=1)
        with suppress(Interrupted):
            pretrain(RECIPE, store, self.base / "half", num_threads=1, report=_interrupt)
        append_results(self.base / "run", [RESULT, replace(RESULT, probe="knn"), replace(RESULT, probe="ridge")])
        encoder = PretrainedEncoder.load(self.base / "run")
        self.features = cached_embed(encoder, store, self.base / "cache")
        clips = [stored.clip for stored in store.clips]
        Embeddings(self.features, clips, encoder.name).save(self.base / "embeddings.npz")
        self.content, self.weights = content(store), weights(self.base / "run" / ENCODER)

    def bench(self) -> Bench:
        """Copies of all artefacts in a folder of their own."""
        self._num_benches += 1
        folder = self.root / str(self._num_benches)
        shutil.copytree(self.base, folder)
        return Bench(folder, self)

    @cached_property
    def environment(self) -> dict[str, str]:
        """Of other processes: with this very melmask, a thread and a cache of their own."""
        paths = [path for path in sys.path if path]
        own = {"PYTHONPATH": os.pathsep.join(paths), "MELMASK_CACHE": str(self.root / "cache"), "OMP_NUM_THREADS": "1"}
        return os.environ | own

    def command(self, *arguments: object, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run `melmask` with these arguments in a process of its own."""
        line = [sys.executable, "-m", "melmask", *map(str, arguments)]
        given: dict[str, Any] = {"env": self.environment, "capture_output": True, "text": True, "timeout": 120}
        return subprocess.run(line, **(given | options))

    def limited(self, arguments: Sequence[object], memory_gb: float) -> "subprocess.CompletedProcess[str]":
        """Run `melmask` with these arguments in a process that gets no more memory than that beside its libraries."""

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_DATA, (int(memory_gb * 2**30),) * 2)

        return self.command(*arguments, preexec_fn=limit)


def _interrupt(entry: LogEntry) -> None:
    if entry.step == 4:
        raise Interrupted


def make_recordings(folder: Path, num: int = NUM_RECORDINGS, seconds: float = 0.5) -> Path:
    """Tones and noises, and the table of them."""
    folder.mkdir(parents=True)
    rng, lines = np.random.default_rng(0), ["path,label,fold,group"]
    for number in range(num):
        time_s = np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
        tone = 0.3 * np.sin(2 * np.pi * rng.uniform(300, 3000) * time_s) * (number % 2)
        soundfile.write(folder / f"{number}.wav", tone + 0.05 * rng.standard_normal(len(time_s)), SAMPLE_RATE_HZ)
        lines.append(f"{number}.wav,{('noise', 'tone')[number % 2]},{number // 4 + 1},g{number}")
    (folder / "task.csv").write_text("\n".join(lines) + "\n")
    return folder / "task.csv"


def content(store: Store) -> list[tuple[Any, ...]]:
    """All that a store holds of every clip, and its statistics."""
    rows: list[tuple[Any, ...]] = [
        (stored.clip.path.name, stored.clip.label, stored.clip.fold, stored.clip.group, store.log_mel(row).tobytes())
        for row, stored in enumerate(store.clips)
    ]
    return [*rows, (store.mean, store.std, store.fingerprint, len(store.rejected))]


def weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file."""
    return read_tensors(path)[0]


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether they are the same tensors, to the bit."""
    return set(one) == set(other) and all(one[name].equal(other[name]) for name in one)


def lines_of(path: Path) -> list[Any]:
    """The objects of a file of JSON lines that can be read."""
    found = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found
