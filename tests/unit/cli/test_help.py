"""Help of every command: on one screen, with a call that is right; and answers for programs."""

import functools
import json
import os
import re
import shlex
import shutil
import subprocess

import pytest

import melmask.cli.tasks as tasks_command
from melmask.cli import help, main
from melmask.masking import STRATEGIES
from melmask.probes import PROBES
from melmask.train.recipe import RECIPES

PARTS = {"tasks": ("list", "show", "make"), "study": ("plan", "run", "analyse", "report", "power")}
CALLS = [(name, *part) for name in main.COMMANDS for part in ((), *((one,) for one in PARTS.get(name, ())))]


def printed(capsys, *arguments: str) -> str:
    main.main(list(arguments))
    return capsys.readouterr().out


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_help_fits_a_screen_and_begins_with_a_call_that_is_right(call, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")  # whatever the terminal
    shown = printed(capsys, *call, "--help")
    lines = shown.splitlines()
    name = call[0]
    assert len(lines) <= 40 and max(map(len, lines)) <= 80 and f"usage: melmask {' '.join(call)} " in shown
    assert not set("╭│{}") & set(shown.replace(f"{{{','.join(PARTS.get(name, ()))}}}", "")) and "`melmask." not in shown
    first = re.match(r"Example: (melmask .*)\n", shown)
    assert first, f"{call}: the docstring's second line is no example"
    _, name, *arguments = shlex.split(first[1])
    command = main.function_of(name)
    stub = functools.wraps(command)(lambda *given, **named: None)
    assert help.parsed(stub, name, arguments)() is None


def test_help_all_shows_every_option_of_a_recipe_at_length_and_the_short_help_names_it(capsys):
    short, whole = (printed(capsys, "pretrain", "--recipe", "base-m2d", asked) for asked in ("--help", "--help-all"))
    for name in (*STRATEGIES, *RECIPES):
        assert re.search(rf"[ ,]{name}[,\n]", short) and re.search(rf"[ ,]{name}[,\n]", whole)
    options = re.findall(r"^  (--\S+)", whole, re.MULTILINE)
    assert len(options) > 45 and all(option in short for option in options)
    assert re.search(rf"--batch-size INT [^(]*\(default: {RECIPES['base-m2d'].batch_size}\)", whole)
    assert "whole batches only" in whole and "whole batches only" not in short
    assert max(map(len, whole.splitlines())) <= 80
    assert all(re.search(rf"[ ,]{name}[,\n]", printed(capsys, "evaluate", "-h")) for name in PROBES)


def test_an_answer_for_programs_is_all_that_the_standard_output_holds(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["melmask", "tasks"])
    for arguments, status in ((["tasks", "--json"], 0), (["evaluate", "--json", "nowhere", "--task", "none.csv"], 2)):
        with pytest.raises(SystemExit) as exit_:
            main.main(arguments)
        out, err = capsys.readouterr()
        answer = json.loads(out)
        assert exit_.value.code == answer["status"] == status and err.count("{") == 0
        if status:
            assert "nowhere" in answer["error"]
        else:
            assert [task["name"] for task in answer["tasks"]] == list(tasks_command.DATASETS)
            assert answer["next"] == "melmask tasks show esc50" and "next: melmask tasks show esc50" in err
    main.main(["tasks"])
    assert "esc50" in capsys.readouterr().out  # later calls print as before


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash to complete in")
def test_bash_completes_commands_options_and_names(capsys, tmp_path):
    with pytest.raises(SystemExit) as exit_:
        main.main(["--completion", "ksh"])
    assert exit_.value.code == 2 and "bash, zsh, tcsh, fish" in capsys.readouterr().err
    script = tmp_path / "melmask.bash"
    script.write_text(printed(capsys, "--completion", "bash"))
    calls = {
        "pre": "predict prepare pretrain",
        "evaluate --prot": "--protocol",
        "pretrain --recipe tiny-": "tiny-m2d tiny-msm-mae",
    }
    asked = "".join(
        f'COMP_WORDS=(melmask {words}); COMP_CWORD={len(words.split())}; _tyro_melmask; echo "${{COMPREPLY[@]}}"\n'
        for words in calls
    )
    code = f'source {script}\n[ "$(complete -p melmask)" = "complete -F _tyro_melmask melmask" ] || exit 1\n{asked}'
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ))
    assert done.stdout.splitlines() == list(calls.values())
