"""Simulated studies with known effects and variances."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from melmask.evaluation.results import Result
from melmask.files import append_lines
from melmask.study.answers import Answers, TaskAnswers
from melmask.study.floors import floors_of
from melmask.study.kept import CLIPS, TASKS, RightAnswers, TestedClips
from melmask.study.study import Kind, Study


@dataclass(frozen=True)
class Truth:
    """Of the difference of two arms: its mean and the standard deviations of what it depends on."""

    effect: float = 0.0
    seeds: float = 0.01
    seeds_tasks: float = 0.0
    groups: float = 0.1
    both: float = 0.1
    tasks: float = 0.0
    num_seeds: int = 3
    num_tasks: int = 4
    num_groups: int = 40

    def differences(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Of each task, by seed and group; groups weigh 1 each."""
        by_seed = self.seeds * rng.standard_normal((self.num_seeds, 1))
        return [
            self.effect
            + self.tasks * rng.standard_normal()
            + by_seed
            + self.seeds_tasks * rng.standard_normal((self.num_seeds, 1))
            + self.groups * rng.standard_normal(self.num_groups)
            + self.both * rng.standard_normal((self.num_seeds, self.num_groups))
            for _ in range(self.num_tasks)
        ]

    @property
    def weights(self) -> list[np.ndarray]:
        """Of the groups of each task."""
        return [np.ones(self.num_groups)] * self.num_tasks

    def answers(self, rng: np.random.Generator, arms: int = 1, kinds: tuple[Kind, ...] = ("other",)) -> Answers:
        """Of a whole study with one group: random, and so many arms with this effect."""
        random = [0.5 + 0 * one for one in self.differences(rng)]
        rows = [random] + [
            [base + one for base, one in zip(random, self.differences(rng), strict=True)] for _ in range(arms)
        ]
        tasks = [
            TaskAnswers(f"task{number}", kinds[number % len(kinds)], np.stack([row[number] for row in rows]), weight)
            for number, weight in enumerate(self.weights)
        ]
        cells = [("m2d", "random"), *(("m2d", f"arm{number}") for number in range(arms))]
        return Answers("ridge", tuple(cells), tuple(tasks))


def write_study(
    study: Study, out: Path, effects: Mapping[tuple[str, str], float], *, num_clips: int = 120, lacking: int = 0,
    floors: bool = False,
) -> None:  # fmt: skip
    """Write the .jsonl files of results of a study: answers to clips of ten groups, right in half of the cases.

    Args:
        study: whose runs are evaluated.
        out: the folder.
        effects: on the share of right answers, by arm and kind of tasks; 0 where not given. Exactly so: clips that one
            run has right and another has not are few, as of nested sets.
        num_clips: of each task.
        lacking: so many of the last runs are missing.
        floors: write answers of the floors too.
    """
    out.mkdir(parents=True, exist_ok=True)
    groups = tuple(number % 10 for number in range(num_clips))
    for task, given in zip(study.task_names, study.tasks, strict=True):
        append_lines(out / TASKS, [asdict(TestedClips(task, task, given.kind, (0,) * num_clips, groups))])
    clips, results = [], []
    named = {run.name: (run.cell.arm, run.recipe.seed) for run in study.runs[: len(study.runs) - lacking]}
    if floors:
        named |= {one.run_name(seed): (one.arm, seed) for one in floors_of(study) for seed in reversed(study.seeds)}
    for name, (arm, seed) in named.items():
        for number, (task, given) in enumerate(zip(study.task_names, study.tasks, strict=True)):
            for probe in study.probe_labels:
                order = np.random.default_rng([number, seed]).permutation(num_clips)
                share = 0.5 + effects.get((arm, given.kind), 0.0)
                right = "".join("1" if place < round(share * num_clips) else "0" for place in order)
                clips.append(asdict(RightAnswers(name, task, probe, task, 1, right)))
                score = (right.count("1") / num_clips,) * 3
                names = (task, f"{task}.csv", probe, "encoder", "accuracy")
                told = Result(*names, *score, 1, num_clips, 2, 8, 0, (), "", "0.1.0", encoder=name, content=task)
                results.append(asdict(told))
    append_lines(out / CLIPS, clips)
    append_lines(out / "results.jsonl", results)
