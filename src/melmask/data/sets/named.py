"""The named tasks: public data sets that the field judges encoders on."""

from melmask.data.sets.audioset import AUDIOSET_2M, AUDIOSET_20K
from melmask.data.sets.environment import ESC50, FSD50K, URBANSOUND8K
from melmask.data.sets.music import GTZAN, NSYNTH, SURGE
from melmask.data.sets.named_task import NamedTask
from melmask.data.sets.voices import CREMA_D, SPEECH_COMMANDS, VOXCELEB1, VOXFORGE

NAMED_TASKS: dict[str, NamedTask] = {
    task.name: task
    for task in (
        *(ESC50, URBANSOUND8K, SPEECH_COMMANDS, VOXCELEB1, VOXFORGE, CREMA_D),
        *(GTZAN, NSYNTH, SURGE, FSD50K, AUDIOSET_20K, AUDIOSET_2M),
    )
}
