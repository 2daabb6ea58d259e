"""The command line: which commands there are, and how a failure ends. The commands themselves are in `commands`."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro
from rich.console import Console
from rich.markup import escape

from melmask.cli import compare, demo, detect, embed, evaluate, finetune, mask, plan, prepare, pretrain, report, tasks
from melmask.cli.options import EXIT_INTERRUPTED, named_recipe

EXIT_BAD_INPUT = 2

DESCRIPTION = """Learn audio representations without labels by masked prediction on log-mel spectrograms.

The way: prepare a folder of recordings, pretrain an encoder, evaluate it on labelled tasks, write the report."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; bad input ends with one clear line and exit status 2 (the whole story with MELMASK_DEBUG=1)."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    commands: dict[str, Callable[..., Any]] = {
        "prepare": prepare.prepare,
        "pretrain": pretrain.pretrain_with(named_recipe(arguments)),
        "plan": plan.plan_with(named_recipe(arguments)),
        "embed": embed.embed,
        "evaluate": evaluate.evaluate,
        "detect": detect.detect,
        "compare": compare.compare,
        "finetune": finetune.finetune_with(named_recipe(arguments)),
        "tasks": tasks.tasks,
        "mask": mask.mask,
        "report": report.report,
        "demo": demo.demo,
    }
    try:
        tyro.extras.subcommand_cli_from_dict(commands, prog="melmask", description=DESCRIPTION, args=arguments)
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        if os.environ.get("MELMASK_DEBUG"):
            raise
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]melmask:[/] {escape(str(error))}")
        sys.exit(EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted")
        sys.exit(EXIT_INTERRUPTED)
