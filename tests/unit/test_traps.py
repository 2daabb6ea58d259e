"""Traps of published code that no module's own tests guard against; docs/masking.md lists all of them."""

import ast
import dataclasses
import pickle
from pathlib import Path

import pytest
import torch

import melmask
from melmask.logmel import LogMelSpec
from melmask.nn.encoder_file import ENCODER, EncoderFile
from melmask.study.runs import read_runs
from melmask.train import loop
from melmask.train.recipe import RECIPES
from melmask.train.run_folder import CHECKPOINT

SOURCE = Path(melmask.__file__).parent
FRONT_END = {field.name for field in dataclasses.fields(LogMelSpec)} - {"sample_rate_hz"}  # sounds have a rate too


def settings_in(code: str) -> set[str]:
    """Front-end settings that some code gives a number to: by assignment, as an argument or as a default."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        pairs: list[tuple[str, ast.expr | None]] = []
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            pairs = [(target.id, node.value) for target in targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.keyword) and node.arg:
            pairs = [(node.arg, node.value)]
        elif isinstance(node, ast.arguments):
            positional = node.posonlyargs + node.args
            pairs = [
                *zip(
                    [arg.arg for arg in positional[len(positional) - len(node.defaults) :]], node.defaults, strict=True
                ),
                *zip([arg.arg for arg in node.kwonlyargs], node.kw_defaults, strict=True),
            ]
        found |= {name.lower() for name, value in pairs if isinstance(value, ast.Constant) and value.value is not None}
    return found & FRONT_END


def test_front_end_constants_stand_in_one_file():
    where = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py") if settings_in(path.read_text())}
    assert where == {"logmel.py"}
    breaches = (
        "n_fft = 400",
        "N_FFT: int = 400",
        "f(hop_length=160)",
        "def f(x, num_mels=80): ...",
        "lambda *, fmin_hz=50.0: 0",
    )
    assert all(settings_in(breach) for breach in breaches)


def test_a_runs_settings_are_in_its_files_and_not_in_its_name(store, tmp_path):
    recipe = dataclasses.replace(RECIPES["micro-m2d"], strategy="dwm", steps=2, batch_size=4)
    loop.pretrain(recipe, store, tmp_path / "run")
    misleading = (tmp_path / "run").rename(tmp_path / "base-msm-mae_ibm_r0.9_crop608_p8x8")
    read = read_runs([misleading])[0]
    assert read.recipe == recipe and read.model is not None
    saved = EncoderFile.load(misleading / ENCODER)
    assert saved.encoder.patch_shape == recipe.patch_shape and saved.crop_frames == recipe.crop_frames
    assert saved.front_end.spec == store.spec


class Stranger:
    """What unpickling would run."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("dump", [lambda what, path: path.write_bytes(pickle.dumps(what)), torch.save])
def test_a_pickle_in_the_place_of_a_checkpoint_is_refused_and_not_run(dump, store, tmp_path):
    run, mark = tmp_path / "run", tmp_path / "mark"
    loop.pretrain(dataclasses.replace(RECIPES["micro-m2d"], steps=1, batch_size=4), store, run)
    for name in (ENCODER, CHECKPOINT):
        (run / name).unlink()
        dump(Stranger(mark), run / name)
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        EncoderFile.load(run / ENCODER)
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        _ = read_runs([run])[0].model
    assert not mark.exists()
    pickle.loads(pickle.dumps(Stranger(mark)))
    assert mark.exists()  # as would be, had anything been unpickled
