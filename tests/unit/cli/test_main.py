"""The command line: help without heavy imports, unknown commands, and what a failure ends with."""

import inspect
import re
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

import pytest

import melmask.cli
from melmask.cli import main

HEAVY = ("torch", "numpy", "scipy", "matplotlib", "tyro", "rich", "jaxtyping")
NO_COMMANDS = {"__init__", "main", "console", "help", "options", "steps", "study_tables"}


def modules_after(code: str) -> tuple[str, set[str]]:
    """What a fresh interpreter prints for the code, and the packages that it has imported by then."""
    report = "import sys, atexit; atexit.register(lambda: print('imported:', *sys.modules, sep='\\n'))\n"
    ran = subprocess.run([sys.executable, "-c", report + code], capture_output=True, text=True, check=False)
    printed, _, modules = ran.stdout.partition("imported:\n")
    return printed + ran.stderr, {name.split(".")[0] for name in modules.split()}


@pytest.mark.parametrize(
    "code",
    [
        "import melmask",
        *(
            f"from melmask.cli.main import main; main({arguments})"
            for arguments in ([], ["--help"], ["-h"], ["--version"])
        ),
    ],
)
def test_the_package_its_help_and_its_version_import_nothing_heavy(code):
    _, packages = modules_after(code)
    assert "melmask" in packages and not packages & set(HEAVY)


def test_an_unknown_command_imports_only_what_prints_the_error():
    printed, packages = modules_after("from melmask.cli.main import main; main(['pretrian', 'store'])")
    assert "did you mean pretrain?" in printed and not packages & (set(HEAVY) - {"rich"})


@pytest.mark.parametrize("arguments", [["prepare", "--help"], ["report", "--help"], ["tasks"], ["demo", "--help"]])
def test_light_commands_do_without_torch(arguments):
    printed, packages = modules_after(f"from melmask.cli.main import main; main({arguments})")
    assert "melmask" in printed and not packages & {"torch", "scipy", "matplotlib"}


def test_every_module_is_a_command_with_the_help_that_the_list_shows():
    names = {path.stem for path in Path(melmask.cli.__file__).parent.glob("*.py")}
    assert names - NO_COMMANDS == set(map(main.in_python, main.COMMANDS))
    for name, text in main.COMMANDS.items():
        command = getattr(import_module(f"melmask.cli.{main.in_python(name)}"), main.in_python(name))
        assert inspect.getdoc(command).splitlines()[0] == text


def test_help_names_every_command_within_80_columns(capsys):
    main.main(["--help"])
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert re.findall(r"^  ([a-z]+) ", printed, re.MULTILINE) == list(main.COMMANDS)
    assert printed.startswith("Example: melmask embed ")


def test_the_version_is_that_of_the_package(capsys):
    main.main(["--version"])
    assert capsys.readouterr().out == f"melmask {metadata.version('melmask')}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: melmask COMMAND"),
        (["pretrian"], "no command 'pretrian': did you mean pretrain?"),
        (["xyz"], "no command 'xyz': `melmask --help` lists the commands"),
        (["pretrain", "store", "--out", "run", "--recipe", "none"], "--recipe"),
        (["pretrain", "store", "--out", "run", "--no-such-option"], "no option --no-such-option"),
        (["pretrain", "store", "--out", "run", "--strategi", "dwm"], "no option --strategi: did you mean --strategy?"),
        (["pretrain", "store", "--out", "run", "--strategy", "dwn"], "no masking strategy 'dwn': did you mean dwm?"),
        (
            ["pretrain", "store", "--out", "run", "--recipe", "tiny-m2"],
            "'tiny-m2': did you mean tiny-m2d? there are: micro",
        ),
        (["plan", "--clips", "3", "--device=h10"], "'h10': did you mean h100?"),
        (
            ["plan", "--clips", "x"],
            "Error parsing --clips: invalid literal for int() with base 10: 'x'\nsee `melmask plan",
        ),
        (["detect", "tiny"], "missing: --task TABLE"),
        (["tasks", "show", "esc5"], "'esc5': did you mean esc50?"),
        (["tasks", "make", "esc50", "f", "--uot", "x"], "no option --uot: did you mean --out?"),
        (["prepare", "nowhere", "--out", "store"], "nowhere"),
    ],
)
def test_bad_input_exits_with_2_and_says_why(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        main.main(arguments)
    printed = capsys.readouterr().err
    assert exit_.value.code == 2 and message in printed and "Traceback" not in printed and "╭" not in printed


def test_an_error_is_raised_for_who_debugs_and_an_interruption_exits_with_130(capsys, monkeypatch):
    monkeypatch.setenv("MELMASK_DEBUG", "1")
    with pytest.raises(ValueError, match="no command"):
        main.main(["pretrian"])

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "run", interrupt)
    with pytest.raises(SystemExit) as exit_:
        main.main(["demo"])
    assert exit_.value.code == 130 and capsys.readouterr().err == "melmask: interrupted\n"
