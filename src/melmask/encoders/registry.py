"""Which encoders can be evaluated: what their names load, what tables call them, and the baselines beside them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from melmask.encoders.base import AudioEncoder
from melmask.encoders.baselines import LogMelStatistics
from melmask.encoders.external import from_audiomae, from_hear, from_huggingface, from_onnx
from melmask.encoders.features import DEFAULT_SETTINGS, FeatureSettings, Layers, Pooling, Precision, Whitened, stated_by
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.encoders.waveform import EncodesWaveforms, wrap
from melmask.logmel import LogMelSpec
from melmask.nn.encoder_file import ENCODER as ENCODER_FILE
from melmask.nn.encoder_file import EncoderFile, FrontEnd
from melmask.nn.foreign import CONFIG, FRONT_END, PICKLES, holds_transformer, names_in, read_config
from melmask.nn.published import AUDIOSET_MEAN, AUDIOSET_STD, is_audiomae
from melmask.nn.shipped import SHIPPED, shipped_file
from melmask.nn.vit import SIZES, random_encoder
from melmask.registry import lookup
from melmask.train.run_folder import RECIPE, split_step
from melmask.train.run_folder import SUFFIX as ENCODER_SUFFIX

UNTRAINED_PATCH_SHAPE, UNTRAINED_CROP_FRAMES = (16, 16), 608  # as in the papers
DEFAULT_SPEC = LogMelSpec()

# What results call an encoder's features; external and untrained:SIZE encoders go by their own names.
ENCODER, UNTRAINED, LOGMEL_STATISTICS = "encoder", "untrained", LogMelStatistics.name

EncoderLike = str | Path | AudioEncoder | EncodesWaveforms


def load(
    spec: str | Path,
    layers: Layers = "auto",
    pooling: Pooling = "auto",
    precision: Precision = "float32",
    whitened: Whitened = "auto",
) -> AudioEncoder:
    """The encoder that a name stands for, ready to embed recordings.

    Args:
        spec: ``tiny``, the encoder that comes with melmask (`melmask docs encoder`), or ``shipped:tiny`` where a file
            or folder is called so too; a run folder, an encoder file, or weights that others published (`melmask docs
            published-weights`); ``RUN@STEP``, an encoder that was kept along a run; ``untrained:SIZE``, random weights;
            ``untrained-of:RUN``, random weights in the form of a run's encoder; ``logmel-stats``; ``onnx:FILE[@RATE]``;
            ``hear:MODULE[@WEIGHTS]``; ``hf:FOLDER``; or ``package.module:Class``, a Python class with ``encode(batch,
            sample_rate)``. `melmask docs peers` says what each must hold.
        layers: of a melmask encoder: last, all, or numbers from 1 on; "auto" is what its file states, else last.
        pooling: of a melmask encoder, over time; "auto" likewise, or the mean.
        precision: of a melmask encoder: float32, bf16, or "auto", which is bf16 where the hardware computes in it.
        whitened: of a melmask encoder: whether its file's whitening is applied; "auto" is yes where there is one.

    Raises:
        ValueError: no such encoder, or it is damaged or does not keep its contract.
        ImportError: the library that it needs is not installed.

    >>> load("untrained:micro").name
    'micro untrained'
    """
    return as_encoder(spec, FeatureSettings(layers, pooling, precision, whitened))


def as_encoder(encoder: EncoderLike, settings: FeatureSettings = DEFAULT_SETTINGS) -> AudioEncoder:
    """What `load` makes of a name; an encoder as it is; or a Python object with ``encode(batch, sample_rate)`` wrapped.

    Args:
        encoder: a name, an encoder, or an object that has its rate as ``sample_rate_hz`` or ``sample_rate``.
        settings: layers and pooling of a melmask encoder that is loaded; others have features of their own.

    Raises:
        ValueError, ImportError: see `load` and `wrap`.
    """
    if isinstance(encoder, Path):
        return _of_path(encoder, settings)
    if isinstance(encoder, str):
        return _of_name(encoder, settings)
    if isinstance(encoder, AudioEncoder):
        return encoder
    if isinstance(encoder, EncodesWaveforms):
        return wrap(encoder)
    raise ValueError(f"{encoder!r} is no encoder: give a name, or an object with encode(batch, sample_rate)")


def of_file(
    saved: EncoderFile, settings: FeatureSettings = DEFAULT_SETTINGS, called: str = "encoder"
) -> PretrainedEncoder:
    """The encoder that a file holds, which was read already.

    Raises:
        ValueError: it lacks a layer asked for, or states what there is not.
    """
    form, stated = (saved.encoder, saved.front_end, saved.crop_frames), stated_by(saved, Path(called))
    return PretrainedEncoder(*form, settings, called, stated=stated, whitening=saved.whitening)


def names_encoder(spec: str) -> bool:
    """Whether a name can only stand for an encoder, and not for recordings: what `load` takes but other files.

    A folder is an encoder's if it is a run's, or a Hugging Face folder with weights, and a file by its extension.

    >>> names_encoder("tiny"), names_encoder("untrained:micro"), names_encoder("my.wav"), names_encoder("recordings")
    (True, True, False, False)
    """
    path, of_weights = Path(spec), (ENCODER_SUFFIX, *PICKLES)
    if path.is_dir() and spec not in SHIPPED:
        is_huggingface = (path / CONFIG).exists() and any(file.suffix in of_weights for file in path.iterdir())
        return is_huggingface or any((path / file).exists() for file in (ENCODER_FILE, RECIPE))
    is_name = spec in (*SHIPPED, LOGMEL_STATS) or (":" in spec and not path.exists())
    return is_name or path.suffix in of_weights or split_step(path)[1] is not None


def _of_name(spec: str, settings: FeatureSettings) -> AudioEncoder:
    kind, colon, rest = spec.partition(":")
    if spec == LOGMEL_STATS:
        return LogMelStatistics()
    if shipped_file(spec):
        return PretrainedEncoder.load(spec, settings)
    if colon and kind in KINDS:
        return KINDS[kind](rest, settings)
    if Path(spec).exists() or split_step(Path(spec))[1] is not None:
        return _of_path(Path(spec), settings)
    if colon:
        found: Any = lookup(spec, {}, "encoder")
        return as_encoder(found() if isinstance(found, type) else found, settings)
    raise ValueError(f"no encoder {spec!r}: give {FORMS}")


def _of_path(path: Path, settings: FeatureSettings) -> AudioEncoder:
    """The encoder of a run folder, an encoder file, published weights or a Hugging Face folder."""
    if (path / CONFIG).is_file() and not (path / ENCODER_FILE).exists():
        return _of_huggingface(path, settings)
    return PretrainedEncoder.load(path, settings)


def _of_huggingface(folder: Path, settings: FeatureSettings) -> AudioEncoder:
    """The encoder of a Hugging Face folder: by transformers, or of a masked autoencoder without a front end by us."""
    config = read_config(folder) if (folder / CONFIG).is_file() else {}
    if is_audiomae(config):
        return from_audiomae(folder)
    if config and not (folder / FRONT_END).exists() and holds_transformer(names_in(folder)):
        return PretrainedEncoder.load(folder, settings)
    return from_huggingface(folder)


def _untrained(size: str, settings: FeatureSettings) -> PretrainedEncoder:
    """An encoder of that size and the papers' patches, with random weights."""
    if size not in SIZES:
        raise ValueError(f"no size {size!r} in {UNTRAINED}:{size}: choose from {', '.join(SIZES)}")
    front_end = FrontEnd(LogMelSpec(), AUDIOSET_MEAN, AUDIOSET_STD)
    encoder = random_encoder(SIZES[size], UNTRAINED_PATCH_SHAPE)
    called = f"{size} untrained"
    return PretrainedEncoder(encoder, front_end, UNTRAINED_CROP_FRAMES, settings, called, has_untrained=False)


