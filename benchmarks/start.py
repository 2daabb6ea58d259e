"""What short commands take: `make bench`, or `python benchmarks/start.py --help`."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from page import Table, options_of, publish
from recordings import write_noise
from timing import machine

from melmask.encoders.pretrained import random_encoder
from melmask.logmel import LogMelSpec
from melmask.nn.encoder_file import EncoderFile, FrontEnd
from melmask.nn.vit import SIZES

TURNS, QUICK_TURNS = 7, 2
PATCH_SHAPE, CROP_FRAMES = (16, 16), 208

ABOUT = (
    "Whole commands, from the start of Python to its end, in turns; each is the median. embed: a tiny encoder and a "
    "folder with one WAV file of 5 s. The files of Python's compiled modules are there, as after a first call."
)
COLUMNS = {"command": "", "seconds": "", "import torch": "what Python takes to import torch alone, in the same turns"}


def main(arguments: list[str] | None = None) -> None:
    options = options_of(__doc__, arguments, "two turns: under 55 s on two cores")
    measured_on = machine()
    print(measured_on)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), QUICK_TURNS if options.quick else TURNS)
    about = f"{ABOUT} Measured on {measured_on}."
    publish("start", "What short commands take", about, [table_of(rows)], rows, options)


def measure(folder: Path, num_turns: int) -> list[dict[str, Any]]:
    """A row for every command."""
    sound = write_noise(folder / "sound", [5.0])
    encoder = EncoderFile(random_encoder(SIZES["tiny"], PATCH_SHAPE), FrontEnd(LogMelSpec(), -7.1, 4.2), CROP_FRAMES)
    encoder.save(folder / "encoder.safetensors")
    embed = ["embed", str(folder / "encoder.safetensors"), str(sound), "--out", str(folder / "embeddings.npz")]
    commands = {
        "import torch": ["-c", "import torch"],
        "melmask --help": ["-m", "melmask", "--help"],
        "melmask pretrain --help": ["-m", "melmask", "pretrain", "--help"],
        "melmask embed": ["-m", "melmask", *embed],
    }
    times: dict[str, list[float]] = {command: [] for command in commands}
    for turn in range(num_turns + 1):
        for command, arguments in commands.items():
            taken_s = seconds_of(arguments)
            if turn:  # the first one compiles modules and fills the cache of the disk
                times[command].append(taken_s)
    import_s = statistics.median(times.pop("import torch"))
    return [{"command": name, "seconds": statistics.median(of), "import_s": import_s} for name, of in times.items()]


def seconds_of(arguments: list[str]) -> float:
    """The time that Python takes with these arguments."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env=environment)
    return time.perf_counter() - start


def table_of(rows: list[dict[str, Any]]) -> Table:
    cells = [[row["command"], f"{row['seconds']:.2f}", f"{row['import_s']:.2f}"] for row in rows]
    return Table("Seconds of a command", COLUMNS, cells)


if __name__ == "__main__":
    main()
