"""Public labelled data sets that audio encoders are commonly evaluated on, each in a file of its own.

To add one, describe it as a `Dataset` in a file here and add it to `DATASETS`. One from outside the package is named as
``package.module:DATASET``.
"""

from melmask.datasets.audioset import AUDIOSET_2M, AUDIOSET_20K
from melmask.datasets.base import Dataset
from melmask.datasets.crema_d import CREMA_D
from melmask.datasets.esc50 import ESC50
from melmask.datasets.fsd50k import FSD50K
from melmask.datasets.gtzan import GTZAN
from melmask.datasets.nsynth import NSYNTH
from melmask.datasets.speech_commands import SPEECH_COMMANDS
from melmask.datasets.surge import SURGE
from melmask.datasets.urbansound8k import URBANSOUND8K
from melmask.datasets.voxceleb1 import VOXCELEB1
from melmask.datasets.voxforge import VOXFORGE
from melmask.registry import lookup

DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        ESC50,
        URBANSOUND8K,
        SPEECH_COMMANDS,
        VOXCELEB1,
        VOXFORGE,
        CREMA_D,
        GTZAN,
        NSYNTH,
        SURGE,
        FSD50K,
        AUDIOSET_20K,
        AUDIOSET_2M,
    )
}


def find_dataset(name: str) -> Dataset:
    """The data set of a name in `DATASETS`, or of ``package.module:DATASET`` from outside the package.

    Raises:
        ValueError: there is no such data set, or the name stands for something else.

    >>> find_dataset("esc50").title
    'ESC-50'
    """
    dataset = lookup(name, DATASETS, "data set")
    if not isinstance(dataset, Dataset):
        raise ValueError(f"{name} is of type {type(dataset).__name__}: name a melmask.datasets.base.Dataset")
    return dataset
