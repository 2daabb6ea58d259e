"""Runs the numerical tests as on other processors: limited to fewer instructions, on one and on two threads.

Each setting runs in a process of its own, as the libraries read their limits when they are loaded. A limit can only
take away what the processor has, so settings beyond it are left out, and named.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import NamedTuple

CPU_INFO = Path("/proc/cpuinfo")
ROOT = Path(__file__).parents[1]
PYTEST = [sys.executable, "-m", "pytest", "-q", "--no-header", "-n", "0", "-m", "numerical and not slow"]
FILES = [str(path) for path in sorted(ROOT.glob("tests/**/test_*.py")) if "mark.numerical" in path.read_text()]
AVX2 = {"avx2", "fma"}
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
AMX = AVX512 | {"avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8"}


class Limit(NamedTuple):
    """A library's limit on instructions: PyTorch's own kernels (ATEN), convolutions (ONEDNN), products (MKL)."""

    variable: str
    value: str
    needs: set[str]  # flags of the processor, as in /proc/cpuinfo

    def __str__(self) -> str:
        return f"{self.variable}={self.value}"


LIMITS = [
    Limit("ATEN_CPU_CAPABILITY", "default", set()),
    Limit("ATEN_CPU_CAPABILITY", "avx2", AVX2),
    Limit("ONEDNN_MAX_CPU_ISA", "AVX2", AVX2),
    Limit("ONEDNN_MAX_CPU_ISA", "AVX512_CORE", AVX512),
    Limit("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_AMX", AMX),
    Limit("MKL_ENABLE_INSTRUCTIONS", "AVX2", AVX2),
    Limit("MKL_ENABLE_INSTRUCTIONS", "AVX512", AVX512),
    Limit("MKL_CBWR", "COMPATIBLE", set()),  # heeded on every processor, unlike the one above
]
NUM_THREADS = (1, 2)


def flags_of_processor() -> set[str]:
    """The instruction sets of this processor; none where it does not say, as on Windows and macOS."""
    lines = CPU_INFO.read_text(errors="replace").splitlines() if CPU_INFO.exists() else []
    return {flag for line in lines if line.startswith("flags") for flag in line.partition(":")[2].split()}


def run(limit: Limit, num_threads: int) -> tuple[str, bool, list[str]]:
    """The setting's name, whether the numerical tests pass under it, and what they print."""
    threads = {name: str(num_threads) for name in ("MELMASK_TEST_THREADS", "OMP_NUM_THREADS")}
    # Threads that wait for work give up their processor, which other settings may be running on.
    environment = {**os.environ, **threads, "OMP_WAIT_POLICY": "PASSIVE", limit.variable: limit.value}
    found = subprocess.run([*PYTEST, *FILES], cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE)
    name = f"{limit}, {num_threads} thread{'s' * (num_threads > 1)}"
    return name, found.returncode == 0, found.stdout.strip().splitlines() or ["no tests ran"]


def main() -> int:
    """Run every setting that this processor has; return 1 if the tests fail under any."""
    flags, failed = flags_of_processor(), []
    for limit in LIMITS:
        if missing := sorted(limit.needs - flags):
            print(f"{limit}: left out, as the processor does not have {', '.join(missing)}", flush=True)
    limits = [limit for limit in LIMITS if limit.needs <= flags]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, passed, lines in pool.map(run, *zip(*product(limits, NUM_THREADS), strict=True)):
            print(f"{name}: " + (lines[-1] if passed else "\n".join(lines)), flush=True)
            failed += [] if passed else [name]
    print(f"failed under {'; '.join(failed)}" if failed else "passed under every setting of this processor")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
