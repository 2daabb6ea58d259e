"""What a trained encoder has to be above: its untrained form, and log-mel statistics; evaluated like the runs."""

from dataclasses import dataclass
from pathlib import Path

from melmask.data.store import Store
from melmask.encoders.baselines import LogMelStatistics
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.encoders.registry import ENCODER, LOGMEL_STATISTICS, UNTRAINED, NamedEncoder
from melmask.files import file_name
from melmask.nn.encoder_file import FrontEnd
from melmask.nn.vit import SIZES, random_encoder
from melmask.study.study import PlannedRun, Study


@dataclass(frozen=True)
class Floor:
    """An encoder that learned nothing, as another cell of a study's table; it is no arm, and in no test of one.

    Args:
        group: whose encoder it is untrained; empty for log-mel statistics, which all groups share.
        arm: `UNTRAINED` or `LOGMEL_STATISTICS`.
    """

    group: str
    arm: str

    def run_name(self, seed: int) -> str:
        """Its name in results. Log-mel statistics know no seed."""
        return f"{file_name(self.group, self.arm)}-seed{seed}" if self.group else file_name(self.arm)


def floors_of(study: Study) -> list[Floor]:
    """The untrained encoder of every group, and log-mel statistics."""
    return [*(Floor(group, UNTRAINED) for group in study.groups), Floor("", LOGMEL_STATISTICS)]


def evaluated_with(study: Study, run: PlannedRun) -> list[str]:
    """The names in results that are evaluated with a run: its own, and with a baseline those of the floors of its seed.

    Log-mel statistics are evaluated with the first baseline.
    """
    names = [run.name]
    if run.cell.arm == study.baseline:
        names.append(Floor(run.cell.group, UNTRAINED).run_name(run.recipe.seed))
        if (run.cell.group, run.recipe.seed) == (study.groups[0], study.seeds[0]):
            names.append(Floor("", LOGMEL_STATISTICS).run_name(run.recipe.seed))
    return names


def encoder_of(run: PlannedRun, name: str, source: Path | Store) -> NamedEncoder:
    """The encoder of one of the names that are evaluated with a run.

    Args:
        run: any of the study's.
        name: one of `evaluated_with`.
        source: folder or encoder file of the run; or what it would train on, which is enough for the floors.
    """
    runs = (source,) if isinstance(source, Path) and source.is_dir() else ()
    if name == Floor("", LOGMEL_STATISTICS).run_name(run.recipe.seed):
        return NamedEncoder(LogMelStatistics(), name, LOGMEL_STATISTICS, runs)
    if isinstance(source, Store):
        return NamedEncoder(_untrained(run, source), name, UNTRAINED)
    trained = PretrainedEncoder.load(source)
    if name == run.name:
        return NamedEncoder(trained, name, ENCODER, runs)
    return NamedEncoder(trained.untrained(run.recipe.seed), name, UNTRAINED, runs)


def _untrained(run: PlannedRun, store: Store) -> PretrainedEncoder:
    """What `PretrainedEncoder.untrained` makes of the run's encoder, without that encoder."""
    recipe = run.recipe.on(store)
    encoder = random_encoder(SIZES[recipe.size], recipe.patch_shape, recipe.seed, recipe.position_order)
    front_end = FrontEnd(store.spec, store.mean, store.std)
    return PretrainedEncoder(encoder, front_end, recipe.crop_frames, has_untrained=False)
