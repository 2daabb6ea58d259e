"""The pages of the documentation: every one that is named exists, and can be printed without a repository."""

import re
from pathlib import Path

import pytest

import melmask
from melmask.cli.main import main
from melmask.pages import OTHERS, pages, title_of, without_links
from unit.test_project import broken_links

SOURCE = Path(melmask.__file__).parent
NAMED = re.compile(r"melmask\s+docs\s+([a-z][a-z-]*)|\bdocs/(?:guides/)?([a-z-]+)\.md")


def test_every_page_that_the_package_names_exists_and_has_a_title():
    known, top = pages(), SOURCE.parents[1]
    assert set(known) >= {"readme", "stores", "predict", *map(str.lower, OTHERS)}
    assert len(known) == len({title_of(page) for page in known.values()})
    files = [*SOURCE.rglob("*.py"), *SOURCE.rglob("*.md"), *SOURCE.rglob("*.html")]
    named = {file: set(map("".join, NAMED.findall(file.read_text()))) for file in files}
    assert len(set().union(*named.values())) > 8
    for file, names in named.items():
        assert names <= set(known), f"{file} names {names - set(known)}"
    for file in sorted((SOURCE / "cli").glob("*.py")):  # who reads its messages may have the wheel alone
        told = re.sub(r"such as docs/stores\.md", "", file.read_text())
        assert not re.search(r"docs/\S+\.md|\b(README|LOG|SECURITY|CONTRIBUTING)\.md", told), file
    assert all(page.is_relative_to(top) for page in known.values())


def test_no_page_that_is_printed_leads_to_a_file(tmp_path):
    known = pages()
    for name, page in known.items():
        text = without_links(page, known)
        printed = tmp_path / f"{name}.md"
        printed.write_text(text)
        assert not broken_links(printed), name
        assert text.count("```") == page.read_text().count("```")
    page = tmp_path / "docs" / "one.md"
    page.parent.mkdir()
    page.write_text(
        "# One\n\n![A picture](a.png)\n\n*What it\nshows.*\n\nSee [docs/two.md](two.md#here), [the second](two.md) and "
        "[a/\\_b.py](../a/b.py), [this](#one) and [a paper](https://example.org/x).\n\n```\n[kept](two.md)\n```\n"
    )
    (page.parent / "two.md").write_text("# Two\n")
    assert without_links(page, pages(tmp_path)) == (
        "# One\n\nSee `melmask docs two`, the second (`melmask docs two`) and a/\\_b.py, this and "
        "[a paper](https://example.org/x).\n\n```\n[kept](two.md)\n```\n"
    )


def test_pages_are_listed_and_printed_by_name_or_file(capsys, monkeypatch):
    def printed(*arguments: str) -> str:
        main(["docs", *arguments])
        return capsys.readouterr().out

    listed = printed()
    assert all(f"│ {name} " in listed for name in pages()) and "next: melmask docs PAGE" in listed
    assert printed("stores").startswith("# Stores\n") and printed("docs/stores.md") == printed("stores")
    assert Path(printed("predict", "--path").strip()) == pages()["predict"]
    monkeypatch.setattr("melmask.cli.console.console._force_terminal", True)
    assert "┃" in printed("stores") or "─" in printed("stores")
    with pytest.raises(SystemExit):
        main(["docs", "storess"])
    assert "did you mean stores?" in capsys.readouterr().err
