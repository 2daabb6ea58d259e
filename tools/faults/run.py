"""Runs groups of the catalogue, and keeps what became of each fault in a file of JSON lines."""

import re
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from faults import encoders, inputs, outputs, page, runs, stores
from faults.catalogue import FAULTS, Fault
from faults.fuzz import FUZZED
from faults.verdict import CRASHED, KINDS, SAFE, Verdict
from faults.workshop import Workshop
from melmask.files import read_lines, replace_lines

MODULES = (stores, runs, encoders, outputs, inputs)  # each has put its faults into the catalogue
GROUPS = {re.sub(r"\W+", "-", fault.group): fault.group for fault in FAULTS}
NUM_FUZZ = 10_000
QUICK_S, SLOW_S = 30.0, 240.0


class NoAnswer(Exception):
    """A fault was neither refused nor survived in time."""


def of_group(group: str) -> list[Fault]:
    """The faults of a group, by its name on the command line."""
    return [fault for fault in FAULTS if fault.group == GROUPS[group]]


def inject(faults: Sequence[Fault], shop: Workshop) -> Iterator[dict[str, Any]]:
    """Inject faults one after the other, each into fresh artefacts; a line of the results for each."""
    for fault in faults:
        started = time.monotonic()
        try:
            with at_most(SLOW_S if fault.is_slow else QUICK_S):
                verdict = fault.inject(shop.bench())
        except Exception:
            verdict = Verdict(CRASHED, traceback.format_exc(limit=-3))
        why = verdict.why.replace(str(shop.root), "…")
        why = why if verdict.kind != SAFE else why[:200]
        yield {
            "group": fault.group,
            "what": fault.what,
            "kind": verdict.kind,
            "why": why,
            "seconds": round(time.monotonic() - started, 2),
            "date": today(),
        }


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise `NoAnswer` in this thread if what is within has not ended by then."""

    def ring(number: int, frame: object) -> None:
        raise NoAnswer(f"no answer within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def today() -> str:
    """The date, in UTC."""
    return datetime.now(UTC).date().isoformat()


def run(groups: Sequence[str], work: Path, results: Path, num_fuzz: int, seed: int) -> None:
    """Run groups, and replace what the file of results has of each."""
    shop = Workshop(work / "shop")
    for group in groups:
        if group in FUZZED:
            lines = [fuzzed(group, FUZZED[group], shop, num_fuzz, seed)]
        else:
            lines = list(inject(of_group(group), shop))
        title = lines[0]["group"]
        kept = [line for line in page.kept(results) if line["group"] != title]
        replace_lines(results, [*kept, *lines], read_lines(results)[1])
        counts = Counter(kind for line in lines for kind in _kinds(line))
        print(f"{title}: " + ", ".join(f"{counts[kind]:,} {kind}" for kind in KINDS if counts[kind]), flush=True)


def _kinds(line: dict[str, Any]) -> Iterator[str]:
    counts = line.get("counts", {line.get("kind"): 1})
    for kind, count in counts.items():
        yield from [kind] * count


def fuzzed(group: str, fuzz: Callable[..., Any], shop: Workshop, num: int, seed: int) -> dict[str, Any]:
    """Fuzz one kind of file; a line of the results."""
    started = time.monotonic()
    counts, examples = fuzz(shop, num, seed)
    return {
        "group": group.replace("fuzz-", "fuzzed: ").replace("-", " "),
        "what": f"{num:,} mutations, seed {seed}",
        "num": num,
        "seed": seed,
        "counts": dict(counts),
        "kind": next((kind for kind in reversed(KINDS) if counts[kind]), SAFE),
        "why": " / ".join(examples[:5]),
        "seconds": round(time.monotonic() - started, 1),
        "date": today(),
    }
