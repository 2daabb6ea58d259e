import ctypes
import platform
import subprocess
import sys

import pytest

from melmask.runtime import DEVICE, keep_freed_memory, memory_of, this_device

PROBE = """
import resource
import sys
import torch
from melmask.runtime import DEVICE, keep_freed_memory, memory_of, this_device

def faults_of_a_temporary():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(16_000_000).add_(1)  # 64 MB, more than glibc ever keeps by itself: 15,625 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "kept":
    assert keep_freed_memory() and keep_freed_memory()
# A small allocation may settle in what one left, so that the next needs pages of its own: up to four times in a row.
print(min([faults_of_a_temporary() for _ in range(20)][1:]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked to keep freed memory")
def test_temporaries_of_one_size_come_to_touch_no_new_page():
    """In processes of their own, as the setting holds to the end of a process."""

    def faults(mode: str) -> int:
        return int(
            subprocess.run([sys.executable, "-c", PROBE, mode], capture_output=True, text=True, check=True).stdout
        )

    assert faults("default") > 10_000
    assert faults("kept") < 100


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert keep_freed_memory.__wrapped__() is False


def test_a_device_is_named_by_a_variable(monkeypatch):
    monkeypatch.setenv(DEVICE, "cpu")
    assert this_device().type == "cpu" and memory_of(this_device()) > 2**28
    monkeypatch.setenv(DEVICE, "tpu")
    with pytest.raises(ValueError, match=r"MELMASK_DEVICE=tpu: there is no such device here; there are: .*cpu"):
        this_device()
