"""Help of commands: what fits a screen, or all of it; and in one line what is wrong with the arguments of a call.

All of it is read from the command's function, by tyro: a command needs no more than its docstring.
"""

import os
import re
import textwrap
import warnings
from argparse import PARSER
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import cached_property, partial, wraps
from importlib import import_module
from io import StringIO
from typing import Any

from melmask.registry import nearest, unknown

SCREEN_LINES, SCREEN_COLUMNS = 40, 80
SHORT_LINES = 2  # of an argument's text in the short help
INDENT, TEXT_COLUMN = 2, 26
FULL, JSON = "--help-all", "--json"
# Options whose values are names, and the module and dict that hold them.
NAMES = {
    "--strategy": ("melmask.masking", "STRATEGIES"),
    "--strategies": ("melmask.masking", "STRATEGIES"),
    "--probe": ("melmask.probes", "PROBES"),
    "--log-to": ("melmask.callbacks", "LOGGERS"),
    "--framework": ("melmask.frameworks", "FRAMEWORKS"),
    "--size": ("melmask.nn.vit", "SIZES"),
}
FIRST = ("--out", "--recipe", "--strategy", "--strategies", "--probe")  # in the short help, after what must be given
REGISTERED = re.compile(r",?( a)? names? in `melmask[\w.]+`(, or \"?package\.module:Class\"?)?")
FOOTER = (
    f"{JSON} prints the answer for programs; exit status and shell completion: `melmask --help`. "
    "Every option at length: `{command} " + FULL + "`."
)
BOX = re.compile(r"^[╭╰│+|]|[│╮╯+|]$")  # around what tyro says; in ASCII where the terminal has no more


