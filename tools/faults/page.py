"""docs/reliability.md, from the results that are kept."""

import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faults.verdict import KINDS, MEANING, SAFE, UNCLEAR
from melmask.files import read_lines

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results.jsonl", HERE.parents[1] / "docs" / "reliability.md"
WIDTH = 120
TEMPLATE = HERE / "template.md"


def kept(results: Path) -> list[dict[str, Any]]:
    """The lines of a file of results; none if there is no such file yet."""
    return read_lines(results)[0]


def bad(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The faults that lost data, gave a wrong result in silence, or crashed."""
    return [line for line in lines if line["kind"] not in (SAFE, UNCLEAR)]


def page(lines: Sequence[dict[str, Any]]) -> str:
    """The whole page."""
    text = TEMPLATE.read_text(encoding="utf-8")
    total = counts_of(lines)
    parts = {
        "verdict": _wrapped(_verdict(lines, total)),
        "table": table(lines),
        "meanings": "\n".join(f"- **{kind}**: {MEANING[kind]}." for kind in KINDS),
        "open": _open(lines),
        "faults": _faults(lines),
    }
    for name, part in parts.items():
        assert f"{{{{{name}}}}}" in text, f"the template has no place for {name}"
        text = text.replace(f"{{{{{name}}}}}", part)
    return text


def counts_of(lines: Sequence[dict[str, Any]]) -> Counter[str]:
    """How many faults became what."""
    counts = Counter[str]()
    for line in lines:
        counts.update(line.get("counts") or {line["kind"]: 1})
    return counts


def table(lines: Sequence[dict[str, Any]]) -> str:
    """A row for every group."""
    rows = [("group", "tried", *KINDS, "seconds", "date")]
    for group in dict.fromkeys(line["group"] for line in lines):
        own = [line for line in lines if line["group"] == group]
        counts = counts_of(own)
        seconds, date = sum(line["seconds"] for line in own), max(line["date"] for line in own)
        figures = (f"{counts.total():,}", *(f"{counts[kind]:,}" for kind in KINDS), f"{seconds:,.0f}", date)
        rows.append((group, *figures))
    total = counts_of(lines)
    rows.append(("**all**", f"{total.total():,}", *(f"{total[kind]:,}" for kind in KINDS), _seconds(lines), ""))
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|---|" + "---:|" * (len(rows[0]) - 2) + "---|", *body])


def _seconds(lines: Sequence[dict[str, Any]]) -> str:
    return f"{sum(line['seconds'] for line in lines):,.0f}"


def _verdict(lines: Sequence[dict[str, Any]], total: Counter[str]) -> str:
    single = [line for line in lines if "counts" not in line]
    num_fuzzed = sum(line["num"] for line in lines if "counts" in line)
    seeds = sorted({line["seed"] for line in lines if "counts" in line})
    lost = f"{total['lost']:,}" if total["lost"] else "none"
    return (
        f"{len(single):,} faults were injected, and {num_fuzzed:,} mutated files read (seed "
        f"{', '.join(map(str, seeds)) or 'none'}). **Lost: {lost}.** Wrong in silence: {total['wrong'] or 'none'}. "
        f"Crashed: {total['crashed'] or 'none'}. Refused by a message that lacks the file or the remedy: "
        f"{total[UNCLEAR] or 'none'}."
    )


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _open(lines: Sequence[dict[str, Any]]) -> str:
    """What is not safe, each with what was seen."""
    found = [line for line in lines if line["kind"] != SAFE]
    shown = [
        f"- {line['kind']}: {line['group']}: {_plain(line['what'])}: {_plain(line['why'])[-300:]}" for line in found
    ]
    return "\n".join(shown) or "Nothing is open: every fault was safe."


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("<", "&lt;").replace("|", "\\|").replace("[", "\\[").replace("*", "\\*")


def _faults(lines: Sequence[dict[str, Any]]) -> str:
    """The faults of each group, in words; those that differ in their last part together."""
    parts = []
    for group in dict.fromkeys(line["group"] for line in lines if "counts" not in line):
        cases: dict[str, list[str]] = {}
        for line in lines:
            if line["group"] == group:
                what, _, case = _plain(line["what"]).partition(": ")
                cases.setdefault(what, []).append(case)
        own = [what + (f" ({'; '.join(dict.fromkeys(of))})" if any(of) else "") for what, of in cases.items()]
        parts.append(_wrapped(f"**{group}.** " + ". ".join(f"{text[0].upper()}{text[1:]}" for text in own) + "."))
    return "\n\n".join(parts)
