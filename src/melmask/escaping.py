"""Names of files, classes and runs as text of each medium: a name is never a formula, markup or a command."""

import re
import unicodedata

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
FORMULA = re.compile(r"'*[=+\-@\t\r]")  # what a spreadsheet computes, or what `in_csv` made of it
MARKUP = re.compile(r"[\\`*|]|\](?=[(\[:])|(?<!\w)_|_(?!\w)")  # what is no link or within a word stays
JOINERS = "\u200c\u200d"  # invisible, but parts of words and of emoji


def in_csv(value: object) -> str:
    """A cell of a CSV table that no spreadsheet takes for a formula: one that begins with = + - @ gets an apostrophe.

    Numbers stay as they are. `from_csv` is the inverse.

    >>> in_csv("=1+1"), in_csv("-7.5"), in_csv("-a"), in_csv("it's"), in_csv(None)
    ("'=1+1", '-7.5', "'-a", "it's", '')
    """
    text = "" if value is None else str(value)
    return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text


def from_csv(cell: str) -> str:
    """What `in_csv` was given.

    >>> from_csv(in_csv("=1+1")), from_csv(in_csv("'=1+1")), from_csv("it's")
    ('=1+1', "'=1+1", "it's")
    """
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def in_parquet(text: str) -> str:
    r"""A text of a Parquet file, which must be UTF-8: bytes of a file's name that are none are written as in Python.

    >>> in_parquet("é\udcff")
    'é\\udcff'
    """
    return text.encode("utf-8", "backslashreplace").decode()


def in_markdown(text: str) -> str:
    r"""Text that Markdown shows as it is, in one line: its markup is escaped, and so is that of HTML.

    >>> print(in_markdown("a|b <script> *c* d_e [f](g)"))
    a\|b &lt;script> \*c\* d_e [f\](g)
    """
    text = re.sub(r"\s*[\r\n]+\s*", " ", text).replace("&", "&amp;").replace("<", "&lt;")
    return MARKUP.sub(lambda found: f"\\{found[0]}", text)


def in_latex(text: str) -> str:
    r"""Text that LaTeX sets as it is, in one line; the sign of a negative number is a minus.

    >>> print(in_latex("50 % of a_b & \\c, -1"))
    50 \% of a\_b \& \textbackslash{}c, $-$1
    """
    named = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "λ": r"$\lambda$"}
    named |= {char: f"\\{char}" for char in "&%$#_{}"} | {"−": "$-$", "–": "--"}
    text = "".join(named.get(char, char) for char in re.sub(r"\s*[\r\n]+\s*", " ", text))
    return re.sub(r"(?<!\S)-(?=\d)", "$-$", text)


def on_terminal(text: str, keep: str = "\n\t") -> str:
    r"""Text without the characters that a terminal obeys: control and direction characters, and bytes of no character.

    Args:
        text: any.
        keep: characters that stay all the same.

    >>> on_terminal("a\x1b]0;title\x07.wav"), on_terminal("a\nb", keep="")
    ('a\\x1b]0;title\\x07.wav', 'a\\nb')
    """
    if text.isprintable():  # most are
        return text
    return "".join(
        char.encode("unicode_escape").decode()
        if unicodedata.category(char) in ("Cc", "Cf", "Cs") and char not in keep + JOINERS
        else char
        for char in text
    )


def in_folder(name: str) -> str:
    """The last part of a name from outside, such as of an address, which leads nowhere else than into a folder.

    Raises:
        ValueError: there is no such part, or it is hidden or not printable.

    >>> in_folder("../../etc/passwd"), in_folder("a b.zip")
    ('passwd', 'a b.zip')
    """
    last = re.split(r"[/\\]", name)[-1]
    if not last or last.startswith(".") or not last.isprintable():
        raise ValueError(f"{name!r} is no name of a file in a folder: give the file another address")
    return last
