"""The command line: which commands there are, and how a failure ends.

Only the called command's module is imported, so that help and errors come at once: nothing here may import torch.
"""

import os
import sys
import warnings
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from keyword import iskeyword
from pathlib import Path
from typing import Any

from melmask.escaping import on_terminal
from melmask.registry import nearest

EXIT_BAD_INPUT, EXIT_LEFT_OUT, EXIT_INTERRUPTED = 2, 3, 130

# Each is the function of that name in the module of that name (`in_python`); this is the first line of its docstring.
COMMANDS = {
    "prepare": "Turn recordings into a packed store of log-mel spectrograms.",
    "pretrain": "Train an encoder on a store, by a recipe with any setting changed.",
    "import": "Make a run folder of weights that others published.",
    "plan": "Estimate the time, memory and operations of a training run.",
    "embed": "Write embeddings of recordings to an .npz or Parquet file.",
    "index": "Make an index of recordings to search, or add new ones to it.",
    "search": "Find the windows of a collection most similar to a recording.",
    "map": "Draw a map of a collection, in which a click plays the sound.",
    "novelty": "Find recordings that differ from known good ones, as of a machine.",
    "evaluate": "Evaluate encoders on labelled tasks by probes, beside baselines.",
    "compare": "Compare two encoders on the same clips, with paired intervals.",
    "finetune": "Fine-tune an encoder on a labelled task.",
    "predict": "Apply a trained classifier or event detector to recordings.",
    "detect": "Detect events with a frozen encoder and a probe of its time steps.",
    "check": "Check the health of stores, runs, models, studies and indexes.",
    "report": "Write an HTML report about one or more runs.",
    "study": "Run a grid of recipes, seeds and tasks, and say what it shows.",
    "mask": "Plot a spectrogram, and what masking strategies mask of it.",
    "tasks": "List public evaluation tasks, and make their tables.",
    "demo": "Make the built-in corpus, or a store of procedural sound.",
    "docs": "List the pages of the documentation, or print one.",
}
# Commands whose settings start from a named recipe, and the module and dict that hold their recipes.
RECIPES = {
    "pretrain": ("melmask.train.recipe", "RECIPES"),
    "plan": ("melmask.train.recipe", "RECIPES"),
    "finetune": ("melmask.finetune.recipe", "FINETUNE_RECIPES"),
}
# Those of them whose recipes depend on other options too, and the module and function that makes one of them all.
CHOSEN: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "pretrain": ("melmask.train.paper", "named_recipe", ("strategy", "variant")),
    "plan": ("melmask.train.paper", "named_recipe", ("strategy", "variant")),
}
# Those that resume a run with its own recipe, and the module and function that reads it.
RESUMED = {"pretrain": ("melmask.train.run_folder", "own_recipe")}
HELP = """\
Example: melmask embed my.wav

Learn audio representations without labels, by masked prediction on log-mel
spectrograms: prepare a folder of recordings, pretrain an encoder, evaluate it
on labelled tasks, write the report.

usage: melmask COMMAND [OPTIONS]

{commands}

  --help        this help; of a command, behind it: what fits a screen
  --help-all    behind a command: every option at length
  --json        behind a command: print the answer as one JSON object
  --completion  bash, zsh, tcsh or fish: print a completion script for it
  --version     show the version

Every page of the documentation: melmask docs

Exit status: 0 done; 1 of check: something is damaged; 2 bad input; 3 done, but
recordings were left out, and the last lines say how many and where they are
listed; 130 interrupted.
"""
COMPLETION, SHELLS = "--completion", ("bash", "zsh", "tcsh", "fish")
JSON = "--json"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; bad input ends with one clear line and exit status 2 (a traceback with MELMASK_DEBUG=1).

    A command that did its work but had to leave recordings out says where they are listed, and ends with status 3.

    Args:
        arguments: the command and its options; None for those of the process.

    Raises:
        SystemExit: the input is bad, recordings were left out, a run was interrupted, or help was asked for.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments:
        print(help_text(), file=sys.stderr, end="")
        sys.exit(EXIT_BAD_INPUT)
    name, *rest = arguments
    if name in ("-h", "--help", "--help-all"):
        print(help_text(), end="")
        return
    if name == "--version":
        from importlib.metadata import version

        print(f"melmask {version('melmask')}")
        return
    if JSON in arguments:
        sys.exit(_run_for_programs(name, [argument for argument in rest if argument != JSON]))
    status, error = _run(name, rest)
    if error:
        _print_error(error)
    if status:
        sys.exit(status)


@contextmanager
def _warnings_as_notes() -> Iterator[None]:
    """Show what the library warns of as a line for people, without the place in its source."""
    before = warnings.formatwarning

    def shown(message: Warning | str, category: type[Warning], *place: Any) -> str:
        if category is UserWarning:
            return f"melmask: note: {on_terminal(str(message))}\n"
        return before(message, category, *place)

    warnings.formatwarning = shown  # type: ignore[assignment]
    try:
        yield
    finally:
        warnings.formatwarning = before


