"""How many threads torch and NumPy compute on: as many as the machine has free, found by measuring.

The threads of one operation wait for each other. Where another process holds a core, the thread that should run there
is late, the others spin, and two threads can take ten times as long as one. So a loop measures its own steps, and moves
between all threads and one as they turn out faster.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from threadpoolctl import LibController, ThreadpoolController

FIXED_BY = "OMP_NUM_THREADS"  # set by the user, by torchrun and by schedulers: then the number is kept
OBSERVED_S = 0.05  # shorter steps are measured together
CONTENDED = 0.25  # share of the time that threads waited for a core; 0.03 on an idle machine, 0.6 to 1 beside others
SURE_S = 0.2  # of contended steps, before fewer threads are tried
TRIAL_STEPS = 3
HOPELESS = 1.3  # times the present step, after which a trial ends at once
FASTER = 0.95  # of the present step, below which a trial wins
TRIALS_SHARE = 0.03  # of the time, at most, that trials which did not win may cost
WAIT_S = 5.0  # between two trials, at least
MAX_THREADS = 4096
RECENT = 5  # steps whose median is the present one

TASKS, SCHEDULING = Path("/proc/self/task"), "schedstat"  # seconds computed and waited in nanoseconds, see proc(5)
CAN_TELL_WAITING = Path("/proc/self/schedstat").exists()
CORES = Path("/proc/stat")  # what all cores did, in ticks, see proc(5)
IDLE = 0.5  # of a core, above which more threads are tried
STALE_S = 1.0  # after which what cores did before a loop says nothing of it


def waited_s(num_threads: int) -> float:
    """Seconds that the threads of this process, ready to compute, have waited for a core.

    Where the system does not count them, as Linux does, all that ``num_threads`` threads did not compute; so those that
    sleep as they wait for each other seem to wait for a core.

    Args:
        num_threads: that it computes on.
    """
    if not CAN_TELL_WAITING:
        return num_threads * time.perf_counter() - time.process_time()
    waited_ns = 0
    for task in TASKS.iterdir():
        try:
            waited_ns += int((task / SCHEDULING).read_text().split()[1])
        except OSError:  # the thread has ended
            continue
    return waited_ns / 1e9


def idle_s() -> float:
    """Seconds that the cores of this machine were idle, in sum; as if one always were if the system is silent."""
    if not CORES.exists():
        return time.perf_counter()
    all_cores = CORES.read_text().split("\n", 1)[0].split()
    return (int(all_cores[4]) + int(all_cores[5])) / os.sysconf("SC_CLK_TCK")


def use_threads(num_threads: int) -> None:
    """Have torch compute on that many threads, and NumPy on as many of its own at most."""
    torch.set_num_threads(num_threads)
    for library, most in _of_numpy():
        library.set_num_threads(min(num_threads, most))


@cache
def _of_numpy() -> list[tuple[LibController, int]]:
    """The libraries of matrix products beside torch's, each with the number of its threads."""
    libraries = ThreadpoolController().select(user_api="blas").lib_controllers
    return [(library, library.num_threads) for library in libraries]