@dataclass(frozen=True)
class Argument:
    """An argument of a command, as help shows it."""

    action: Any  # of argparse, of which tyro has a copy

    @property
    def flags(self) -> Sequence[str]:
        """What it is called on the command line; nothing for one that is known by its place."""
        return self.action.option_strings

    @cached_property
    def names(self) -> list[str]:
        """The values it takes, where they are names."""
        for flag in self.flags:
            if flag in NAMES:
                module, registered = NAMES[flag]
                return list(getattr(import_module(module), registered))
        names = [str(name) for name in self.action.choices or ()]
        return sorted(name for name in names if name != "None") if "None" in names else names  # else in their own order

    @property
    def is_required(self) -> bool:
        """Whether a call must give it."""
        return self.action.required or "(required" in (self.action.help or "")

    @property
    def rank(self) -> int:
        """Its place in help: what a call must give, then what is chosen by name, then the rest in their order."""
        return 0 if not self.flags or self.is_required else 1 if self.flags[0] in FIRST else 2

    @property
    def called(self) -> str:
        """Its name and the form of its value: ``--out FILE``."""
        if not self.flags:
            return self.form
        if self.action.nargs == 0:
            return re.sub("^--", "--[no-]", self.flags[0]) if len(self.flags) > 1 else self.flags[0]
        return f"{self.flags[0]} {self.form}"

    @property
    def form(self) -> str:
        """The form of its value: FILE, INT, auto|last|all|INT ..."""
        if self.flags and (self.flags[0] in NAMES or len("|".join(self.names)) > SCREEN_COLUMNS // 2):
            return "NAME ..." if self.action.nargs == "*" else "NAME"
        form = re.sub(r"\{None\}\||\|\{None\}", "", str(self.action.metavar or self.action.dest))
        form = re.sub(r"\{\[(\S+) \[\1 \.\.\.\]\]\}", r"\1 ...", re.sub(r"(\S+) \[\1 \.\.\.\]", r"\1 ...", form))
        form = re.sub(r"\{\[(\S+ \.\.\.)\]\}", r"\1", form)
        return re.sub(r"\{([^{}]*)\}", lambda found: found[1].replace(",", "|"), form)

    def text(self, full: bool) -> str:
        """What it means; the short text is its first clause, and what it is by default."""
        help_ = REGISTERED.sub("", " ".join((self.action.help or "").split()))
        meaning, default = re.fullmatch(r"(.*?)\s*(\([^()]*(?:\([^()]*\)[^()]*)*\))?", help_).groups()  # type: ignore[union-attr]
        if default in ("(optional)", "(required)", "(default: None)", "(default: False)", "(default: )"):
            default = ""
        if full:
            return f"{meaning} {default or ''}".strip()
        meaning = re.sub(r" ?\(`melmask\.[\w.]+`\)", "", meaning)  # where Python has it
        clause = re.split(r"(?<=\w)[;.:](?: |$)", meaning, maxsplit=1)[0]
        return f"{clause} {default or ''}".strip()

    def lines(self, full: bool) -> list[str]:
        """Its entry in the list of arguments."""
        width = SCREEN_COLUMNS - TEXT_COLUMN
        text = textwrap.wrap(self.text(full), width, break_on_hyphens=False)
        if not full and len(text) > SHORT_LINES:
            text = textwrap.wrap(self.text(full), width, max_lines=SHORT_LINES, placeholder=" ...")
        if self.names and self.form.startswith("NAME"):
            own = ["or package.module:Class"] if full and self.flags[0] in NAMES and self.flags[0] != "--size" else []
            text += textwrap.wrap(", ".join([*self.names, *own]), width, break_on_hyphens=False)
        head = " " * INDENT + self.called
        if len(head) >= TEXT_COLUMN:
            heads = textwrap.wrap(head, SCREEN_COLUMNS, subsequent_indent=" " * 2 * INDENT, break_on_hyphens=False)
            return [*heads, *(" " * TEXT_COLUMN + line for line in text)]
        first, *rest = text or [""]
        return [f"{head:{TEXT_COLUMN}}{first}".rstrip(), *(" " * TEXT_COLUMN + line for line in rest)]


def example_of(name: str, docstring: str) -> str:
    """The call that a docstring gives as an example; "" if it gives none.

    >>> example_of("embed", "Write embeddings.\\n\\n    Example: melmask embed my.wav\\n")
    'melmask embed my.wav'
    """
    found = re.search(rf"^\s*(?:Example: *|\$ *)?`*(melmask {re.escape(name)}\b[^`\n]*)", docstring, re.MULTILINE)
    return found[1].strip() if found else ""


def help_of(command: Callable[..., object], name: str, arguments: Sequence[str], docstring: str) -> str:
    """Help of a command, on a screen of 40 lines and 80 columns, or with ``--help-all`` at any length.

    Args:
        command: its function, perhaps with other defaults.
        name: what it is called.
        arguments: of the call; they may choose one part of a command of several, as of ``melmask tasks``.
        docstring: of the function: what it does, and the example.
    """
    full = FULL in arguments
    parser, name = _chosen(parser_of(command, name), name, arguments)
    about = parser.description or "" if " " in name else docstring
    example = example_of(name, about) or example_of(name, docstring)
    shown, *more = [part for part in _paragraphs(about) if not example_of(name, part)]
    top = [f"Example: {example}", ""] if example else []
    top += [*_wrapped(shown), ""]
    for part in more if full else ():
        top += [*_wrapped(part), ""]
    found, parts = _arguments_of(parser)
    required = " ".join(one.called for one in found if one.is_required or not one.flags)
    usage = f"usage: melmask {name}" + (f" {{{','.join(parts)}}}" if parts else "") + f" {required} [OPTIONS]"
    top += [*textwrap.wrap(re.sub(" +", " ", usage), SCREEN_COLUMNS, subsequent_indent="    "), ""]
    for part, text in parts.items():
        top += textwrap.wrap(f"  {part:8}{text}", SCREEN_COLUMNS, subsequent_indent=" " * 10)
    foot = ["", *_wrapped(FOOTER.format(command=f"melmask {name}"))]
    ranked = found if full else sorted(found, key=lambda one: one.rank)
    for num_shown in range(len(ranked), -1, -1):
        listed = [line for one in ranked[:num_shown] for line in one.lines(full)]
        rest = " ".join(one.called.split()[0] for one in ranked[num_shown:])
        left = ["", *textwrap.wrap(f"Also: {rest}", SCREEN_COLUMNS, break_on_hyphens=False)] if rest else []
        lines = [*top, *listed, *left, *foot]
        if full or len(lines) <= SCREEN_LINES:
            break
    return "\n".join(lines) + "\n"


def parser_of(command: Callable[..., object], name: str) -> Any:
    """The command's arguments."""
    from tyro.extras import get_parser

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return get_parser(command, prog=f"melmask {name}")


def parsed(command: Callable[..., None], name: str, arguments: Sequence[str]) -> Callable[[], None]:
    """The command with its arguments, ready to be called.

    Raises:
        ValueError: something is wrong with the arguments; it says what, and what may have been meant.
    """
    import tyro

    @wraps(command)
    def later(*given: object, **named: object) -> Callable[[], None]:
        return partial(command, *given, **named)

    said = StringIO()
    try:
        with _unwrapped(), redirect_stderr(said):
            return tyro.cli(later, prog=f"melmask {name}", args=list(arguments))
    except SystemExit as exit_:
        if not exit_.code:  # what tyro itself was asked to print
            raise
    parser, name = _chosen(parser_of(command, name), name, arguments)
    fault = _typo(parser, arguments) or _said(said.getvalue())
    raise ValueError(f"{fault}\nsee `melmask {name} --help`")


@contextmanager
def _unwrapped() -> Iterator[None]:
    """A terminal so wide that no message is broken into lines."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100000"
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def _said(printed: str) -> str:
    """What tyro says is wrong, without its box and its hints at help."""
    lines = [BOX.sub("", line.strip()).strip() for line in printed.splitlines()]
    _title, *body = [line for line in lines if line.strip("-─")]
    end = next((i for i, line in enumerate(body) if re.match("For full helptext|Argument helptext", line)), None)
    said = re.sub(r"^Missing from .*?:", "missing:", " ".join(body[:end]))
    return re.sub(r"^Error parsing \w+: ", "", said)  # of a group of options, whose name is nothing that is typed


def _typo(parser: Any, arguments: Iterable[str]) -> str:
    """The first option that does not exist, or name that an option does not take, with what may be meant."""
    found = {flag: one for one in _arguments_of(parser)[0] for flag in one.flags}
    words = [
        word for argument in arguments for word in (argument.split("=", 1) if argument[:2] == "--" else [argument])
    ]
    for word, value in zip(words, [*words[1:], ""], strict=True):
        if word[:2] != "--" or word == "--":
            continue
        option = found.get(word.replace("_", "-"))
        if option is None:
            return f"no option {word}{nearest(word, found)}"
        if option.action.choices and value not in option.names:
            return unknown(value, option.names, word)
    return ""


def _chosen(parser: Any, name: str, arguments: Iterable[str]) -> tuple[Any, str]:
    """Of a command of several parts the one that the arguments name, with its name; else the command's own."""
    for action in parser._actions:
        if action.nargs == PARSER:
            for argument in arguments:
                if argument in action.choices:
                    return action.choices[argument], f"{name} {argument}"
    return parser, name


def _arguments_of(parser: Any) -> tuple[list[Argument], dict[str, str]]:
    """A parser's arguments without its help, and of a command of several parts their names with what they do."""
    parts = {}
    for action in parser._actions:
        if action.nargs == PARSER:
            parts = {name: str(one.description) for name, one in action.choices.items()}
    shown = [Argument(action) for action in parser._actions if action.dest != "help" and action.nargs != PARSER]
    return shown, parts


def _paragraphs(docstring: str) -> list[str]:
    """The paragraphs above the arguments."""
    above = re.split(r"^\s*(?:Args|Raises|Returns):$", docstring, maxsplit=1, flags=re.MULTILINE)[0]
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", above) if part.strip()]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, SCREEN_COLUMNS, break_on_hyphens=False)


def is_asked(arguments: Sequence[str]) -> bool:
    """Whether the arguments ask for help."""
    return any(argument in ("-h", "--help", FULL) for argument in arguments)
