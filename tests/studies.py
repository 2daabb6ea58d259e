"""Simulated studies with known effects and variances."""

from dataclasses import dataclass

import numpy as np

from melmask.study.answers import Answers, TaskAnswers


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

    def answers(self, rng: np.random.Generator, arms: int = 1, kinds: tuple[str, ...] = ("other",)) -> Answers:
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
