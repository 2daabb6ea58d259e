"""Names from outside reach CSV, Markdown, terminal and folders as text, whatever they hold."""

import csv
import io
from copy import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from melmask.cli import console, steps
from melmask.data.csv_table import read_csv
from melmask.data.download import Archive
from melmask.data.manifest import Rejected
from melmask.data.prepare import NothingUsable, prepare
from melmask.escaping import from_csv, in_csv, in_folder, in_markdown, on_terminal
from melmask.report.formats import csv_table, markdown_table

EVIL = "=HYPERLINK(1)|<script>alert(1)</script>[x](javascript:y)\x1b]0;title\x07\u202e`*_"


@given(st.text())
def test_a_cell_of_a_csv_is_read_back_and_never_a_formula(name):
    cell = in_csv(name)
    assert from_csv(cell) == name
    assert not cell.startswith(("=", "@", "\t", "\r")) and not (cell[:1] in ("+", "-") and cell[1:2].isalpha())


def test_tables_of_a_report_hold_names_as_text():
    rows = list(csv.reader(io.StringIO(csv_table(["run", "score"], [["=1+1", -0.5], ["@a", "-1e-3"]]))))
    assert rows[1:] == [["'=1+1", "-0.5"], ["'@a", "-1e-3"]]
    page = MarkdownIt("commonmark").enable("table").render(markdown_table([EVIL, "b"], [[EVIL, EVIL]], bold={(0, 1)}))
    assert "<script" not in page and "<a " not in page and "<em>" not in page and page.count("<td>") == 2
    assert page.count("&lt;script&gt;") == 3 and page.count("<strong>") == 1


@given(st.text())
def test_markdown_shows_the_text_itself(name):
    shown = MarkdownIt("commonmark").renderInline(in_markdown(f"a{name}b"))
    assert "<" not in shown


def test_a_manifest_that_was_written_by_melmask_is_read_with_its_names(tmp_path):
    (tmp_path / "a.csv").write_text("path,label\n'=a.wav,'@b\nc.wav,-1\n")
    assert [row for _, row in read_csv(tmp_path / "a.csv", ("path", "label")).rows] == [
        {"path": "=a.wav", "label": "@b"},
        {"path": "c.wav", "label": "-1"},
    ]


def test_the_list_of_rejected_files_holds_no_formula(tmp_path):
    (tmp_path / "=a").mkdir()
    (tmp_path / "=a" / "b.wav").write_text("no sound")
    with pytest.raises(NothingUsable):
        prepare([tmp_path / "=a"], tmp_path / "store", num_workers=0)
    assert (
        "'=a" in (tmp_path / "store" / "rejected.csv").read_text()
        and ",=a" not in (tmp_path / "store" / "rejected.csv").read_text()
    )


def test_no_text_on_the_terminal_is_obeyed_by_it(store, tmp_path, capsys):
    name = f"{EVIL}\udcff\nforged [/bold] line"
    with console.noted_bar(f"[/x] {name} {{task}}") as show:
        show(f"[/y] {name}", 1, 2)
    console.print_path(tmp_path / name)
    console.print_notes([name])
    of_one = copy(store)
    of_one.rejected = [Rejected(tmp_path / name, "silent")]
    console.console.print(steps.rejections_table(of_one.rejected))
    shown = capsys.readouterr().out
    assert not set(shown) & {"\x1b", "\x07", "\u202e", "\udcff"} and "\\x1b]0;title" in shown
    assert on_terminal("é \u4e00 👩\u200d🔬\n") == "é \u4e00 👩\u200d🔬\n"


def test_a_download_has_a_name_within_its_folder():
    assert Archive("https://x.org/a%2f..%2f..%2fetc%2fcron?x=1").name == "cron"
    assert Archive("https://x.org/a/b%20c.zip").name == "b c.zip" and in_folder("a\\b.zip") == "b.zip"
    for address in ("https://x.org/", "https://x.org/..", "https://x.org/%2e%2e", "https://x.org/a%00", "https://x/.b"):
        with pytest.raises(ValueError, match="no name of a file"):
            Archive(address).name  # noqa: B018
