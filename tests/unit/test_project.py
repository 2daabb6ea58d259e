"""What the repository says in more than one place: versions, commands, links, dependencies and checks agree."""

import re
import tomllib
from functools import cache
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
TEMPLATES = sorted((ROOT / ".github").rglob("*.md"))

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def parsed(name: str) -> Any:
    """A YAML file of the repository."""
    return yaml.safe_load((ROOT / name).read_text())


@cache
def tokens_of(page: Path) -> list[Token]:
    """A page's Markdown tokens, those within lines and table cells included."""
    tokens = MarkdownIt("commonmark").enable("table").parse(page.read_text())
    return [inner for token in tokens for inner in (token, *(token.children or ()))]


def links_of(page: Path) -> list[str]:
    """Where a page's links lead and where its pictures lie."""
    attributes = (token.attrGet("href") or token.attrGet("src") for token in tokens_of(page))
    return [unquote(str(target)) for target in attributes if target]


@cache
def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings: lower case, no punctuation, hyphens for spaces."""
    tokens = tokens_of(page)
    titles = [text for token, text in pairwise(tokens) if token.type == "heading_open"]
    shown = ["".join(part.content for part in title.children or ()) for title in titles]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in shown}


def broken_links(page: Path) -> list[str]:
    """Relative links to a file that is not there, or to a heading that its page does not have."""
    broken = []
    for target in links_of(page):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors_of(file)):
            broken.append(target)
    return broken


def make_targets_in(page: Path) -> set[str]:
    """The targets of the `make` commands in a page's code."""
    code = [token.content for token in tokens_of(page) if token.type in ("fence", "code_block", "code_inline")]
    return {target for text in code for target in re.findall(r"^make ([a-z][\w-]*)", text, re.MULTILINE)}


def test_the_version_is_one():
    assert parsed("CITATION.cff")["version"] == PROJECT["version"] == metadata.version("melmask")


def test_the_citation_names_the_project_and_its_paper():
    citation = parsed("CITATION.cff")
    assert (citation["title"], citation["license"]) == (PROJECT["name"], PROJECT["license"])
    assert [reference["url"] for reference in citation["references"]] == [PROJECT["urls"]["Paper"]]


@by_page
def test_links_lead_somewhere(page):
    assert not broken_links(page)


@pytest.mark.parametrize("page", [*PAGES, *TEMPLATES], ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_named_in_a_page_exist(page):
    assert make_targets_in(page) <= set(re.findall(r"^([a-z][\w-]*):", MAKEFILE, re.MULTILINE))


def test_every_phony_target_exists_and_the_pages_name_the_main_ones():
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert set(phony.split()) == set(re.findall(r"^([a-z][\w-]*):", MAKEFILE, re.MULTILINE))
    named = set().union(*map(make_targets_in, PAGES[:2]))
    assert {"quickstart", "test", "test-slow", "lint", "format", "bench"} <= named


def test_a_broken_link_and_an_unknown_target_would_be_found(tmp_path):
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    other.write_text("## The `dwm` rule, λ\n\n```\n# no heading\n```\n")
    page.write_text(
        "[a](none.md) [b](other.md) [c](other.md#the-dwm-rule-λ) [d](other.md#no-heading) [e](#none) ![f](none.png)\n"
        "[g](https://example.org/none) `[h](code.md)`\n\n| `make nothing` | [i](absent) |\n| - | - |\n\n"
        "```\nmake none-such A=1\nmelmask tasks make esc50\n```\n"
    )
    assert broken_links(page) == ["none.md", "other.md#no-heading", "#none", "none.png", "absent"]
    assert make_targets_in(page) == {"nothing", "none-such"}


EXTRAS = PROJECT["optional-dependencies"]
RUN = [Requirement(line) for line in (*PROJECT["dependencies"], *EXTRAS["demo"], *EXTRAS["sklearn"])]
DEV = [Requirement(line) for line in EXTRAS["dev"]]


@cache
def pins_of(name: str) -> dict[str, Requirement]:
    """The packages that a file of requirements pins, by name."""
    lines = (ROOT / name).read_text().splitlines()
    pins = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    by_name = {canonicalize_name(pin.name): pin for pin in pins}
    assert len(by_name) == len(pins)
    return by_name


def needed(requirements: list[Requirement]) -> set[str]:
    """The names of all packages that requirements lead to on this machine, with the extras asked for."""
    asked: set[tuple[str, str]] = set()
    waiting = [one for one in requirements if one.marker is None or one.marker.evaluate()]
    while waiting:
        one = waiting.pop()
        new = {(canonicalize_name(one.name), extra) for extra in ("", *one.extras)} - asked
        asked |= new
        for name, extra in new:
            of = [Requirement(line) for line in metadata.requires(name) or ()]
            waiting += [one for one in of if one.marker is None or one.marker.evaluate({"extra": extra})]
    return {name for name, _ in asked}


@pytest.mark.parametrize("declared", [*RUN, *DEV], ids=lambda declared: canonicalize_name(declared.name))
def test_a_declared_dependency_is_pinned_within_its_range(declared):
    pins = pins_of("requirements.txt") | pins_of("requirements-dev.txt")
    pin = pins[canonicalize_name(declared.name)]
    versions = [part.version for part in pin.specifier if part.operator in ("==", ">=")]
    assert len(versions) == 1 and declared.specifier.contains(versions[0]), f"{pin} is not in {declared}"
    assert pin.marker == declared.marker


def test_the_quickstart_installs_all_that_it_needs():
    of_cuda = ("nvidia-", "cuda-", "triton")  # what torch brings with it where it is a build for GPUs
    assert {name for name in needed(RUN) if not name.startswith(of_cuda)} <= pins_of("requirements.txt").keys()
    assert not pins_of("requirements.txt").keys() & pins_of("requirements-dev.txt").keys()


def test_ci_runs_the_supported_pythons_and_the_same_checks_as_a_submission():
    (job,) = parsed(".github/workflows/ci.yml")["jobs"].values()
    supported = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert job["strategy"]["matrix"]["python-version"] == supported
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert {"make lint", "make test"} <= set(commands)


def test_the_pinned_packages_are_audited_where_there_is_a_network():
    (job,) = parsed(".github/workflows/audit.yml")["jobs"].values()
    (audit,) = [step["run"] for step in job["steps"] if "pip_audit" in step.get("run", "")]
    assert all(f"--requirement {name}" in audit for name in ("requirements.txt", "requirements-dev.txt"))
    assert "audit" not in (ROOT / ".ci/run").read_text()


def test_pre_commit_runs_the_tools_of_make_lint_offline():
    (repository,) = parsed(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    hooks = {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in repository["hooks"]}
    recipe = MAKEFILE.partition("\nlint: setup\n")[2].partition("\n\n")[0]
    assert hooks == set(re.findall(r"^\t\$\(BIN\)/(\S+)", recipe, re.MULTILINE))
    assert all(hook["language"] == "system" for hook in repository["hooks"])


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_an_issue_form_is_one_that_github_takes(name):
    form = parsed(f".github/ISSUE_TEMPLATE/{name}.yml")
    assert form["name"] and form["description"]
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids))
    for field in form["body"]:
        assert field["type"] in ("input", "textarea") and field["attributes"]["label"]
        assert set(field) <= {"type", "id", "attributes", "validations"}
