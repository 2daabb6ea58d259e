"""The named tasks: public data sets that the field judges encoders on."""

from melmask.datasets.audioset import AUDIOSET_2M, AUDIOSET_20K
from melmask.datasets.base import NamedTask
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

NAMED_TASKS: dict[str, NamedTask] = {
    task.name: task
    for task in (
        *(ESC50, URBANSOUND8K, SPEECH_COMMANDS, VOXCELEB1, VOXFORGE, CREMA_D),
        *(GTZAN, NSYNTH, SURGE, FSD50K, AUDIOSET_20K, AUDIOSET_2M),
    )
}