LOGMEL_STATS = "logmel-stats"
KINDS: dict[str, Callable[[str, FeatureSettings], AudioEncoder]] = {
    UNTRAINED: _untrained,
    "untrained-of": lambda run, settings: PretrainedEncoder.load(run, settings).untrained(),
    "onnx": lambda file, settings: from_onnx(file),
    "hear": lambda module, settings: from_hear(module),
    "hf": lambda folder, settings: _of_huggingface(Path(folder), settings),
}
FORMS = (
    f"{', '.join(SHIPPED)}, a run folder, RUN@STEP, an encoder file, {LOGMEL_STATS}, {UNTRAINED}:SIZE, "
    "untrained-of:RUN, onnx:FILE, hear:MODULE, hf:FOLDER or package.module:Class"
)


@dataclass(frozen=True, eq=False)
class NamedEncoder:
    """An encoder with its name in a table.

    Args:
        encoder: what embeds.
        name: of its rows in the table.
        features: what kind it is, see `Result`.
        runs: folders of the runs whose encoder it is, or whose baseline.
        given: what `load` made it of; empty for a Python object, and for a baseline that nobody named.
        baseline_of: names of the encoders whose baseline it is.
    """

    encoder: AudioEncoder
    name: str
    features: str
    runs: tuple[Path, ...] = ()
    given: str = ""
    baseline_of: tuple[str, ...] = ()

    @property
    def settings(self) -> str:
        """Layers and pooling in words; empty if its features are not chosen by these."""
        return str(self.encoder.settings) if self.encoder.settings else ""


