"""What a terminal shows meanwhile: at once, and at 80 columns uncut."""

import io
import os
import pty
import re
import subprocess
import sys

import pytest

from melmask.cli import console as shown

NOTES = (
    "loss [bold]0.1234[/]  rank 123  12345 samples/s  12 % for masks",
    "1234.56 h of audio, [red]1234 rejected[/]",
    "fold 10, seed 2  loss [bold]0.123[/]  valid [bold]100.0[/] %",
)


def on_a_terminal(code: str) -> tuple[int, str]:
    """What a program ends with and prints on a pseudo-terminal of 80 columns."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": "80", "TERM": "xterm"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=theirs, env=environment) as program:
        os.close(theirs)
        printed = b""
        try:
            while block := os.read(ours, 1024):
                printed += block
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    return program.returncode, printed.decode()


def test_bars_are_cut_at_no_note_and_no_time_in_80_columns(monkeypatch):
    for note in NOTES:
        terminal = shown.SafeConsole(width=80, force_terminal=True, file=io.StringIO(), highlight=False)
        monkeypatch.setattr(shown, "console", terminal)
        with shown.bar("training") as (progress, task):
            progress.update(task, completed=123_456, total=1_234_567, note=note)
            progress.refresh()
        plain = terminal.render_str(note).plain
        printed = terminal.file.getvalue()
        text = "".join(terminal.render_str(part).plain for part in printed.split("\x1b[0m"))
        assert "123456/1234567" in printed and "…" not in printed and "-:--:--" in printed
        assert all(word in text for word in plain.split())


def test_a_log_file_gets_a_line_every_minute_and_a_terminal_none(monkeypatch):
    now = [0.0]
    for on_terminal, lines, expected in ((False, True, 3), (False, False, 0), (True, True, 0)):
        log = shown.SafeConsole(width=80, force_terminal=on_terminal, file=io.StringIO(), highlight=False)
        monkeypatch.setattr(log, "get_time", lambda: now[0])
        monkeypatch.setattr(shown, "console", log)
        with shown.bar("stu[dy]", lines=lines) as (progress, task):
            for second in range(200):
                now[0] += 1
                progress.update(task, completed=second, total=200, note=f"[red]1 failed[/]: [bold]run-{second}[/]")
            middle = log.file.getvalue()
        found = re.findall(r"^stu\[dy\] (\d+)/200 after 0:0(\d):00  1 failed: run-(\d+)$", middle, re.MULTILINE)
        assert found == [(str(60 * k - 1), str(k), str(60 * k - 1)) for k in range(1, expected + 1)]
        assert "200" in log.file.getvalue()  # the bar itself at the end


@pytest.mark.parametrize(("done", "expected"), [(7, "7/7"), (0, "")])
def test_a_bar_of_unknown_length_ends_with_what_was_done_and_is_gone_where_that_is_nothing(monkeypatch, done, expected):
    log = shown.SafeConsole(width=80, force_terminal=False, file=io.StringIO(), highlight=False)
    monkeypatch.setattr(shown, "console", log)
    with shown.bar("embedding") as (progress, task):
        progress.update(task, completed=done)
    printed = log.file.getvalue()
    assert expected in printed and "?" not in printed and ("embedding" in printed) is bool(done)


def test_a_terminal_shows_at_once_what_starts_before_any_library_is_read():
    code = (
        "import sys\nfrom melmask.cli import main\n"
        "def imported(name):\n    sys.exit(7 if 'torch' not in sys.modules else 8)\n"
        "main.function_of = imported\nmain.main(['pretrain', 'store', '--out', 'run'])"
    )
    status, printed = on_a_terminal(code)
    assert status == 7 and "melmask pretrain starts" in printed


def test_the_list_of_tasks_is_cut_nowhere_in_80_columns():
    status, printed = on_a_terminal("from melmask.cli.main import main; main(['tasks'])")
    assert status == 0 and "…" not in printed and "2,084,320" in printed and "train/valid/test" in printed
    lines = re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", printed).split("\r\n")
    assert "accuracy" in printed and max(len(line.rpartition("\r")[2]) for line in lines) <= 80
