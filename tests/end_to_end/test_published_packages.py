"""Our adapters under the packages that they are for. `make test-adapters` installs these and runs this file, where a
package that is missing is a failure; nowhere else is it selected.

Two stand-ins spare us what the tests do not need: an empty TensorFlow for hearvalidator, whose rules for TensorFlow
models alone use it, and a torchaudio that reads by soundfile for X-ARES (the real one: requirements-adapters.txt).
"""

import importlib
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from melmask.adapters.mteb import MelmaskModel
from melmask.adapters.xares import MelmaskEncoder
from melmask.logmel import LogMelSpec
from melmask.nn.encoder_file import EncoderFile, FrontEnd
from melmask.nn.vit import SIZES, Encoder

pytestmark = [pytest.mark.adapters, pytest.mark.filterwarnings("default")]  # what others warn of is not ours to mend

RATE_HZ = 16_000
LABELS = [i % 2 for i in range(24)]
TORCHAUDIO = """
    from types import SimpleNamespace

    import soundfile
    import torch


    def load(path):
        wave, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
        return torch.from_numpy(wave.T), rate_hz


    def resample(wave, rate_hz, wanted_hz):
        assert rate_hz == wanted_hz, "the encoder's rate is not the files'"
        return wave


    functional = SimpleNamespace(resample=resample)
"""
TASK = """
    from pathlib import Path

    from xares.task import TaskConfig


    def high_and_low_config(encoder):
        return TaskConfig(
            name="high_and_low", encoder=encoder, env_root=Path(__file__).parent, private=True, output_dim=2,
            eval_weight=24, num_encoder_workers=0, epochs=30, label_processor=lambda about: about["label"],
        )
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("encoder") / "mine.safetensors"
    EncoderFile(Encoder(SIZES["micro"], (16, 16)), FrontEnd(LogMelSpec(), -7.1, 4.2), crop_frames=96).save(path)
    return path


def tones(rng: np.random.Generator) -> list[np.ndarray]:
    """High tones (label 0) and low ones (label 1) in noise, of 0.5 to 1 s."""
    time_s = np.arange(RATE_HZ) / RATE_HZ
    waves = [0.3 * np.sin(2 * np.pi * (300 if label else 3_000) * time_s) for label in LABELS]
    return [(wave + 0.01 * rng.standard_normal(RATE_HZ))[: rng.integers(8_000, RATE_HZ)] for wave in waves]


def test_hears_validator(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", SimpleNamespace(Module=type("Module", (), {})))
    validate = importlib.import_module("hearvalidator.validate")
    with pytest.warns(UserWarning, match="less than or equal to 50ms"):  # a recommendation: ours are 160 ms
        validate.ValidateModel("melmask.adapters.hear", str(weights), device="cpu")()
    with pytest.raises(validate.ModelError, match="load_model"):
        validate.ValidateModel("melmask.logmel", str(weights), device="cpu")()


def test_xares_checker(weights: Path) -> None:
    checker = importlib.import_module("xares.audio_encoder_checker")
    encoder = MelmaskEncoder(weights)
    assert checker.check_audio_encoder(encoder)
    encoder.output_dim += 1
    assert not checker.check_audio_encoder(encoder)


def test_xares_command(weights: Path, tmp_path: Path) -> None:
    """X-ARES' own command, from recordings in tar files to the scores of its MLP and its k nearest neighbours."""
    webdataset, rng = importlib.import_module("webdataset"), np.random.default_rng(0)
    data = tmp_path / "high_and_low"
    data.mkdir()
    for split in ("train", "valid", "test"):
        with webdataset.TarWriter(str(data / f"{split}.tar")) as tar:
            for i, (wave, label) in enumerate(zip(tones(rng), LABELS, strict=True)):
                soundfile.write(tmp_path / "tone.wav", wave, RATE_HZ)
                about = json.dumps({"label": label}).encode()
                tar.write({"__key__": f"{split}{i}", "wav": (tmp_path / "tone.wav").read_bytes(), "json": about})
    (data / ".audio_tar_ready").touch()
    for name, text in {"torchaudio": TORCHAUDIO, "task": TASK}.items():
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
    command = [sys.executable, "-m", "xares.run", "melmask/adapters/xares.py", "task.py", "--max-jobs", "0"]
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    known = os.environ | {"PYTHONPATH": path, "MELMASK_ENCODER": str(weights)}
    done = subprocess.run(command, env=known, cwd=tmp_path, capture_output=True, text=True, check=False)
    scores = re.search(r"^ *high_and_low +(\S+) +(\S+) +True$", done.stdout, re.MULTILINE)
    assert scores, done.stdout + done.stderr
    assert min(map(float, scores.groups())) > 0.9


def test_mteb_task(weights: Path) -> None:
    mteb, datasets, abstasks, protocols, task_metadata = map(
        importlib.import_module,
        ("mteb", "datasets", "mteb.abstasks", "mteb.models.models_protocols", "mteb.abstasks.task_metadata"),
    )
    rng = np.random.default_rng(0)

    class HighAndLow(abstasks.AbsTaskClassification):
        """Tones of two heights, of different lengths."""

        metadata = task_metadata.TaskMetadata(
            name="HighAndLow", description="tones", reference=None, type="AudioClassification", category="a2c",
            modalities=["audio"], eval_splits=["test"], eval_langs=["zxx-Zxxx"], main_score="accuracy",
            dataset={"path": "none", "revision": "1"},
        )  # fmt: skip
        input_column_name, label_column_name = "audio", "label"

        def load_data(self, **kwargs: object) -> None:
            self.dataset = datasets.DatasetDict({split: self.rows() for split in ("train", "test")})
            self.data_loaded = True

        @staticmethod
        def rows() -> object:
            audio = [{"array": wave, "sampling_rate": RATE_HZ} for wave in tones(rng)]
            return datasets.Dataset.from_dict({"audio": audio, "label": LABELS})

    model = MelmaskModel(weights)
    assert isinstance(model, protocols.EncoderProtocol)
    (result,) = mteb.evaluate(model, HighAndLow(), cache=None, show_progress_bar=False).task_results
    assert result.get_score() > 0.9
    assert model.mteb_model_meta.name == "melmask/mine" and model.mteb_model_meta.modalities == ["audio"]
    left, right = torch.eye(3), torch.ones(3, 3)
    assert torch.allclose(model.similarity(left, right), torch.full((3, 3), 3**-0.5))
    assert torch.allclose(model.similarity_pairwise(left, right), torch.full((3,), 3**-0.5))
