"""What depends on the machine: the device, its precision, and how the C library keeps memory."""

import ctypes
import os
import platform
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

# Of glibc's <malloc.h>.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
LARGEST_INT = 2**31 - 1
GROWTH_BYTES = 64 * 2**20
DEVICE = "MELMASK_DEVICE"


@cache
def keep_freed_memory() -> bool:
    """Let glibc keep freed memory instead of handing it back to the system; whether it could be asked to.

    By default every large tensor is mapped anew and unmapped when freed, so that each step of a training pays for the
    same page faults again: 30 % of a step of a tiny model on two cores. Applies to the whole process, from now on; the
    peak of the memory used stays as it is, but it is held until the process ends. Other C libraries are left alone.
    """
    try:
        libc = ctypes.CDLL(None)
    except TypeError:  # as on Windows
        return False
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: LARGEST_INT, M_TOP_PAD: GROWTH_BYTES}
    taken = [libc.mallopt(name, value) == 1 for name, value in settings.items()]
    return all(taken)


def cache_folder() -> Path:
    """Folder of everything that can be computed again: $MELMASK_CACHE, or the user's cache folder."""
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "melmask"
    return Path(os.environ.get("MELMASK_CACHE") or user_cache)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread: more may round a product differently, and are slower on single clips."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def this_device() -> torch.device:
    """Where a training or an encoder started here computes: on a GPU with CUDA, else on the CPU.

    The variable MELMASK_DEVICE names another one: "cpu", or "mps", the GPU of a Mac, which has no float64 and so not
    all of what melmask computes.

    Raises:
        ValueError: that device is not there.
    """
    there_are = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    named = os.environ.get(DEVICE) or ("cuda" if there_are["cuda"] else "cpu")
    if not there_are.get(named):
        found = ", ".join(name for name in there_are if there_are[name])
        raise ValueError(f"{DEVICE}={named}: there is no such device here; there are: {found}")
    return torch.device(named)


def describe(device: torch.device) -> str:
    """What it is, for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"this machine's GPU ({platform.machine()})"
    return f"this machine's CPU ({platform.machine()}, {torch.get_num_threads()} threads)"


def hardware(device: torch.device) -> str:
    """What a run was trained on, as reports name it: the accelerator, or the processor and its cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    facts = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*:\s*(.+)$", facts.read_text() if facts.exists() else "", re.MULTILINE)
    name = named[1] if named else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores" if device.type == "cpu" else f"{name}, {device.type}"


def memory_of(device: torch.device) -> int:
    """Its memory in bytes."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    if hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    status = (ctypes.c_uint64 * 8)(64)  # GlobalMemoryStatusEx of Windows: dwLength and dwMemoryLoad, then ullTotalPhys
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined]
    return int(status[1])


def autocast_for(precision: str, device: torch.device) -> Callable[[], Any]:
    """A maker of autocast contexts: bfloat16 if asked for, or with "auto" if the hardware computes in it."""
    use_bf16 = precision_of(precision, device) == torch.bfloat16
    return lambda: torch.autocast(device.type, torch.bfloat16, enabled=use_bf16)


def precision_of(precision: str, device: torch.device) -> torch.dtype:
    """The type of matrix products: bfloat16 if asked for, or with "auto" if the hardware computes in it."""
    use_bf16 = precision == "bf16" or (precision == "auto" and computes_in_bf16(device))
    return torch.bfloat16 if use_bf16 else torch.float32


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the hardware itself multiplies in bfloat16; where it is emulated, bfloat16 is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "mps":
        return False
    return processor_has("avx512_bf16") or processor_has("amx_tile")


def processor_has(feature: str) -> bool:
    """Whether the processor has a feature, by torch's name for it, and torch can tell."""
    return bool(getattr(torch.cpu, f"_is_{feature}_supported", lambda: False)())  # absent in some versions of torch
