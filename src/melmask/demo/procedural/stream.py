"""Procedural sound as training data without a disk: crops made as they are needed, beside a store or alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from melmask.data.checks import Verify
from melmask.data.clip_table import ClipTable
from melmask.data.store import Store
from melmask.data.writing import digest
from melmask.demo.procedural.synthesise import CPU, VERSION, synthesise
from melmask.logmel import LogMel, LogMelSpec

NAME = "procedural"  # in place of a store
NUM_MEASURED, MEASURED_S, MEASURED_SEED = 96, 4.0, 2**31  # clips that the mean and deviation are those of
AT_ONCE = {"cpu": 64, "cuda": 512}  # crops
DEFAULT_SPEC = LogMelSpec()


@dataclass(frozen=True)
class ProceduralCrops:
    """Crops of procedural sound as log-mels: a `melmask.data.loader.CropMaker`.

    Args:
        spec: the front end.
        seed: of the sound.
        device: to compute on.
    """

    spec: LogMelSpec
    seed: int
    device: torch.device = CPU

    def crops(self, numbers: Sequence[int], num_frames: int) -> Float[Tensor, "b mel frame"]:
        """The crops of those numbers, cut out of sound that goes on at both ends; not normalised."""
        spec = self.spec
        margin = -(-(spec.n_fft // 2) // spec.hop_length)  # frames that see what is reflected at the ends
        seconds = (num_frames + 2 * margin - 1) * spec.hop_length / spec.sample_rate_hz
        at_once, made = AT_ONCE.get(self.device.type, AT_ONCE["cuda"]), []
        for i in range(0, len(numbers), at_once):
            some = numbers[i : i + at_once]
            sound = synthesise(some, seconds, spec.sample_rate_hz, seed=self.seed, device=self.device)
            with torch.no_grad():
                made.append(self._log_mel(sound.clone())[:, :, margin : margin + num_frames])
        return torch.cat(made).contiguous()

    @cached_property
    def _log_mel(self) -> LogMel:
        return LogMel(self.spec).to(self.device)


class ProceduralSound(Store):
    """In place of a store: procedural sound alone. It has no clips; its crops are made as they are needed.

    Mean and deviation are those of a fixed sample, rounded so that they are the same on every machine.

    Args:
        spec: the front end.
    """

    def __init__(self, spec: LogMelSpec = DEFAULT_SPEC) -> None:
        mean, std = _mean_and_std(spec)
        info = {
            "spec": spec.to_dict(),
            "mean": mean,
            "std": std,
            "duration_s": 0.0,
            "fingerprint": digest([NAME, str(VERSION), repr(spec)]),
        }
        super().__init__(Path(NAME), info, ClipTable.of([]), [])

    @property
    def place(self) -> str:
        """The name that `open_data` takes."""
        return NAME

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the settings."""
        return ProceduralSound, (self.spec,)


@cache
def _mean_and_std(spec: LogMelSpec) -> tuple[float, float]:
    sound = synthesise(range(NUM_MEASURED), MEASURED_S, spec.sample_rate_hz, seed=MEASURED_SEED)
    with torch.inference_mode():
        log_mel = LogMel(spec)(sound).double()
    return round(float(log_mel.mean()), 3), round(float(log_mel.std()), 3)


def open_data(name: Path, verify: Verify = "first") -> Store:
    """A store, or procedural sound by the name "procedural".

    Raises:
        ValueError: see `Store.open`; or the name is "procedural", and a folder has it too.
    """
    if name != Path(NAME):
        return Store.open(name, verify)
    if name.exists():
        raise ValueError(f"{NAME} is procedural sound, and a folder is called so too: give the folder's whole path")
    return ProceduralSound()
