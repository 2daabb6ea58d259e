"""The command docs: the pages of the documentation."""

from pathlib import Path
from typing import Annotated

from rich.markdown import Markdown
from rich.table import Table
from tyro.conf import Positional, arg

from melmask.cli.console import answer, console, named, print_next
from melmask.pages import pages, title_of, without_links
from melmask.registry import unknown

OptionalPage = Annotated[str | None, arg(metavar="PAGE", help_behavior_hint="(optional)")]


def docs(page: Positional[OptionalPage] = None, path: bool = False) -> None:
    """List the pages of the documentation, or print one.

    Example: melmask docs stores

    Args:
        page: the name of a page, or its file's, such as docs/stores.md; without it all are listed.
        path: print where the page lies instead.

    Raises:
        ValueError: there is no such page, or no page at all.
    """
    known = pages()
    if not known:
        raise ValueError("this installation has no pages of documentation: install melmask's wheel again")
    if page is None:
        table = Table(title="pages", title_justify="left")
        table.add_column("page", no_wrap=True)
        table.add_column("path" if path else "title", overflow="fold")
        for name, file in known.items():
            table.add_row(name, named(file if path else title_of(file)))
        console.print(table)
        answer["pages"] = {name: str(file) for name, file in known.items()}
        print_next("melmask", "docs", "PAGE")
        return
    name = Path(page).stem.lower()
    if name not in known:
        raise ValueError(unknown(page, known, "page"))
    answer.update(page=name, path=str(known[name]))
    if path:
        console.print(named(known[name]), soft_wrap=True)
        return
    answer["text"] = text = without_links(known[name], known)
    if console.is_terminal:
        console.print(Markdown(text, hyperlinks=False))
    else:
        console.print(text, markup=False, soft_wrap=True)
