"""Which encoders can be evaluated: how the command line names them, and what tables call them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from melmask.encoders.base import AudioEncoder
from melmask.encoders.baselines import LogMelStatistics
from melmask.encoders.external import from_hear, from_huggingface, from_onnx
from melmask.encoders.features import FeatureSettings
from melmask.encoders.pretrained import DEFAULT_SETTINGS, PretrainedEncoder
from melmask.logmel import LogMelSpec
from melmask.nn.encoder_file import FrontEnd
from melmask.nn.vit import SIZES, Encoder

LOGMEL_STATS, UNTRAINED = "logmel-stats", "untrained"
FORMS = f"a run's folder, an encoder file, {LOGMEL_STATS}, {UNTRAINED}:SIZE, onnx:FILE, hear:MODULE or hf:FOLDER"
AUDIOSET_MEAN, AUDIOSET_STD = -7.1, 4.2  # of log-mels; what an encoder that was never trained is given
UNTRAINED_PATCH_SHAPE, UNTRAINED_CROP_FRAMES = (16, 16), 608  # the papers' forms


def make_encoder(spec: str, settings: FeatureSettings = DEFAULT_SETTINGS) -> AudioEncoder:
    """The encoder that a word on the command line names.

    Args:
        spec: a run's folder or an encoder file; ``logmel-stats``; ``untrained:SIZE``; ``onnx:FILE[@RATE]``;
            ``hear:MODULE[@WEIGHTS]``; ``hf:FOLDER``. docs/peers.md says what each must hold.
        settings: which features of a melmask encoder count; the others have features of their own.

    Raises:
        ValueError: no such encoder, or it is damaged or does not keep its contract.
        ImportError: the library that it needs is not installed.
    """
    kind, _, rest = spec.partition(":")
    if spec == LOGMEL_STATS:
        return LogMelStatistics()
    if kind == UNTRAINED:
        return _untrained(rest, settings)
    if kind == "onnx":
        return from_onnx(rest)
    if kind == "hear":
        return from_hear(rest)
    if kind == "hf":
        return from_huggingface(Path(rest))
    if not Path(spec).exists():
        raise ValueError(f"no encoder {spec!r}: give {FORMS}")
    return PretrainedEncoder.load(Path(spec), settings)


def _untrained(size: str, settings: FeatureSettings) -> PretrainedEncoder:
    """An encoder of the default form with random weights."""
    if size not in SIZES:
        raise ValueError(f"no size {size!r} in {UNTRAINED}:{size}: choose from {', '.join(SIZES)}")
    front_end = FrontEnd(LogMelSpec(), AUDIOSET_MEAN, AUDIOSET_STD)
    form = Encoder(SIZES[size], UNTRAINED_PATCH_SHAPE)
    return PretrainedEncoder(form, front_end, UNTRAINED_CROP_FRAMES, settings, size).untrained(seed=0)


ENCODER, UNTRAINED, LOGMEL_STATISTICS = "encoder", "untrained", LogMelStatistics.name
DEFAULT_SPEC = LogMelSpec()


@dataclass(frozen=True, eq=False)
class NamedEncoder:
    """An encoder that stands in the table.

    Args:
        encoder: what embeds.
        name: what the table calls it.
        features: what kind it is, see `Result`.
        runs: folders of the runs whose encoder it is, or whose floor.
    """

    encoder: AudioEncoder
    name: str
    features: str
    runs: tuple[Path, ...] = ()

    @property
    def settings(self) -> str:
        return str(self.encoder.settings) if isinstance(self.encoder, PretrainedEncoder) else ""


def with_baselines(specs: Sequence[str], settings: FeatureSettings, *, baselines: bool = True) -> list[NamedEncoder]:
    """The encoders that are asked for, and their baselines: log-mel statistics, and each trained form untrained.

    Args:
        specs: words for `make_encoder`.
        settings: layers and pooling of melmask encoders.
        baselines: False leaves the baselines out.

    Raises:
        ValueError: none or one twice, or `make_encoder` finds a fault.
    """
    twice = sorted({spec for spec in specs if specs.count(spec) > 1})
    if not specs or twice:
        raise ValueError(f"encoder {twice[0]} is given twice: name it once" if twice else "no encoder to evaluate")
    found = [make_encoder(spec, settings) for spec in specs]
    names = [encoder.name for encoder in found]
    entrants: list[NamedEncoder] = []
    untrained: dict[str, NamedEncoder] = {}
    for spec, encoder in zip(specs, found, strict=True):
        name = encoder.name if names.count(encoder.name) == 1 else spec
        if not (isinstance(encoder, PretrainedEncoder) and Path(spec).exists()):
            entrants.append(NamedEncoder(encoder, name, encoder.name))
            continue
        runs = (Path(spec),) if Path(spec).is_dir() else ()
        entrants.append(NamedEncoder(encoder, name, ENCODER, runs))
        fresh = encoder.untrained(seed=0)
        same = untrained.setdefault(fresh.identity, NamedEncoder(fresh, f"{name} untrained", UNTRAINED))
        untrained[fresh.identity] = replace(same, runs=same.runs + runs)
    if baselines:
        entrants += untrained.values()
        all_runs = tuple(run for entrant in entrants if entrant.features == ENCODER for run in entrant.runs)
        entrants = [entrant for entrant in entrants if entrant.features != LOGMEL_STATISTICS]
        entrants.append(NamedEncoder(LogMelStatistics(), LOGMEL_STATISTICS, LOGMEL_STATISTICS, all_runs))
    return entrants


def specs_of(entrants: Sequence[NamedEncoder]) -> list[LogMelSpec]:
    """The log-mel settings that a task must be prepared with, each once; at least one."""
    asked = [entrant.encoder.spec for entrant in entrants]
    return list(dict.fromkeys(spec for spec in asked if spec is not None)) or [DEFAULT_SPEC]


UNTRAINED_OF = "untrained-of:"


def encoder_of(spec: str, settings: FeatureSettings) -> AudioEncoder:
    """The encoder that a word names: what `make_encoder` takes, or ``untrained-of:RUN``, a run's own form untrained.

    Raises:
        ValueError, ImportError: see `make_encoder`.
    """
    if spec.startswith(UNTRAINED_OF):
        return PretrainedEncoder.load(Path(spec.removeprefix(UNTRAINED_OF)), settings).untrained(seed=0)
    return make_encoder(spec, settings)


def entrants_of(specs: Sequence[str], settings: FeatureSettings) -> list[NamedEncoder]:
    """The encoders that words name, called by these words where their own names are the same.

    Raises:
        ValueError, ImportError: one word twice, or see `encoder_of`.
    """
    if len(set(specs)) < len(specs):
        raise ValueError(f"{specs[0]} is compared with itself: name two encoders")
    encoders = [encoder_of(spec, settings) for spec in specs]
    names = [encoder.name for encoder in encoders]
    return [
        NamedEncoder(encoder, encoder.name if names.count(encoder.name) == 1 else spec, encoder.name)
        for encoder, spec in zip(encoders, specs, strict=True)
    ]
