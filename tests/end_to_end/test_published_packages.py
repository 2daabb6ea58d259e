"""Our adapters under the packages that they are for, where these are installed: pip install hearvalidator xares mteb.

hearvalidator asks for TensorFlow, which only its rules for TensorFlow models use; an empty module stands in for it, so
that ``pip install --no-deps hearvalidator`` is enough.
"""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from melmask.hub.mteb import MelmaskModel
from melmask.hub.xares import MelmaskEncoder
from melmask.logmel import LogMelSpec
from melmask.train.checkpoint import FrontEnd, save_encoder
from melmask.vit import SIZES, Encoder

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # what others warn of is not ours to mend


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("encoder") / "mine.safetensors"
    save_encoder(path, Encoder(SIZES["micro"], (16, 16)), FrontEnd(LogMelSpec(), -7.1, 4.2), crop_frames=96)
    return path


def test_hears_validator(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hearvalidator")
    if importlib.util.find_spec("tensorflow") is None:
        monkeypatch.setitem(sys.modules, "tensorflow", SimpleNamespace(Module=type("Module", (), {})))
    validate = importlib.import_module("hearvalidator.validate")
    with pytest.warns(UserWarning, match="less than or equal to 50ms"):  # a recommendation: ours are 160 ms
        validate.ValidateModel("melmask.hub.hear", str(weights), device="cpu")()
    with pytest.raises(validate.ModelError, match="load_model"):
        validate.ValidateModel("melmask.logmel", str(weights), device="cpu")()


def test_xares_checker(weights: Path) -> None:
    checker = pytest.importorskip("xares.audio_encoder_checker")
    encoder = MelmaskEncoder(weights)
    assert checker.check_audio_encoder(encoder)
    encoder.output_dim += 1
    assert not checker.check_audio_encoder(encoder)


def test_mteb_task(weights: Path) -> None:
    mteb, datasets = pytest.importorskip("mteb"), pytest.importorskip("datasets")
    abstasks, protocols = (
        importlib.import_module("mteb.abstasks"),
        importlib.import_module("mteb.models.models_protocols"),
    )
    task_metadata = importlib.import_module("mteb.abstasks.task_metadata")
    rng, time_s = np.random.default_rng(0), np.arange(16_000) / 16_000

    class HighAndLow(abstasks.AbsTaskClassification):
        """Tones of two heights, of different lengths."""

        metadata = task_metadata.TaskMetadata(
            name="HighAndLow", description="tones", reference=None, type="AudioClassification", category="a2c",
            modalities=["audio"], eval_splits=["test"], eval_langs=["zxx-Zxxx"], main_score="accuracy",
            dataset={"path": "none", "revision": "1"},
        )  # fmt: skip
        input_column_name, label_column_name = "audio", "label"

        def load_data(self, **kwargs: object) -> None:
            self.dataset = datasets.DatasetDict({split: self.tones() for split in ("train", "test")})
            self.data_loaded = True

        @staticmethod
        def tones() -> object:
            rows = []
            for i in range(24):
                tone = 0.3 * np.sin(2 * np.pi * (300 if i % 2 else 3_000) * time_s) + 0.01 * rng.standard_normal(16_000)
                rows.append(
                    {"audio": {"array": tone[: rng.integers(8_000, 16_000)], "sampling_rate": 16_000}, "label": i % 2}
                )
            return datasets.Dataset.from_list(rows)

    model = MelmaskModel(weights)
    assert isinstance(model, protocols.EncoderProtocol)
    (result,) = mteb.evaluate(model, HighAndLow(), cache=None, show_progress_bar=False).task_results
    assert result.get_score() > 0.9
    assert model.mteb_model_meta.name == "melmask/mine" and model.mteb_model_meta.modalities == ["audio"]
    left, right = torch.eye(3), torch.ones(3, 3)
    assert torch.allclose(model.similarity(left, right), torch.full((3, 3), 3**-0.5))
    assert torch.allclose(model.similarity_pairwise(left, right), torch.full((3,), 3**-0.5))
