"""How fast clips become embeddings: `make bench`, or `python benchmarks/embed.py --help`."""

import math
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from baseline import PlainEncoder, copy_weights
from ceiling import Ceiling, gemm_ceilings
from page import Table, options_of, publish
from recordings import noise_store, write_clip_files
from timing import in_turns, machine, ratio
from torch import Tensor
from torch.nn import functional as F

from melmask.data.store import Store
from melmask.encoders.features import FeatureSettings
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.nn.encoder_file import FrontEnd
from melmask.nn.vit import SIZES, Encoder
from melmask.plan.flops import encoder_flops
from melmask.runtime import computes_in_bf16
from melmask.types import PatchGrid

PATCH_SHAPE, CROP_FRAMES = (16, 16), 608
SHORTEST_S, LONGEST_S = 1.0, 6.0
NUM_CLIPS = {"tiny": 256, "base": 64}
BUDGET_S, QUICK_S, QUICK_SHARE = 6.0, 1.0, 0.25

ABOUT = (
    "Clips of 1 to 6 s, evenly spread, from a store. Ours is `PretrainedEncoder.embed_store`; the plain form reads one "
    "float32 .npy file a clip, pads it to whole patches and takes one clip after the other through the ViT of "
    "benchmarks/baseline.py with the same weights, in float32. In turns, in one process; GFLOP are exact counts of "
    "matrix products, and the ceiling is the quickest of them in the same dtype, timed in the same turns. bf16 is "
    "measured where the processor computes in it; what it costs in accuracy is in LOG.md (2026-11-28): at most two of "
    "400 clips."
)
COLUMNS = {
    "encoder": "",
    "dtype": "",
    "clips": "",
    "clips/s": "",
    "audio": "seconds of audio a second",
    "plain": "clips a second of the plain form",
    "ratio": "times as fast as the plain form",
    "GFLOP/s": "",
    "ceiling": "GFLOP/s of the quickest matrix product",
    "share": "of the ceiling",
}


def main(arguments: list[str] | None = None) -> None:
    options = options_of(__doc__, arguments, "fewer clips: under 55 s on two cores")
    measured_on = machine()
    print(measured_on)
    with tempfile.TemporaryDirectory() as folder:
        ceilings = find_ceilings()
        rows = [row for size in NUM_CLIPS for row in measure(size, Path(folder) / size, ceilings, options.quick)]
    about = f"{ABOUT} Measured on {measured_on}."
    publish("embed", "How fast clips become embeddings", about, [table_of(rows)], rows, options)


def find_ceilings() -> dict[str, Ceiling]:
    """The quickest product in each dtype that the processor computes in, by the name of that precision."""
    dtypes = {"float32": torch.float32}
    if computes_in_bf16(torch.device("cpu")):
        dtypes["bf16"] = torch.bfloat16
    return {name: gemm_ceilings(dtype)[0] for name, dtype in dtypes.items()}


def measure(size: str, folder: Path, ceilings: dict[str, Ceiling], quick: bool) -> list[dict[str, Any]]:
    """The figures of one encoder, in each of these precisions."""
    num_clips = math.ceil(NUM_CLIPS[size] * (QUICK_SHARE if quick else 1))
    folder.mkdir()
    store = noise_store(folder, np.linspace(SHORTEST_S, LONGEST_S, num_clips).tolist())
    paths = sorted(write_clip_files(store, folder / "clips").iterdir())
    encoder, front_end = Encoder(SIZES[size], PATCH_SHAPE), FrontEnd(store.spec, store.mean, store.std)
    plain = PlainEmbedder(encoder, store)
    plain(paths[:2])
    calls: dict[str, Callable[[], object]] = {"plain": lambda: plain(paths)}
    for name, ceiling in ceilings.items():
        frozen = PretrainedEncoder(encoder, front_end, CROP_FRAMES, FeatureSettings(precision=name))
        frozen.embed_store(store, range(2))
        calls[name], calls[f"the ceiling in {name}"] = partial(frozen.embed_store, store), ceiling.call
    times = in_turns(calls, QUICK_S if quick else BUDGET_S)
    plain_s, gflop = statistics.median(times["plain"]), gflop_of(store, size)
    rows = []
    for name, ceiling in ceilings.items():
        taken_s = statistics.median(times[name])
        rates = ceiling.rates(times[f"the ceiling in {name}"][: len(times[name])])
        rows.append(
            {
                "framework": "embed",
                "size": size,
                "dtype": name,
                "clips": num_clips,
                "samples_per_s": num_clips / taken_s,
                "baseline_samples_per_s": num_clips / plain_s,
                "ratio": ratio(times["plain"], times[name]),
                "ceiling_share": ratio([1e9 * gflop / taken for taken in times[name]], rates),
                "ceiling_gflops": statistics.median(rates) / 1e9,
                "gflop": gflop,
                "audio_s_per_s": store.info["duration_s"] / taken_s,
            }
        )
    return rows


class PlainEmbedder:
    """The plain form: a file, a clip, a pass through the encoder, a mean over time."""

    def __init__(self, encoder: Encoder, store: Store) -> None:
        self.mean, self.std, self.silence = store.mean, store.std, store.spec.silence
        longest = PatchGrid(store.spec.num_mels // PATCH_SHAPE[0], CROP_FRAMES // PATCH_SHAPE[1])
        self.encoder = PlainEncoder(encoder.size, longest, PATCH_SHAPE)
        copy_weights(self.encoder, encoder)
        self.positions = self.encoder.positions.view(longest.freq, longest.time, -1)

    @torch.no_grad()
    def __call__(self, paths: list[Path]) -> np.ndarray:
        return np.stack([self.embed(torch.from_numpy(np.load(path))) for path in paths])

    def embed(self, log_mel: Tensor) -> np.ndarray:
        """One clip's embedding [freq * dim]."""
        padded = F.pad(log_mel, (0, -log_mel.shape[1] % PATCH_SHAPE[1]), value=self.silence)
        num_columns = padded.shape[1] // PATCH_SHAPE[1]
        self.encoder.positions = self.positions[:, :num_columns].flatten(0, 1)[None]
        features = self.encoder(((padded - self.mean) / self.std)[None])[0, 1:]
        return features.view(len(self.positions), num_columns, -1).mean(dim=1).flatten().numpy()


def gflop_of(store: Store, size: str) -> float:
    """The matrix products of embedding every clip as one chunk."""
    freq, time = PATCH_SHAPE
    num_patches = (store.spec.num_mels // freq * -(-stored.num_frames // time) for stored in store.clips)
    return sum(encoder_flops(SIZES[size], freq * time, number) for number in num_patches) / 1e9


def table_of(rows: list[dict[str, Any]]) -> Table:
    cells = [
        [
            row["size"], row["dtype"], str(row["clips"]), f"{row['samples_per_s']:.3g}", f"{row['audio_s_per_s']:,.0f}",
            f"{row['baseline_samples_per_s']:.3g}", f"{row['ratio']:.2f}",
            f"{row['ceiling_share'] * row['ceiling_gflops']:.0f}", f"{row['ceiling_gflops']:.0f}",
            f"{row['ceiling_share']:.0%}",
        ]
        for row in rows
    ]  # fmt: skip
    return Table("Clips a second", COLUMNS, cells, num_names=2)


if __name__ == "__main__":
    main()
