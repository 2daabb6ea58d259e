"""The console: what becomes of its output where nobody reads it."""

import os
import subprocess
import sys

from melmask.cli.main import EXIT_INTERRUPTED

PRINTS = """
from melmask.cli.console import console
for _ in range(100_000):
    try:
        console.print("x" * 100)
    except BrokenPipeError:
        console.print("not seen")
        raise SystemExit(7)
"""


def test_a_closed_pipe_is_an_error_that_a_training_can_catch_and_ends_other_commands_silently():
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = "lambda name, rest: [print(i) for i in range(10**6)]"
    main = f"from melmask.cli import main; main.run = {command}; main.main(['x'])"
    for code, status in ((PRINTS, 7), (main, EXIT_INTERRUPTED)):
        command = [sys.executable, "-c", code]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout and process.stdout.readline() and process.stderr
            process.stdout.close()
            assert process.stderr.read() == b""
        assert process.returncode == status
