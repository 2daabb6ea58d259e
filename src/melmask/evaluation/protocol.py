"""Named protocols: which part of each clip is read, and which probe is trained where none is named."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from melmask.encoders.fixed_length import Cut
from melmask.encoders.registry import NamedEncoder
from melmask.probes import LinearProbe
from melmask.probes.base import Probe
from melmask.probes.logistic import LogisticProbe

ProtocolName = Literal["melmask", "evar"]
EVAR_RATE = 3e-5  # of EVAR's configurations of M2D and MSM-MAE, whose features have 3,840 dimensions


@dataclass(frozen=True)
class Excerpts:
    """Which part of a clip is read where a task has a clip length.

    Args:
        train: of training and validation clips.
        test: of test clips.
        note: the same in words; ``{}`` is the length in seconds.
    """

    train: Cut
    test: Cut
    note: str


EXCERPTS: dict[ProtocolName, Excerpts] = {
    "melmask": Excerpts(
        "middle", "middle", "clips of {:g} s: the middle of longer ones; shorter ones zero-padded on both sides"
    ),
    "evar": Excerpts(
        "random",
        "head",
        "EVAR protocol, clips of {:g} s: a random crop of longer training and validation clips, the head of longer "
        "test clips; shorter ones zero-padded at the tail; one crop a clip, the same for all encoders and seeds",
    ),
}


def default_probes(protocol: ProtocolName, encoder: NamedEncoder) -> Sequence[Probe]:
    """The probes of a protocol: logistic regression; or EVAR's linear layer.

    EVAR's rate of 3e-5 is of its configurations of M2D and MSM-MAE, and is taken for melmask encoders, also untrained
    ones. Other encoders and log-mel statistics, of features of other widths, have the default rate of `LinearProbe`.

    Args:
        protocol: its name.
        encoder: to be evaluated.
    """
    if protocol == "melmask":
        return (LogisticProbe(),)
    rate = EVAR_RATE if encoder.encoder.settings is not None else None
    return (LinearProbe(learning_rate=rate, ties_are_better=True),)
