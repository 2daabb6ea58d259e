"""The pages of the documentation: of a wheel within the package, of a checkout where they lie in the repository.

The build of the wheel reads this file too (tools/wheel.py), so that nothing here imports a package.
"""

import re
from pathlib import Path
from urllib.parse import unquote

SHIPPED = Path(__file__).parent / "documentation"  # in the wheel, laid out as the repository is
OTHERS = ("CONTRIBUTING", "SECURITY", "CHANGELOG", "LOG")  # behind the README and the pages of docs
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\\[\[\]])*)\]\(([^()\s]+)\)")
FENCED = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
PICTURE = re.compile(r"^!\[[^\n]*\]\((?![a-z]+:)[^\n]*\)\n(?:\n\*[^*].*?\*\n(?=\n))?", re.DOTALL | re.MULTILINE)


def pages(top: Path | None = None) -> dict[str, Path]:
    """The pages by their names: ``stores`` is docs/stores.md, ``predict`` docs/guides/predict.md.

    Args:
        top: the folder that holds README.md and docs; None for that of this installation.
    """
    top = top or (SHIPPED if SHIPPED.is_dir() else SHIPPED.parents[2])
    docs = top / "docs"
    found = [top / "README.md", *sorted(docs.glob("*.md")), *sorted(docs.glob("guides/*.md"))]
    return {path.stem.lower(): path for path in (*found, *(top / f"{name}.md" for name in OTHERS)) if path.is_file()}


def title_of(page: Path) -> str:
    """The title of a page: its first heading."""
    heading = re.search(r"^# (.*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    return heading[1] if heading else page.stem


def without_links(page: Path, known: dict[str, Path]) -> str:
    """A page for who has no files beside it: links to other pages name the command that prints them.

    Pictures of the repository are left out with their captions, and of links to its other files the text stays.

    Args:
        page: the page.
        known: see `pages`.
    """
    names = {path.resolve(): name for name, path in known.items()}

    def shown(link: re.Match[str]) -> str:
        picture, text, target = link.groups()
        if re.match("[a-z]+:", target):
            return link[0]
        path, _, _ = unquote(target).partition("#")
        name = names.get((page.parent / path).resolve()) if path else None
        if picture or name is None:
            return text
        command = f"`melmask docs {name}`"
        return command if text.endswith(".md") else f"{text} ({command})"

    parts = FENCED.split(page.read_text(encoding="utf-8"))
    return "".join(
        part if FENCED.fullmatch(part) else LINK.sub(shown, re.sub(r"\n{3,}", "\n\n", PICTURE.sub("", part)))
        for part in parts
    )
