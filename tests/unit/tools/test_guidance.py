"""The guidance: it is what the results in the repository give, and its sentences lead to their rows."""

import re
from pathlib import Path

import pytest
from guidance import text
from guidance.__main__ import draw
from guidance.found import read_found
from guidance.text import guidance, readme_section, with_section

from melmask.study.cost import MaskingCost
from melmask.study.shipped import STUDIES
from studies import write_study

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "studies" / "small"


def test_the_guidance_and_the_readme_are_what_the_results_give():
    found, readme = read_found(RESULTS), (ROOT / "README.md").read_text(encoding="utf-8")
    written = (ROOT / "docs" / "guidance.md").read_text(encoding="utf-8")
    assert written == guidance(found, RESULTS), "write it anew: make study-report"
    assert readme == with_section(readme, readme_section(found)), "write it anew: make study-report"


def rows_of(page: str) -> dict[tuple[str, str], list[str]]:
    """The other cells of the rows of all tables, by their first two."""
    rows = (line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| "))
    return {(name, group): cells for name, group, *cells in (row for row in rows if len(row) > 2)}


def test_sentences_lead_to_their_rows_and_what_is_missing_is_said(tmp_path, monkeypatch):
    costs = [MaskingCost(cell, 0, None, None, None, 100, 10, 1.0) for cell in STUDIES["small"].cells]
    monkeypatch.setattr(text, "masking_costs", lambda study, curves: costs)  # which takes seconds for the first time
    effects = {("dwm", "events"): 0.3, ("ibm", "events"): 0.3, ("ibm", "other"): -0.3, ("freq_profile", "events"): 0.3}
    write_study(STUDIES["small"], tmp_path, effects, num_clips=40, lacking=3, floors=True)
    found = read_found(tmp_path, num_draws=4000)
    assert found.ablations is None and found.small.num_complete == 45
    page = guidance(found, tmp_path)
    titles = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]*)\)", page)) <= anchors
    words = " ".join(page.split())
    assert "45 of 48 runs are there: an incomplete grid" in words and "`ablations`: not measured yet" in words
    assert "not measured yet: dwm-k1 against dwm (msm-mae, all tasks)" in words
    # What does not bear out a claim stands above the questions, and what does is not there.
    against, questions = (rows_of(part) for part in page.partition("## Questions")[::2])
    assert against["dwm is better than freq_profile, event tasks (our hope)", "m2d"][-1] == "equivalent"
    assert ("dwm is better than random, event tasks (the paper)", "msm-mae") not in against
    assert ("ibm is worse than random, other tasks (the paper)", "m2d") not in against
    above = " ".join(page.partition("## Questions")[0].split())
    assert "m2d with random masking against untrained encoder, ridge: not clearly above it: 0.0 points" in above
    row = questions["dwm − random, event tasks", "msm-mae"]
    assert row[0] == "[+30.0](#small-msm-mae-minus-random)" and row[-1] == "[better](guidance/trade-off.png)"
    # The advice: effects on events and others of ibm cancel; those of dwm and freq_profile on events do not.
    short = " ".join(page.partition("## What there is")[0].split())
    assert re.search(r"Over all tasks, choose msm-mae (dwm|freq_profile) \(\+5\.0 points, ", short)
    assert "45 of 48 runs are there, and it may change" in short
    assert re.search(r"Event tasks: [^;]*\. Shown to be better: [^;]*\bibm in m2d \(\+30\.0, ", short)
    assert re.search(
        r"Other tasks: [^;]*\. Shown to be better: none; shown to be worse: ibm in msm-mae \(-30\.0, ", short
    )
    assert "Not varied within a group, not measured yet: patch shape, training time" in words
    row = next(line for line in readme_section(found).splitlines() if line.startswith("| ibm |"))
    assert row.count("**+30.0**") == row.count("**-30.0**") == 2
    assert max(len(line) for line in page.splitlines() if not line.startswith(("|", "!", "  ", "-"))) <= 120
    with pytest.raises(ValueError, match="no place"):
        with_section("a page", "a table")
    for path in draw(found, tmp_path / "guidance"):
        assert path.stat().st_size > 1000


def test_the_short_answer_tells_the_range_of_the_ablations(tmp_path, monkeypatch):
    costs = [MaskingCost(cell, 0, None, None, None, 100, 10, 1.0) for cell in STUDIES["small"].cells]
    monkeypatch.setattr(text, "masking_costs", lambda study, curves: costs)
    effects = {("dwm-k8", "events"): -0.4, ("dwm-k8", "other"): -0.4, ("ibm-guidance-0.2", "events"): 0.3}
    write_study(STUDIES["ablations"], tmp_path, effects, num_clips=40, lacking=1)
    page = guidance(read_found(tmp_path, num_draws=2000), tmp_path)
    short = " ".join(page.partition("## What there is")[0].split())
    schedules, matched = re.findall(r"- ((?:Other schedules|Strategies with) .*?) runs are there", short)
    assert re.match(r"Other schedules and statistics of dwm, minus dwm, all tasks: differences of -\d", schedules)
    assert "(dwm-k8 in msm-mae) to " in schedules and "shown to be worse: dwm-k8 in msm-mae (-" in schedules
    assert "to +5.0 (ibm-guidance-0.2 in msm-mae) points" in matched and matched.endswith("that is: 41 of 42")
