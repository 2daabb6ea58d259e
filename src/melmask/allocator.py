"""Memory that the C library takes back from tensors is kept for the next ones."""

import ctypes
from functools import cache

# Of glibc's <malloc.h>.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
LARGEST_INT = 2**31 - 1
GROWTH_BYTES = 64 * 2**20


@cache
def keep_freed_memory() -> bool:
    """Let glibc keep freed memory instead of handing it back to the system; whether it could be asked to.

    By default every large tensor is mapped anew and unmapped when freed, so that each step of a training pays for the
    same page faults again: 30 % of a step of a tiny model on two cores. Applies to the whole process, from now on; the
    peak of the memory used stays as it is, but it is held until the process ends. Other C libraries are left alone.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: LARGEST_INT, M_TOP_PAD: GROWTH_BYTES}
    taken = [libc.mallopt(name, value) == 1 for name, value in settings.items()]
    return all(taken)