def name_encoders(encoders: Sequence[EncoderLike], settings: FeatureSettings = DEFAULT_SETTINGS) -> list[NamedEncoder]:
    """Encoders under names that tell them apart: their own, or where these are equal, what was given or a number.

    Args:
        encoders: see `as_encoder`.
        settings: layers and pooling of melmask encoders that are loaded.

    Raises:
        ValueError: none, or one twice, or see `as_encoder`.
        ImportError: see `load`.
    """
    given = [str(encoder) if isinstance(encoder, Path) else encoder for encoder in encoders]
    twice = [encoder for number, encoder in enumerate(given) if encoder in given[:number]]
    if not given:
        raise ValueError("no encoder to evaluate: name at least one")
    if twice:
        raise ValueError(f"encoder {twice[0]} is given twice, and would be compared with itself: name it once")
    found = [as_encoder(encoder, settings) for encoder in given]
    names = [encoder.name for encoder in found]
    named = []
    for number, (spec, encoder) in enumerate(zip(given, found, strict=True), start=1):
        apart = spec if isinstance(spec, str) else f"{encoder.name} {number}"
        name = encoder.name if names.count(encoder.name) == 1 else apart
        features = ENCODER if encoder.has_untrained else encoder.name
        runs = (encoder.run,) if encoder.run else ()
        named.append(NamedEncoder(encoder, name, features, runs, spec if isinstance(spec, str) else ""))
    return named


def with_baselines(
    encoders: Sequence[EncoderLike], settings: FeatureSettings = DEFAULT_SETTINGS, *, baselines: bool = True
) -> list[NamedEncoder]:
    """Encoders and their baselines: the untrained form of each that has one, and log-mel statistics.

    Args:
        encoders, settings: see `name_encoders`.
        baselines: False leaves the baselines out.

    Raises:
        ValueError, ImportError: see `name_encoders`.
    """
    named = name_encoders(encoders, settings)
    if not baselines:
        return named
    untrained: dict[str, NamedEncoder] = {}
    for one in named:
        if one.encoder.has_untrained:
            fresh = one.encoder.untrained()
            same = untrained.setdefault(fresh.identity, NamedEncoder(fresh, f"{one.name} untrained", UNTRAINED))
            whose = (*same.baseline_of, one.name)
            untrained[fresh.identity] = replace(same, runs=same.runs + one.runs, baseline_of=whose)
    runs = tuple(run for one in named for run in one.runs)
    given = "".join(one.given for one in named if one.features == LOGMEL_STATISTICS)
    others = [one for one in named if one.features != LOGMEL_STATISTICS]
    whose = tuple(one.name for one in others)
    statistics = NamedEncoder(LogMelStatistics(), LOGMEL_STATISTICS, LOGMEL_STATISTICS, runs, given, whose)
    return [*others, *untrained.values(), statistics]


def specs_of(named: Sequence[NamedEncoder]) -> list[LogMelSpec]:
    """The log-mel settings that a task must be prepared with, each once; at least one."""
    asked = [one.encoder.spec for one in named]
    return list(dict.fromkeys(spec for spec in asked if spec is not None)) or [DEFAULT_SPEC]
