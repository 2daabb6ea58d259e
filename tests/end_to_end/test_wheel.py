"""The wheel: it carries the encoder that comes with melmask, and works where nothing else of the repository is."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from melmask.logmel import LogMelSpec
from melmask.nn.encoder_file import EncoderFile, FrontEnd
from melmask.nn.shipped import SHIPPED
from melmask.nn.vit import SIZES, random_encoder
from melmask.pages import pages
from unit.test_project import links_of

ROOT = Path(__file__).parents[2]
MAX_BYTES, NUM_SOUNDS = 12_000_000, 8
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "LOG.md")
PACKED = ("pyproject.toml", "LICENSE", "src", "docs", "tools", *PAGES)


def own_sounds(recordings: Path) -> list[Path]:
    """A few recordings: real ones beside the checkout, else the tests' own."""
    folders = [parent / "shared" / "audio" / "esc50" for parent in ROOT.parents]
    real = [sorted(folder.glob("*.opus"))[:NUM_SOUNDS] for folder in folders if folder.is_dir()]
    return real[0] if real else sorted(recordings.parent.glob("*.wav"))[:NUM_SOUNDS]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built of a copy of the sources, which gets a stand-in of the encoder's form where the file is not there."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in PACKED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    for name in SHIPPED.values():
        file = folder / "src" / "melmask" / "weights" / name
        if not file.exists():
            encoder = EncoderFile(random_encoder(SIZES["shallow"], (8, 16)), FrontEnd(LogMelSpec(), -7.1, 4.2), 208)
            encoder.save(file, torch.float16)
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", "dist"]
    subprocess.run(build, cwd=folder, check=True, capture_output=True)
    (built,) = (folder / "dist").glob("*.whl")
    return built


def test_the_wheel_carries_the_encoder_with_its_card_and_is_small(wheel):
    sizes = {entry.filename: entry.file_size for entry in zipfile.ZipFile(wheel).infolist()}
    for name in ("MODEL_CARD.md", *SHIPPED.values()):
        assert 1000 < sizes[f"melmask/weights/{name}"] < MAX_BYTES
    assert "melmask/py.typed" in sizes and wheel.stat().st_size < MAX_BYTES


def test_the_wheel_has_every_page_and_a_readme_without_links_to_files(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith("/METADATA")]
        metadata = archive.read(names[0]).decode()
        held = {name.removeprefix("melmask/documentation/") for name in archive.namelist() if "/documentation/" in name}
    assert held == {str(page.relative_to(ROOT)) for page in pages(ROOT).values()}
    headers, _, readme = metadata.partition("\n\n")
    assert "Description-Content-Type: text/markdown" in headers and readme.startswith("# melmask\n")
    (tmp_path / "README.md").write_text(readme)
    targets = links_of(tmp_path / "README.md")
    assert targets and all(target.startswith("https://") for target in targets)
    assert "`melmask docs masking`" in readme


@pytest.mark.slow
def test_after_pip_install_alone_recordings_are_embedded_and_evaluated_without_a_network(wheel, recordings, tmp_path):
    """In an environment of its own, whose only other packages are those that the tests run with, by a .pth file.

    A .pth file that is found through it is not read, so the editable install of the repository is not there.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    python, here = tmp_path / "env" / "bin" / "python", tmp_path / "empty"
    (site,) = (tmp_path / "env" / "lib").glob("*/site-packages")
    (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps", wheel]
    subprocess.run(install, check=True, capture_output=True)
    here.mkdir()
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= nowhere | {"MELMASK_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}

    def run(*command: str | Path) -> str:
        done = subprocess.run(list(map(str, command)), cwd=here, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run(python, "-c", "import melmask; print(melmask.__file__)").startswith(str(site))
    melmask = python.with_name("melmask")
    first = re.findall(r"^melmask ((?:embed|report --map) [^#\n]*)", (ROOT / "README.md").read_text(), re.MULTILINE)
    (here / "recordings").mkdir()
    for path in own_sounds(recordings):
        (here / "recordings" / path.name).symlink_to(path)
    assert "encoder: tiny" in run(melmask, *first[0].split())
    with np.load(here / "embeddings.npz") as written:
        assert written["features"].shape[0] == NUM_SOUNDS and np.isfinite(written["features"]).all()
    run(melmask, *first[1].split())
    assert "data:audio/" in (here / "map" / "report.html").read_text()
    assert "│ predict " in run(melmask, "docs") and run(melmask, "docs", "stores").startswith("# Stores")
    printed = run(melmask, "evaluate", "tiny", "--task", recordings, "--probe", "logistic", "ridge", "knn")
    for name in ("tiny", "tiny untrained", "log-mel statistics"):
        assert f"│ {name} " in printed
    assert "tiny" in run(melmask, "compare", "tiny", "untrained-of:tiny", "--task", recordings)
