"""The code of the guides runs, on real recordings where there are any, and has the values that its comments state."""

import io
import re
import shlex
from pathlib import Path

import pytest
import soundfile

from melmask.cli.main import main
from unit.test_api_page import run

GUIDES = Path(__file__).parents[2] / "docs" / "guides"
PAGES = sorted(name for name in ("embed", "front-ends", "search", "map", "novelty") if (GUIDES / f"{name}.md").exists())


def sounds(recordings: Path) -> list[Path]:
    """Six short recordings: of shared/audio beside the checkout, else the tests' own."""
    for parent in Path(__file__).parents:
        found = sorted((parent / "shared" / "audio").glob("**/*.wav"))[:6]
        if len(found) == 6:
            return found
    return [recordings.parent / f"{number:02}.wav" for number in range(6)]


def matching(pattern: str) -> list[str]:
    return sorted(map(str, Path().glob(pattern))) if "*" in pattern else []


def run_shell(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the commands of a block in this process, as a shell would: patterns, and `ls` behind a pipe."""
    for line in block.replace("\\\n", " ").splitlines():
        listed, _, command = line.rpartition("| ")
        monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(matching(listed.removeprefix("ls ").strip()))))
        program, name, *rest = shlex.split(command)
        assert program == "melmask"
        arguments = [path for word in rest for path in (matching(word) or [word])]
        main([name, *arguments])


@pytest.mark.parametrize("page", PAGES)
def test_a_guide_runs_from_top_to_bottom(page, recordings, shipped_tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("melmask.data.prepare.num_cores", lambda: 0)
    for folder in ("sounds", "good", "test"):
        Path(folder).mkdir()
        for number, path in enumerate(sounds(recordings)):
            sound, rate_hz = soundfile.read(path, frames=32_000)
            soundfile.write(f"{folder}/{number}.wav", sound, rate_hz)
    Path("query.wav").symlink_to("sounds/0.wav")
    Path("other.wav").symlink_to("sounds/1.wav")
    names: dict[str, object] = {}
    blocks = re.findall(r"^```(bash|python)\n(.*?)^```$", (GUIDES / f"{page}.md").read_text(), re.DOTALL | re.MULTILINE)
    assert blocks
    for language, code in blocks:
        run_shell(code, monkeypatch) if language == "bash" else run(code, names)