class ThreadChooser:
    """Chooses the number of threads for a loop whose steps are alike.

    It starts with all threads. Where they waited for a core, something else runs there, and fewer threads are tried for
    three steps; on fewer threads, more are tried once a core is idle. What is faster stays, for the next loop too, as
    does what a loop was too short to try to its end. On an idle machine nothing is ever tried.

    Args:
        levels: numbers of threads to choose from, descending; with one of them there is nothing to choose.
        clock: the time in seconds.
        waited: seconds that the threads of this process have waited for a core, see `waited_s`.
        idle: seconds that cores were idle, see `idle_s`.
        use: sets the number of threads.
    """

    def __init__(
        self,
        levels: tuple[int, ...],
        *,
        clock: Callable[[], float] = time.perf_counter,
        waited: Callable[[int], float] = waited_s,
        idle: Callable[[], float] = idle_s,
        use: Callable[[int], None] = use_threads,
    ) -> None:
        assert levels == tuple(sorted(set(levels), reverse=True))
        self.levels, self._clock, self._waited, self._idle, self.use = levels, clock, waited, idle, use
        self._level, self._next_trial_s = 0, 0.0
        self._contended_s = 0.0  # of the last steps, of all loops, while the cores were contended
        self._looked = (self._clock(), self._idle())  # when idle cores were last looked for, and what they had been
        self.begin()

    def begin(self) -> None:
        """Start another loop: what steps took in the last one says nothing of its own, but what they waited does.

        A trial that the last loop did not finish is taken for won: cores were contended before it, or idle.
        """
        self._seconds = self._work = self._waited_before_s = 0.0  # of steps that are measured together
        self._recent: list[tuple[float, float]] = []  # seconds for a unit of work, and seconds, at the present level
        self._contended: list[tuple[float, float]] = []  # those of the last steps, while the cores were contended
        self._trial: list[tuple[float, float]] = []
        self._home, now_s = self._level, self._clock()
        if now_s - self._looked[0] >= STALE_S:
            self._looked = (now_s, self._idle())
        self.use(self.num_threads)

    @property
    def num_threads(self) -> int:
        """Those that the next step computes on."""
        return self.levels[self._level]

    @contextmanager
    def step(self, work: int | float = 1) -> Iterator[None]:
        """Measure a step.

        Args:
            work: how much is done in it, in any unit, where steps differ.
        """
        if len(self.levels) == 1:
            yield
            return
        if not self._seconds:
            self._waited_before_s = self._waited(self.num_threads)
        start_s = self._clock()
        yield
        now_s = self._clock()
        self._seconds += now_s - start_s
        self._work += work
        if self._seconds < OBSERVED_S or not self._work:
            return
        seconds, pace = self._seconds, self._seconds / self._work
        self._seconds = self._work = 0.0
        self._observe(pace, seconds, self._waited(self.num_threads) - self._waited_before_s, now_s)

    def _observe(self, pace: float, seconds: float, waited: float, now_s: float) -> None:
        """Take in one measurement, and decide on how many threads to go on.

        Args:
            pace: seconds for a unit of work.
            seconds, waited: that passed, and that threads waited for a core.
            now_s: the time.
        """
        if self._level != self._home:
            self._trial.append((pace, seconds))
            if len(self._trial) == TRIAL_STEPS or pace > HOPELESS * self._pace():
                self._end_trial(now_s)
            return
        self._recent = [*self._recent, (pace, seconds)][-RECENT:]
        is_contended = waited > CONTENDED * seconds
        self._contended = [*self._contended, (pace, seconds)][-RECENT:] if is_contended else []
        self._contended_s = self._contended_s + seconds if is_contended else 0.0
        if now_s < self._next_trial_s:
            return
        if self._contended_s >= SURE_S and self._home + 1 < len(self.levels):
            self._go_to(self._home + 1)
        elif self._home > 0 and not self._contended and self._is_idle(now_s):
            self._go_to(self._home - 1)

    def _is_idle(self, now_s: float) -> bool:
        """Whether a core has been idle for long enough to be seen."""
        (looked_s, before_s), idle = self._looked, self._idle()
        if now_s - looked_s < SURE_S:
            return False
        self._looked = (now_s, idle)
        return idle - before_s > IDLE * (now_s - looked_s)

    def _pace(self) -> float:
        """The present one: of the contended steps if the last were, since those before them say nothing now."""
        return statistics.median(pace for pace, _ in self._contended or self._recent)

    def _end_trial(self, now_s: float) -> None:
        """Stay with what was tried if it was faster, or go back."""
        before, tried = self._pace(), [pace for pace, _ in self._trial]
        if len(tried) == TRIAL_STEPS and statistics.median(tried[1:]) < FASTER * before:
            self._home, self._recent, self._contended, lost_s = self._level, [], [], 0.0
        else:
            lost_s = sum(seconds * max(0.0, 1 - before / pace) for pace, seconds in self._trial)
        self._next_trial_s = now_s + max(WAIT_S, lost_s / TRIALS_SHARE)
        self._trial = []
        self._go_to(self._home)

    def _go_to(self, level: int) -> None:
        self._level, self._contended_s = level, 0.0
        self.use(self.num_threads)


@contextmanager
def following_load(device: torch.device | None = None, num_threads: int | None = None) -> Iterator[ThreadChooser]:
    """Yield a `ThreadChooser` for a loop; afterwards the number of threads is what it was before.

    Weights differ in their last bits between numbers of threads, as their gradients are sums over all tokens.

    Args:
        device: where the loop computes; None for the CPU. On another the number of threads stays as it is.
        num_threads: to be used all the time; None chooses, unless OMP_NUM_THREADS is set.

    Raises:
        ValueError: a number of threads below 1.
    """
    if num_threads is not None and num_threads < 1:
        raise ValueError(f"num_threads must be at least 1, got {num_threads}: leave it out to let it follow the load")
    if num_threads is not None and num_threads > MAX_THREADS:
        raise ValueError(f"num_threads is at most {MAX_THREADS:,}, got {num_threads}")
    before = torch.get_num_threads()
    is_fixed = FIXED_BY in os.environ or (device is not None and device.type != "cpu")
    if num_threads is not None or is_fixed or _in_use:
        chooser = ThreadChooser((num_threads or before,), use=torch.set_num_threads)
    else:
        chooser = _chooser(levels_of(before))
    _in_use.append(chooser)
    chooser.begin()
    try:
        yield chooser
    finally:
        _in_use.remove(chooser)
        chooser.use(before)


_in_use: list[ThreadChooser] = []  # by loops that run now: of nested ones, the outermost chooses


@cache
def _chooser(levels: tuple[int, ...]) -> ThreadChooser:
    """The one of this process, which knows where the last loop left off."""
    return ThreadChooser(levels)


def levels_of(num_threads: int) -> tuple[int, ...]:
    """All threads, three quarters of them, half, a quarter, and one.

    >>> levels_of(2), levels_of(16)
    ((2, 1), (16, 12, 8, 4, 1))
    """
    levels = sorted({max(1, num_threads * share // 4) for share in (4, 3, 2, 1)} | {1}, reverse=True)
    return tuple(levels)
