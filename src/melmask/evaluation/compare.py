"""Comparison of two encoders on the same clips: paired intervals and McNemar's test."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from melmask.data.manifest import source_names
from melmask.encoders.features import FeatureSettings, Layers, Pooling
from melmask.encoders.fixed_length import ClipLength
from melmask.encoders.registry import EncoderLike, NamedEncoder, name_encoders
from melmask.evaluation.bootstrap import bootstrap, interval_of_difference, num_drawn
from melmask.evaluation.metrics import Metric, Score, statistic_of
from melmask.evaluation.prepared import ShowProgress, show_nothing
from melmask.evaluation.protocol import ProtocolName
from melmask.evaluation.run import Evaluation, EvaluationSettings, ProbeResult, as_sequence, evaluate_table
from melmask.evaluation.task import FEW_GROUPS, Task, group_numbers
from melmask.probes.base import Probe


@dataclass(frozen=True)
class McNemar:
    """Test clips on which only one of two encoders is right.

    Args:
        num_only_a: test clips that only A classifies right; with several seeds, those that A classifies right with
            more of them.
        num_only_b: likewise for B.
        p_value: two-sided and exact, of a split at least as uneven if both encoders were equally good. Clips are taken
            as independent, which those of one group are not: where there are groups, it is too small.

    Source: McNemar (1947), as an exact binomial test.
    """

    num_only_a: int
    num_only_b: int
    p_value: float


@dataclass(frozen=True)
class Comparison:
    """Encoder A against encoder B, with one probe on one task.

    Args:
        task, probe: their names.
        metric: what the scores are.
        name_a, name_b: of the encoders.
        a, b: their scores.
        difference: A's score minus B's, with its 95 % interval by a paired bootstrap: both are scored on the same
            resamples of groups and trainings.
        superiority: the share of resamples in which A scores above B; ties count half.
        mcnemar: for accuracy; None for mAP.
        num_groups: groups of test clips that were resampled; 0 if clips have none.
        notes: what a reader of the scores has to know.
    """

    task: str
    probe: str
    metric: Metric
    name_a: str
    name_b: str
    a: Score
    b: Score
    difference: Score
    superiority: float
    mcnemar: McNemar | None
    num_groups: int
    notes: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """The finding in one or two sentences."""
        gap, low, high = (100 * value for value in (self.difference.value, self.difference.low, self.difference.high))
        figures = f"{gap:+z.1f} points, 95 % interval {low:+z.1f} to {high:+z.1f}"
        where = f"on {self.task} with {self.probe}"
        if self.difference.includes_zero:
            finding = f"{self.name_a} and {self.name_b} cannot be told apart {where}: {figures}."
        else:
            better, worse = (self.name_a, self.name_b) if gap > 0 else (self.name_b, self.name_a)
            finding = f"{better} is better than {worse} {where}: {figures} (A minus B)."
        if self.num_groups == 1:
            return f"{finding} All test clips are of one group: this says nothing of other groups."
        if 0 < self.num_groups < FEW_GROUPS:
            return (
                f"{finding} It rests on {self.num_groups} groups only: with so few the interval tends to be too "
                "narrow, and the evidence is weak."
            )
        return finding


def compare(
    a: EncoderLike,
    b: EncoderLike,
    tables: str | Path | Sequence[str | Path],
    *,
    probes: str | Probe | Sequence[str | Probe] = (),
    protocol: ProtocolName = "melmask",
    clip_length: ClipLength = "task",
    test_folds: Sequence[str] = (),
    num_seeds: int = 3,
    allow_duplicates: bool = False,
    layers: Layers = "auto",
    pooling: Pooling = "auto",
    num_workers: int | None = None,
    progress: ShowProgress = show_nothing,
) -> list[Comparison]:
    """Compare two frozen encoders on labelled tasks: the difference of their scores, with its interval.

    Args:
        a, b: the encoders, see `melmask.evaluation.run.evaluate`.
        tables, probes, protocol, clip_length, test_folds, num_seeds, allow_duplicates, layers, pooling, num_workers,
            progress: likewise.

    Returns:
        A comparison for each task and probe, in this order.

    Raises:
        ValueError, ImportError: see `melmask.evaluation.run.evaluate`; or both encoders are the same.
    """
    settings = EvaluationSettings(as_sequence(probes), clip_length, test_folds, num_seeds, protocol, allow_duplicates)
    named = name_encoders([a, b], FeatureSettings(layers, pooling))
    comparisons = []
    paths = [Path(table) for table in as_sequence(tables)]
    for table, name in zip(paths, source_names(paths), strict=True):
        found = evaluate_table(named, table, settings, name=name, num_workers=num_workers, progress=progress)
        comparisons += [compare_evaluations(*pair) for pair in paired(found)]
    return comparisons


def paired(evaluations: Iterable[Evaluation]) -> list[tuple[Evaluation, Evaluation]]:
    """Pair the evaluations of two encoders by their probes.

    Args:
        evaluations: as `evaluate_table` yields them: all of the first encoder, then all of the second.
    """
    found = list(evaluations)
    half = len(found) // 2
    return list(zip(found[:half], found[half:], strict=True))


def compare_evaluations(a: Evaluation, b: Evaluation) -> Comparison:
    """Compare two encoders, evaluated on the same task with the same probe and settings."""
    return compare_results(a.found, b.found, a.task, (a.encoder.name, b.encoder.name))


def compare_with_baselines(
    encoders: Sequence[NamedEncoder], found: Mapping[str, Sequence[ProbeResult]], task: Task
) -> list[Comparison]:
    """Compare each encoder with its baselines, on one task with each probe that both were evaluated with.

    Args:
        encoders: as `melmask.encoders.registry.with_baselines` returns them.
        found: what probes found, by the name of the encoder.
        task: the task that was given to them.
    """
    return [
        compare_results(a, b, task, (name, baseline.name))
        for name in found
        for baseline in encoders
        if name in baseline.baseline_of
        for a in found[name]
        for b in found[baseline.name]
        if a.probe == b.probe
    ]


def findings(comparisons: Sequence[Comparison]) -> list[str]:
    """What is sure about each pair of encoders, and what is not, in a sentence for each pair."""
    by_pair: dict[tuple[str, str], list[Comparison]] = {}
    for one in comparisons:
        by_pair.setdefault((one.name_a, one.name_b), []).append(one)
    return [_finding(pair, found) for pair, found in by_pair.items()]


def _finding(names: tuple[str, str], found: Sequence[Comparison]) -> str:
    named = {
        f"{names[0]} is better": [one for one in found if one.difference.low > 0],
        f"{names[1]} is better": [one for one in found if one.difference.high < 0],
    }
    parts = [f"{words} on {_gaps(ones)}" for words, ones in named.items() if ones]
    undecided = len(found) - sum(map(len, named.values()))
    if undecided:
        parts.append(f"no sure difference in {undecided} of {len(found)} comparisons")
    return f"{names[0]} and {names[1]}: {'; '.join(parts)}."


def _gaps(comparisons: Sequence[Comparison]) -> str:
    """Differences by task and probe, in words."""
    by_task: dict[str, list[str]] = {}
    for one in comparisons:
        by_task.setdefault(one.task, []).append(f"{one.probe} ({100 * one.difference.value:+z.1f} points)")
    return "; on ".join(f"{task} with {', '.join(gaps)}" for task, gaps in by_task.items())


def compare_results(a: ProbeResult, b: ProbeResult, task: Task, names: Sequence[str], *, seed: int = 0) -> Comparison:
    """Compare two encoders by the results of the same probe on the same clips.

    Trainings are paired by their seeds, which matters for few-shot probes, whose draws depend on the seed alone.

    Args:
        a, b: of `run_probe`, with the same probe, folds and seeds.
        task: the task that was given to it.
        names: of the two encoders.
        seed: of the bootstrap.

    Raises:
        ValueError: the results are not of the same probe, clips and seeds.
    """
    same = a.per_training.shape == b.per_training.shape and np.array_equal(a.fold_of, b.fold_of)
    if not same or (a.probe, a.task) != (b.probe, b.task) or a.task != task.name:
        raise ValueError(
            f"{a.probe} on {a.task} and {b.probe} on {b.task} are not the same probe, clips and seeds: run both alike"
        )
    tested = np.flatnonzero(a.fold_of >= 0)
    targets, folds, groups = task.targets[tested], a.fold_of[tested], group_numbers(task)[tested]
    a_scores, b_scores = a.per_training[:, tested], b.per_training[:, tested]
    count_a, count_b = statistic_of(targets, a_scores), statistic_of(targets, b_scores)
    value, resampled = bootstrap(
        lambda clips, weight: count_a(clips, weight) - count_b(clips, weight),
        len(tested),
        len(a_scores),
        folds=folds,
        groups=groups,
        seed=seed,
    )
    return Comparison(
        task=task.name,
        probe=a.probe,
        metric=task.metric,
        name_a=names[0],
        name_b=names[1],
        a=a.score,
        b=b.score,
        difference=Score(
            float(value),
            *interval_of_difference(resampled, float(value), num_drawn(groups) or len(tested)),
            len(a_scores),
            len(tested),
        ),
        superiority=float((np.sign(resampled[~np.isnan(resampled)]) + 1).mean() / 2),
        mcnemar=None
        if task.is_multilabel
        else mcnemar(_share_right(targets, a_scores), _share_right(targets, b_scores)),
        num_groups=0 if task.groups is None else len(np.unique(groups)),
        notes=tuple(dict.fromkeys([*a.notes, *b.notes])),
    )


def mcnemar(a: Float[np.ndarray, " clip"], b: Float[np.ndarray, " clip"]) -> McNemar:
    """McNemar's exact test of two classifiers on the same clips.

    Args:
        a, b: share of the seeds with which each clip is classified right; 0 or 1 with one seed.

    >>> mcnemar(np.array([1.0, 1, 1, 1, 0]), np.array([0.0, 0, 0, 1, 0]))
    McNemar(num_only_a=3, num_only_b=0, p_value=0.25)
    """
    from scipy.stats import binomtest  # here, as it takes half a second to import

    num_only_a, num_only_b = int((a > b).sum()), int((b > a).sum())
    num_split = num_only_a + num_only_b
    p_value = binomtest(num_only_a, num_split).pvalue if num_split else 1.0
    return McNemar(num_only_a, num_only_b, float(p_value))


def _share_right(
    targets: Int[np.ndarray, " clip"], scores: Float[np.ndarray, "seed clip num_classes"]
) -> Float[np.ndarray, " clip"]:
    return (scores.argmax(axis=2) == targets).mean(axis=0)
