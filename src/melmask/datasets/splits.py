"""Fixed random splits, for data sets without an official one."""

import itertools
from collections.abc import Iterable

import numpy as np

SHARES = {"train": 0.7, "valid": 0.1, "test": 0.2}  # of the speakers, in TensorFlow Datasets


def split_speakers(speakers: Iterable[str]) -> dict[str, str]:
    """Assign speakers to splits at random: 70 % to train, 10 % to valid and 20 % to test, shuffled with seed 0.

    Args:
        speakers: names; duplicates count once.

    Returns:
        The split of each speaker.

    Source: `tfds.audio.CremaD` and `tfds.audio.Voxforge`, version 1.0.0. Deviates: not at all.

    >>> split_speakers(["anna", "ben", "anna", "cleo"])
    {'cleo': 'train', 'ben': 'train', 'anna': 'test'}
    """
    order = sorted(set(speakers))
    # NumPy's legacy generator, whose stream never changes, so that the split never changes either.
    np.random.RandomState(0).shuffle(order)
    ends = [int(share * len(order)) for share in itertools.accumulate(SHARES.values())]
    ends[-1] = len(order)
    split = {}
    for name, start, end in zip(SHARES, [0, *ends], ends, strict=False):
        split.update(dict.fromkeys(order[start:end], name))
    return split
