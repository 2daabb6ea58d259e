"""The number of threads that follows the load, on a simulated machine and on this one."""

import os
import subprocess
import sys
import time

import pytest
import torch

from melmask import threads
from melmask.threads import FIXED_BY, ThreadChooser, following_load, idle_s, levels_of, waited_s


class Machine:
    """Two cores, and what a step takes on them: threads that wait for each other collapse beside a busy process."""

    def __init__(self, levels=(2, 1), waits_when_idle=0.0, seconds=None):
        self.now_s = self.waited_s = self.idle_s = 0.0
        self.is_busy, self.waits_when_idle, self.seems_idle = False, waits_when_idle, False
        self.seconds = seconds or {(1, False): 0.4, (2, False): 0.25, (1, True): 0.42, (2, True): 1.5}
        self.num_threads, self.used = levels[0], []
        self.chooser = ThreadChooser(
            levels, clock=lambda: self.now_s, waited=lambda _: self.waited_s, idle=lambda: self.idle_s, use=self.use
        )

    def use(self, num_threads):
        self.num_threads = num_threads
        self.used.append(num_threads)

    def run(self, seconds):
        """Steps done in that time."""
        end_s, num_steps = self.now_s + seconds, 0
        while self.now_s < end_s:
            with self.chooser.step():
                taken = self.seconds[self.num_threads, self.is_busy]
                self.now_s += taken
                self.idle_s += 0.0 if self.is_busy and not self.seems_idle else taken
                if self.num_threads > 1:
                    self.waited_s += taken * (0.7 if self.is_busy else self.waits_when_idle)
            num_steps += 1
        return num_steps


def test_an_idle_machine_computes_on_all_threads_and_tries_nothing():
    machine = Machine()
    assert machine.run(60) == 60 / 0.25
    assert set(machine.used) == {2}


@pytest.mark.parametrize("idle_s", [0, 1, 30])
def test_beside_a_busy_process_it_reaches_nine_tenths_of_the_rate_of_one_thread(idle_s):
    machine = Machine()
    machine.run(idle_s)
    machine.is_busy = True
    num_steps = machine.run(60)
    assert num_steps >= 0.9 * 60 / machine.seconds[1, True]
    assert machine.num_threads == 1


def test_nothing_is_tried_as_long_as_no_core_is_idle():
    machine = Machine()
    machine.is_busy = True
    machine.run(600)
    assert machine.used == [2, 1, 1]  # at the start, the trial, and what it decided


def test_idle_time_passes():
    before_s = idle_s()
    time.sleep(0.1)
    assert idle_s() >= before_s >= 0


def test_it_returns_to_all_threads_within_ten_seconds_when_the_other_process_has_ended():
    machine = Machine()
    machine.is_busy = True
    machine.run(60)
    machine.is_busy = False
    machine.run(10)
    assert machine.num_threads == 2
    assert machine.run(60) == 60 / 0.25


def test_trials_that_are_lost_cost_three_hundredths_of_the_time():
    machine = Machine(seconds={(1, True): 0.4, (2, True): 0.39})  # busy, and yet two threads are as fast
    machine.is_busy = machine.seems_idle = True  # as in a container, which sees the cores of its host
    lost = 1 - machine.run(600) * 0.39 / 600
    assert set(machine.used) == {1, 2}
    assert 0 <= lost <= 0.03


def test_threads_that_seem_to_wait_cost_no_more_than_their_trials():
    machine = Machine(waits_when_idle=0.8)  # passive waiting, where the system tells no more than processor time
    assert machine.run(600) >= 0.96 * 600 / 0.25
    assert machine.num_threads == 2


def test_of_sixteen_threads_as_many_as_are_free():
    busy = {16: 3.0, 12: 0.12, 8: 0.15, 4: 0.25, 1: 0.9}
    machine = Machine(levels_of(16), seconds={(n, True): taken for n, taken in busy.items()})
    machine.is_busy = True
    machine.run(120)
    assert machine.num_threads == 12


def test_short_steps_are_measured_together():
    machine = Machine(seconds={(2, True): 0.01, (1, True): 0.004})
    machine.is_busy = True
    machine.run(0.19)
    assert set(machine.used) == {2}
    machine.run(3)
    assert machine.num_threads == 1


def test_steps_of_different_work_are_compared_by_their_pace():
    machine = Machine()
    machine.is_busy = True
    works = iter([1, 1, 4, 4, 4, 4] + [8] * 20)  # growing faster than one thread is faster

    for work in works:
        with machine.chooser.step(work):
            taken = work * machine.seconds[machine.num_threads, True]
            machine.now_s += taken
            machine.waited_s += taken * (0.7 if machine.num_threads == 2 else 0)
    assert machine.num_threads == 1


