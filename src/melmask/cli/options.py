"""Options that several commands share, each declared once. Nothing here imports torch: help must come at once."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

DEFAULT_RECIPE = "tiny-msm-mae"

# What help calls an argument.
OptionalStore = Annotated[Path | None, arg(metavar="STORE", help_behavior_hint="(required, but for --dry-run)")]
OptionalRuns = Annotated[tuple[Path, ...], arg(metavar="[RUN ...]", help_behavior_hint="(optional)")]
Results = Annotated[tuple[Path, ...], arg(metavar="FILES", help_behavior_hint="(optional)")]
Sounds = Annotated[tuple[Path, ...], arg(metavar="FILES", help_behavior_hint="(optional)")]
Embedded = Annotated[Path | None, arg(metavar="NPZ", help_behavior_hint="(optional)")]
Weights = Annotated[Path, arg(metavar="WEIGHTS", help="a .pth or safetensors file, or a Hugging Face folder.")]
File = Annotated[Path, arg(metavar="FILE")]
Folder = Annotated[Path, arg(metavar="FOLDER")]
TableFile = Annotated[Path, arg(metavar="TABLE")]
Tables = Annotated[tuple[Path, ...], arg(name="task", metavar="TABLE [TABLE ...]", help_behavior_hint="(required)")]
Encoder = Annotated[str, arg(metavar="ENCODER")]
EncoderAndSources = Annotated[
    tuple[str, ...],
    arg(
        metavar="[ENCODER] SOURCE [SOURCE ...]",
        help="first the encoder, where it is not tiny, which comes with melmask: a run's folder, an encoder file, or "
        "another one that `melmask evaluate` takes. Then recordings, folders, searched recursively, CSV manifests with "
        "path[,label][,fold][,group], .tar and .h5 archives.",
        help_behavior_hint="(required)",
    ),
]
ModelAndSources = Annotated[
    tuple[str, ...],
    arg(
        metavar="MODEL SOURCE [SOURCE ...]",
        help="first the model: the folder that evaluate --save-probe, finetune --save-model or detect --save-model "
        "wrote. Then recordings, folders, searched recursively, CSV manifests with path, .tar and .h5 archives; - for "
        "a list of paths on standard input, one a line.",
        help_behavior_hint="(required)",
    ),
]
OptionalTable = Annotated[
    Path | None,
    arg(
        metavar="TABLE",
        help="a CSV with path,label[,fold][,group], on whose validation clips nearest neighbours are scored as the "
        "encoder learns.",
        help_behavior_hint="(optional)",
    ),
]
Loggers = Annotated[
    tuple[str, ...],
    arg(
        metavar="NAME [NAME ...]",
        help="other tools that get the log, each an extra, or package.module:Class.",
        help_behavior_hint="(optional)",
    ),
]
SavedModel = Annotated[
    Path | None,
    arg(
        metavar="FOLDER",
        help="a folder for a model that is trained on all recordings of the table, for `melmask predict`.",
        help_behavior_hint="(optional)",
    ),
]
Encoders = Annotated[tuple[str, ...], arg(metavar="ENCODER [ENCODER ...]", help_behavior_hint="(required)")]
Probes = Annotated[
    tuple[str, ...],
    arg(metavar="PROBE [PROBE ...]", help_behavior_hint="(default: logistic, or with protocol evar linear)"),
]
Init = Annotated[
    str | None,
    arg(
        metavar="WEIGHTS",
        help="weights to start from: of a run's folder, an encoder file, tiny, which comes with melmask, what others "
        "published, or random.",
        help_behavior_hint="(default: random; with the recipe quick-msm-mae tiny)",
    ),
]
NewRun = Annotated[Path | None, arg(metavar="RUN", help_behavior_hint="(required, but for --dry-run)")]
OptionalEncoder = Annotated[str | None, arg(metavar="ENCODER", help_behavior_hint="(optional)")]
OptionalFile = Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(optional)")]
OptionalFolder = Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="(optional)")]

OptionalHz = Annotated[int | None, arg(metavar="HZ", help_behavior_hint="(optional)")]
OptionalCount = Annotated[int | None, arg(metavar="INT", help_behavior_hint="(optional)")]
OptionalNumber = Annotated[float | None, arg(metavar="NUMBER", help_behavior_hint="(optional)")]
Preset = Literal["speech", "bats", "heart"]

# Arguments with their help.
Sources = Annotated[
    tuple[Path, ...],
    arg(
        metavar="SOURCE [SOURCE ...]",
        help="recordings, folders, searched recursively, CSV manifests with path[,label][,fold][,group], .tar and .h5 "
        "archives.",
        help_behavior_hint="(required)",
    ),
]
FrontEnd = Annotated[
    tuple[str, ...],
    arg(
        metavar="NAME=VALUE [NAME=VALUE ...]",
        help="settings of the log-mels: sample_rate_hz, n_fft, hop_length, num_mels, fmin_hz, fmax_hz.",
        help_behavior_hint="(default: 16 kHz, see `melmask docs recordings`)",
    ),
]
TestFolds = Annotated[
    tuple[str, ...],
    arg(metavar="FOLD [FOLD ...]", help="test on these folds only.", help_behavior_hint="(default: each in turn)"),
]
Seeds = Annotated[int, arg(help="trainings per fold, where a result depends on the seed.")]
AllowDuplicates = Annotated[
    bool, arg(help="test on recordings that are in training too, as copies or under another name, and note it.")
]
Threads = Annotated[
    int | None,
    arg(
        metavar="INT",
        help="threads to compute on; OMP_NUM_THREADS fixes them too. Equal runs end with equal bits on a fixed number "
        "only.",
        help_behavior_hint="(default: those that others leave free)",
    ),
]
Workers = Annotated[
    int | None,
    arg(
        metavar="INT",
        help="processes that decode recordings.",
        help_behavior_hint="(default: one a core, none for few)",
    ),
]
MaxMemory = Annotated[
    float | None,
    arg(
        name="max-memory",
        metavar="GIB",
        help="memory for the processes that decode, in GiB: as many of them as fit. A recording's length is no matter.",
        help_behavior_hint="(default: three quarters of the machine's)",
    ),
]
Verify = Annotated[
    Literal["full", "first", "none"],
    arg(
        help="what of a store is compared with its checksums: everything now; what is read and is new or was changed "
        "since; nothing. See `melmask docs stores`.",
    ),
]