def _run(name: str, arguments: Sequence[str]) -> tuple[int, str]:
    """Run a command to its end; its exit status, and what went wrong."""
    try:
        with _warnings_as_notes():
            if name == COMPLETION:
                print_completion(arguments)
            else:
                run(name, arguments)
    except BrokenPipeError:  # nobody reads the output any more, as behind `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_INTERRUPTED, ""
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        if os.environ.get("MELMASK_DEBUG"):
            raise
        return EXIT_BAD_INPUT, str(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED, "interrupted"
    except SystemExit as exit_:
        return int(exit_.code or 0), ""
    return 0, ""


def _run_for_programs(name: str, arguments: Sequence[str]) -> int:
    """Run a command and print its answer as one JSON object; its exit status."""
    from melmask.cli import console

    console.start_answer()
    status, error = _run(name, arguments)
    console.print_answer(status, error)
    return status


def help_text() -> str:
    """What `melmask --help` prints: all commands, a line each."""
    width = max(map(len, COMMANDS))
    return HELP.format(commands="\n".join(f"  {name:{width}}  {text}" for name, text in COMMANDS.items()))


def run(name: str, arguments: Sequence[str]) -> None:
    """Import one command and call it with its options parsed.

    Raises:
        ValueError: there is no such command, or it finds a fault in its input.
    """
    if name not in COMMANDS:
        raise ValueError(f"no command {name!r}{nearest(name, COMMANDS) or ':'} `melmask --help` lists the commands")
    from melmask.cli import help

    if help.is_asked(arguments):
        command, docstring = _with_recipe(name, arguments)
        print(help.help_of(command, name, arguments, docstring), end="")
        return
    from melmask.cli.console import starting

    with starting(name):
        command, _ = _with_recipe(name, arguments)
    warn_of_programs(arguments)
    help.parsed(command, name, arguments)()


def _with_recipe(name: str, arguments: Sequence[str]) -> tuple[Callable[..., None], str]:
    """A command's function, with the settings of the recipe that is named as its defaults; and its docstring."""
    command = function_of(name)
    return from_recipe(command, name, arguments) if name in RECIPES else command, command.__doc__ or ""


def print_completion(arguments: Sequence[str]) -> None:
    """Print the script that completes commands and options in a shell.

    Raises:
        ValueError: no shell is named, or one that has none.
    """
    (shell,) = arguments if len(arguments) == 1 else ("",)
    if shell not in SHELLS:
        raise ValueError(f"{COMPLETION} {shell}: name one shell of {', '.join(SHELLS)}")
    from tyro.extras import subcommand_cli_from_dict

    commands = {name: function_of(name) for name in COMMANDS}
    subcommand_cli_from_dict(commands, prog="melmask", args=["--tyro-print-completion", shell])


def function_of(name: str) -> Callable[..., None]:
    """A command's function."""
    return getattr(import_module(f"melmask.cli.{in_python(name)}"), in_python(name))


def warn_of_programs(arguments: Sequence[str]) -> None:
    """Say of HEAR modules among the arguments that they are programs, once for each."""
    for name in dict.fromkeys(argument for argument in arguments if argument.startswith("hear:")):
        from melmask.cli.console import print_notes

        print_notes([f"{name} is a program: its module is imported, and runs with your rights (melmask docs security)"])


def in_python(name: str) -> str:
    """The name of a command's module and function: its own, or with a ``_`` where Python has reserved it.

    >>> in_python("import"), in_python("plan")
    ('import_', 'plan')
    """
    return f"{name}_" if iskeyword(name) else name


def from_recipe(command: Callable[..., None], name: str, arguments: Sequence[str]) -> Callable[..., None]:
    """The command of that name, with the settings of the recipe that ``arguments`` name as its defaults.

    Those of a run that is resumed are the run's own, unless a recipe is named. The recipe is found before the arguments
    are parsed, so that --help shows its settings. A name that is no recipe's changes nothing here, and is refused when
    they are parsed.

    Raises:
        ValueError: options that choose a recipe contradict each other.
    """
    module, recipes = RECIPES[name]
    known: Mapping[str, Any] = getattr(import_module(module), recipes)
    module, function, options = CHOSEN.get(name, ("", "", ()))
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    for option in ("recipe", *options):
        parser.add_argument(f"--{option}", nargs="?")
    parser.add_argument("--out", nargs="?")
    parser.add_argument("--resume", action="store_true")
    given = vars(parser.parse_known_args(arguments)[0])
    recipe, out, resume = (given.pop(option) for option in ("recipe", "out", "resume"))
    if resume and out and recipe is None and name in RESUMED:
        module, function = RESUMED[name]
        own = getattr(import_module(module), function)(Path(out))
        return command if own is None else partial(command, settings=own)
    if recipe not in known:
        return command
    settings = getattr(import_module(module), function)(recipe, **given) if function else known[recipe]
    return partial(command, settings=settings)


def _print_error(message: str) -> None:
    from rich.markup import escape

    from melmask.cli.console import SafeConsole

    SafeConsole(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]melmask:[/] {escape(message)}")