def test_the_next_loop_starts_where_the_last_one_ended():
    machine = Machine()
    machine.is_busy = True
    machine.run(10)
    machine.num_threads = 2
    machine.chooser.begin()
    assert machine.num_threads == 1


def test_a_trial_that_a_new_loop_cuts_off_is_taken_for_won():
    machine = Machine()
    machine.is_busy = True
    while machine.num_threads == 2:
        machine.run(0.1)
    machine.num_threads = 2
    machine.chooser.begin()
    assert machine.num_threads == 1
    machine.run(2)
    assert machine.used[-1] == 1 and machine.run(42) == 100


@pytest.mark.parametrize("num_steps", [1, 3])
@pytest.mark.parametrize("taken_s", [0.06, 0.5])
def test_loops_too_short_for_a_trial_follow_the_load_together(num_steps, taken_s):
    busy, idle = {2: 4 * taken_s, 1: taken_s}, {2: 0.6 * taken_s, 1: taken_s}
    machine = Machine(seconds={(n, True): busy[n] for n in busy} | {(n, False): idle[n] for n in idle})

    def run_loops(seconds):
        end_s = machine.now_s + seconds
        while machine.now_s < end_s:
            machine.chooser.begin()
            for _ in range(num_steps):
                machine.run(1e-9)

    run_loops(5)
    assert set(machine.used) == {2}
    machine.is_busy = True
    run_loops(5)
    machine.used.clear()
    run_loops(60)
    assert set(machine.used) == {1}
    machine.is_busy = False
    run_loops(5)
    machine.used.clear()
    run_loops(60)
    assert set(machine.used) == {2}


@pytest.fixture
def two_threads(monkeypatch):
    monkeypatch.delenv(FIXED_BY, raising=False)
    threads._chooser.cache_clear()
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
    threads._chooser.cache_clear()


def test_the_number_before_is_restored(two_threads):
    with following_load(num_threads=1) as chooser:
        assert chooser.levels == (1,) and torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(KeyError), following_load() as chooser:
        assert chooser.levels == (2, 1)
        torch.set_num_threads(1)
        raise KeyError
    assert torch.get_num_threads() == 2


def test_what_the_user_fixed_stays(two_threads, monkeypatch):
    monkeypatch.setenv(FIXED_BY, "2")
    with following_load() as chooser:
        assert chooser.levels == (2,)


def test_on_a_gpu_the_number_stays(two_threads):
    with following_load(torch.device("cuda")) as chooser:
        assert chooser.levels == (2,)


def test_of_nested_loops_the_outer_one_chooses(two_threads):
    with following_load() as outer:
        with following_load() as inner:
            assert inner is not outer and inner.levels == (2,)
        with following_load() as again:
            assert again is not outer
    with following_load() as chooser:
        assert chooser is outer


def test_numpy_follows_too_and_is_restored(two_threads):
    numpys = [library for library, _ in threads._of_numpy()]
    most = [library.num_threads for library in numpys]
    assert numpys, "NumPy multiplies by a library that threadpoolctl does not know"
    threads.use_threads(1)
    assert torch.get_num_threads() == 1 and {library.num_threads for library in numpys} == {1}
    threads.use_threads(1000)
    assert [library.num_threads for library in numpys] == most


def busy_for(seconds):
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        pass


@pytest.mark.parametrize("can_tell", [False, True])
def test_what_waits_for_a_core_is_seen(monkeypatch, can_tell):
    if can_tell and not threads.CAN_TELL_WAITING:
        pytest.skip("the system does not count the time that threads wait for a core")
    monkeypatch.setattr(threads, "CAN_TELL_WAITING", can_tell)
    num_cores = len(os.sched_getaffinity(0))
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4 * num_cores)]
    try:
        before_s = waited_s(1)
        busy_for(2.0)
        assert waited_s(1) - before_s > 0.25 * 2.0  # a fair share leaves four fifths of the time to the others
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_no_threads_are_refused():
    with pytest.raises(ValueError, match="num_threads must be at least 1, got 0"), following_load(num_threads=0):
        pass


def test_a_loop_on_this_machine_goes_on_computing(two_threads):
    with following_load() as chooser:
        for _ in range(20):
            with chooser.step():
                product = torch.ones(200, 200) @ torch.ones(200, 200)
    assert product[0, 0] == 200
    assert torch.get_num_threads() == 2
