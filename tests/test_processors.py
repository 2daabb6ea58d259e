"""Which settings the numerical tests run under on which processor, and that a failure under any of them counts."""

import subprocess

import pytest

import processors

INTEL_WITHOUT_AVX2 = "flags\t\t: fpu sse sse2 sse4_2 avx\n"
AMD_WITHOUT_AVX512 = "processor\t: 0\nflags\t\t: fpu sse2 avx avx2 fma sha_ni\nbugs\t\t: avx512f\n"
AMD_WITH_AVX512 = "flags\t\t: avx2 fma avx512f avx512bw avx512dq avx512vl avx512_bf16\n"
INTEL_WITH_AMX = AMD_WITH_AVX512.strip() + " avx512_fp16 amx_bf16 amx_tile amx_int8\n"
ATEN, ONEDNN, MKL = "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS"
ALWAYS = ("MKL_CBWR", "COMPATIBLE")


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """The settings that were run; those in ``failing`` fail."""
    settings, failing = [], []

    def run(command, env, **_):
        assert "numerical and not slow" in command
        (name,) = [name for name in (ATEN, ONEDNN, MKL, ALWAYS[0]) if name in env]
        settings.append((name, env[name], env["MELMASK_TEST_THREADS"]))
        return subprocess.CompletedProcess(command, int(settings[-1] in failing), "FAILED it\n3 of 4 passed\n")

    for name in (ATEN, ONEDNN, MKL, ALWAYS[0]):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(processors, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(subprocess, "run", run)
    return settings, failing


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (None, [(ATEN, "default"), ALWAYS]),  # as on Windows and macOS
        (INTEL_WITHOUT_AVX2, [(ATEN, "default"), ALWAYS]),
        (AMD_WITHOUT_AVX512, [(ATEN, "default"), (ATEN, "avx2"), (ONEDNN, "AVX2"), (MKL, "AVX2"), ALWAYS]),
        (
            AMD_WITH_AVX512,
            [(ATEN, "default"), (ATEN, "avx2"), (ONEDNN, "AVX2"), (ONEDNN, "AVX512_CORE"), (MKL, "AVX2"),
             (MKL, "AVX512"), ALWAYS],
        ),
        (INTEL_WITH_AMX, [(limit.variable, limit.value) for limit in processors.LIMITS]),
    ],
)  # fmt: skip
def test_what_the_processor_has_is_run_and_the_rest_named(info, expected, runs, capsys):
    if info is not None:
        processors.CPU_INFO.write_text(info)
    assert processors.main() == 0
    assert sorted(runs[0]) == sorted((*limit, threads) for limit in expected for threads in "12")
    shown = capsys.readouterr().out
    for limit in processors.LIMITS:
        was_run = (limit.variable, limit.value) in expected
        assert (f"{limit}, 2 threads: 3 of 4 passed" in shown) == was_run
        assert (f"{limit}: left out, as the processor does not have" in shown) != was_run


def test_the_missing_flags_are_named(runs, capsys):
    processors.CPU_INFO.write_text(AMD_WITH_AVX512)
    processors.main()
    assert "does not have amx_bf16, amx_int8, amx_tile, avx512_fp16\n" in capsys.readouterr().out


def test_a_failure_under_any_setting_fails_with_its_output(runs, capsys):
    processors.CPU_INFO.write_text(AMD_WITHOUT_AVX512)
    runs[1].append((ONEDNN, "AVX2", "2"))
    assert processors.main() == 1 and len(runs[0]) == 10
    shown = capsys.readouterr().out
    assert shown.count("FAILED it") == 1 and shown.endswith("failed under ONEDNN_MAX_CPU_ISA=AVX2, 2 threads\n")
