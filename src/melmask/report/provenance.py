"""The section of a report that says what it is made of: data, commands and versions."""

import platform
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from markupsafe import Markup

from melmask.data.store import Store
from melmask.report import page
from melmask.report.sections import Material
from melmask.study.runs import Run


def provenance(material: Material, inputs: Mapping[str, Sequence[Path]], out: Path) -> list[Markup]:
    """The data, the commands that reproduce the runs and this page, and the versions of the packages.

    Args:
        material: what the page is about.
        inputs: the other files that it was made of, by the option that names them.
        out: its folder.
    """
    data = [_data_row(run) for run in material.runs]
    header = ["run", "store", "fingerprint", "clips", "hours", "sources", "front end", "log-mel mean, deviation"]
    commands = [
        "melmask prepare SOURCES --out " + shlex.quote(store) for store in dict.fromkeys(row[1] for row in data)
    ]
    commands += [run.pretrain_command for run in material.runs]
    commands += dict.fromkeys(result.command for one in material.scored for result in one.results if result.command)
    commands += dict.fromkeys(kept.command for kept in material.comparisons)
    options = [part for option, files in inputs.items() if files for part in (option, *map(str, files))]
    commands.append(
        shlex.join(["melmask", "report", *(str(run.folder) for run in material.runs), *options, "--out", str(out)])
    )
    evaluated = sorted({result.version for one in material.scored for result in one.results})
    versions = [["Python", platform.python_version()]]
    versions += [[name, version(name)] for name in ("melmask", "torch", "numpy", "matplotlib")]
    versions += [["evaluated with melmask", ", ".join(evaluated)]] if evaluated else []
    return [
        *([page.heading("Data"), page.table(header, data)] if data else []),
        page.heading("Commands"),
        page.part("code", "\n".join(commands)),
        page.heading("Versions that wrote this page"),
        page.table(["package", "version"], versions),
    ]


def _data_row(run: Run) -> list[str]:
    """The data of a run; a dash where it is not known."""
    name, store = run.data.get("store", "not recorded"), run.store
    fingerprint = run.data.get("fingerprint", "not recorded")[:16]
    statistics = f"{run.data['mean']:.3f}, {run.data['std']:.3f}" if "mean" in run.data else "not recorded"
    if store is None:
        return [run.name, name, fingerprint, "–", "–", "–", _front_end(run), statistics]
    if not len(store):
        return [run.name, name, fingerprint, "–", "without end", "–", _front_end(run), statistics]
    hours = f"{store.info['duration_s'] / 3600:.2f}"
    return [run.name, name, fingerprint, f"{len(store.clips):,}", hours, _sources(store), _front_end(run), statistics]


def _sources(store: Store) -> str:
    counts = Counter(store.clips.words("source"))
    return ", ".join(f"{source} ({count:,})" for source, count in counts.items())


def _front_end(run: Run) -> str:
    spec = run.spec
    if spec is None:
        return "–"
    window_ms, hop_ms = (1000 * samples / spec.sample_rate_hz for samples in (spec.n_fft, spec.hop_length))
    return (
        f"{spec.sample_rate_hz:,} Hz, {spec.num_mels} mels {spec.fmin_hz:g} to {spec.fmax_hz:g} Hz, "
        f"window {window_ms:g} ms, hop {hop_ms:g} ms"
    )
