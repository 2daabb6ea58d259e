"""Faults of encoder files, of cached features, and of encoders of other makes."""

import json
import shutil
import sys
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from faults import damage
from faults.catalogue import fault
from faults.verdict import WRONG, Verdict, judged, same
from faults.workshop import Bench
from melmask.data.store import Store
from melmask.encoders.cache import cached_embed, cached_time_steps
from melmask.encoders.embeddings import Embeddings
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.encoders.registry import load
from melmask.files import read_tensors
from melmask.nn.encoder_file import ENCODER

FILES, CACHES, IDENTITY, FOREIGN = "artefacts: encoder files", "artefacts: caches", "cache identity", "foreign code"


def rewritten(path: Path, change: Callable[[dict[str, Any], dict[str, str]], Any]) -> None:
    """Write an encoder file again with other tensors or metadata, and without a checksum, as an earlier version did."""
    tensors, metadata = read_tensors(path)
    change(tensors, metadata)
    save_file(tensors, path, metadata)


def in_json(name: str, **changes: Any) -> Callable[[dict[str, Any], dict[str, str]], None]:
    """A change of an entry of the metadata that holds JSON; None removes a field."""

    def change(tensors: dict[str, Any], metadata: dict[str, str]) -> None:
        values = {**json.loads(metadata[name]), **changes}
        metadata[name] = json.dumps({key: value for key, value in values.items() if value is not None})

    return change


def _nan(tensors: dict[str, Any], metadata: dict[str, str]) -> None:
    next(iter(tensors.values())).fill_(float("nan"))


CONTENT: dict[str, Callable[[dict[str, Any], dict[str, str]], Any]] = {
    "no form": lambda tensors, metadata: metadata.pop("form"),
    "no front end": lambda tensors, metadata: metadata.pop("front_end"),
    "a form that is no JSON": lambda tensors, metadata: metadata.update(form="{"),
    "a front end that is a list": lambda tensors, metadata: metadata.update(front_end="[]"),
    "a front end without a mean": in_json("front_end", mean=None),
    "a mean that is a text": in_json("front_end", mean="x"),
    "a std of 0": in_json("front_end", std=0.0),
    "crops of no frames": in_json("form", crop_frames=0),
    "another size": in_json("form", size={"dim": 64, "depth": 2, "heads": 2}),
    "a size without heads": in_json("form", size={"dim": 32, "depth": 2}),
    "a size beyond memory": in_json("form", size={"dim": 10**9, "depth": 10**6, "heads": 2}),
    "heads that do not divide": in_json("form", size={"dim": 32, "depth": 2, "heads": 5}),
    "patches of no band": in_json("form", patch_shape=[0, 16]),
    "patches of three sides": in_json("form", patch_shape=[16, 16, 16]),
    "features that do not exist": lambda tensors, metadata: metadata.update(features='{"pooling": "maximum"}'),
    "layers that do not exist": lambda tensors, metadata: metadata.update(features='{"layers": [99]}'),
    "a format of the future": lambda tensors, metadata: metadata.update(format="melmask-encoder-9"),
    "a tensor too few": lambda tensors, metadata: tensors.pop(next(iter(tensors))),
    "a tensor too many": lambda tensors, metadata: tensors.update(more=torch.zeros(2)),
    "a tensor of another shape": lambda tensors, metadata: tensors.update({next(iter(tensors)): torch.zeros(3, 3)}),
    "weights that are NaN": _nan,
}


@fault(FILES, "an encoder file of an earlier version, without a checksum, has", CONTENT.items())
def another_content(bench: Bench, case: Callable[[dict[str, Any], dict[str, str]], Any]) -> Verdict:
    path = bench.run / ENCODER
    rewritten(path, case)
    embed = lambda: PretrainedEncoder.load(path).embed_store(Store.open(bench.store))  # noqa: E731
    judge = lambda found: same(np.array_equal(found, bench.shop.features), f"other embeddings: {found.ravel()[:3]}")  # noqa: E731
    return judged(embed, judge, (ENCODER,))


@fault(FILES, "a file of embeddings is damaged, then read", damage.OF_BINARY.items())
def damaged_embeddings(bench: Bench, case: Callable[[Path], None]) -> Verdict:
    path = bench.folder / "embeddings.npz"
    case(path)
    judge = lambda found: same(np.array_equal(found.features, bench.shop.features))  # noqa: E731
    return judged(lambda: Embeddings.load(path), judge, (path.name,))


@fault(FILES, "a header of safetensors that claims 2 GB")
def huge_header(bench: Bench) -> Verdict:
    path = bench.run / ENCODER
    path.write_bytes((2**31).to_bytes(8, "little") + path.read_bytes()[8:])
    return judged(lambda: PretrainedEncoder.load(path), lambda _: same(False), (ENCODER,), must="refuse")


ARRAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "NaN": lambda features: np.full_like(features, np.nan),
    "zeros": np.zeros_like,
    "three columns": lambda features: features[:, :3],
    "integers": lambda features: features.astype(np.int32),
    "half precision": lambda features: features.astype(np.float16),
    "a row too few": lambda features: features[:-1],
    "rows shuffled": lambda features: features[::-1],
}


@fault(CACHES, "an entry of the feature cache holds", ARRAYS.items())
def another_entry(bench: Bench, case: Callable[[np.ndarray], np.ndarray]) -> Verdict:
    (path,) = bench.cache.glob("*.npy")
    np.save(path, case(np.load(path)))
    return embedded(bench)


@fault(CACHES, "an entry of the feature cache is damaged", damage.OF_BINARY.items())
def damaged_entry(bench: Bench, case: Callable[[Path], None]) -> Verdict:
    (path,) = bench.cache.glob("*.npy")
    case(path)
    return embedded(bench)


def embedded(bench: Bench) -> Verdict:
    """Whether the cache gives the right features, twice."""
    encoder, store = PretrainedEncoder.load(bench.run), Store.open(bench.store)
    embed = lambda: [cached_embed(encoder, store, bench.cache) for _ in range(2)]  # noqa: E731
    judge = lambda twice: same(all(np.array_equal(found, bench.shop.features) for found in twice))  # noqa: E731
    return judged(embed, judge, must="work")


@fault(CACHES, "cached time steps are damaged", damage.OF_BINARY.items())
def damaged_steps(bench: Bench, case: Callable[[Path], None]) -> Verdict:
    encoder, store = PretrainedEncoder.load(bench.run), Store.open(bench.store)
    before = np.array(cached_time_steps(encoder, store, folder=bench.folder / "steps").steps)
    (path,) = (bench.folder / "steps").glob("*.npy")
    case(path)
    call = lambda: cached_time_steps(encoder, store, folder=bench.folder / "steps").steps  # noqa: E731
    return judged(call, lambda found: same(np.array_equal(found, before)), must="work")


def onnx_file(path: Path, factor: float) -> None:
    """A model that gives the mean of the samples times a factor."""
    from onnx import TensorProto, helper, save

    nodes = [helper.make_node("ReduceMean", ["wave", "axes"], ["mean"]), helper.make_node("Mul", ["mean", "f"], ["y"])]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [1], [1]),
        helper.make_tensor("f", TensorProto.FLOAT, [1], [factor]),
    ]
    waves = helper.make_tensor_value_info("wave", TensorProto.FLOAT, ["b", "sample"])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 1])
    graph = helper.make_graph(nodes, "g", [waves], [output], constants)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def differs(bench: Bench, spec: str, change: Callable[[], Any]) -> Verdict:
    """Whether an encoder that was changed in place has another identity, and so other features in the cache."""
    store = Store.open(bench.store)
    before = cached_embed(load(spec), store, bench.cache)
    change()
    judge = lambda found: same(not np.array_equal(found, before), "the features of the encoder before")  # noqa: E731
    return judged(lambda: cached_embed(load(spec), store, bench.cache), judge, must="work")


@fault(
    IDENTITY, "an ONNX file is replaced by another", [(name, (name,)) for name in ("m.onnx", "m[1].onnx", "m*.onnx")]
)
def another_onnx(bench: Bench, case: tuple[str]) -> Verdict:
    path = bench.folder / case[0]
    onnx_file(path, 1.0)
    return differs(bench, f"onnx:{path}@16000", lambda: onnx_file(path, 2.0))


HEAR = textwrap.dedent("""
    from pathlib import Path
    import numpy as np
    class Model:
        sample_rate = 16000
        factor = float((Path(__file__).parent / "weights" / "w.txt").read_text())
    def load_model(path=""):
        Model.factor = float((Path(__file__).parent / "weights" / "w.txt").read_text())
        return Model()
    def get_scene_embeddings(audio, model):
        return model.factor * np.abs(audio).mean(axis=1, keepdims=True)
""")


@fault(IDENTITY, "weights inside a HEAR package are replaced")
def another_hear(bench: Bench) -> Verdict:
    package = bench.folder / f"hear_{bench.folder.name}"
    (package / "weights").mkdir(parents=True)
    (package / "__init__.py").write_text(HEAR)
    (package / "weights" / "w.txt").write_text("1.0")
    sys.path.insert(0, str(bench.folder))
    try:
        return differs(bench, f"hear:{package.name}", lambda: (package / "weights" / "w.txt").write_text("2.0"))
    finally:
        sys.path.remove(str(bench.folder))


@fault(IDENTITY, "an encoder file is replaced by another")
def another_encoder(bench: Bench) -> Verdict:
    return differs(bench, str(bench.run), lambda: shutil.copy(bench.half / ENCODER, bench.run / ENCODER))


class Evil:
    """What a pickle would run."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def runs_nothing(mark: Path, call: Callable[[], Any], names: tuple[object, ...]) -> Verdict:
    """Refused, and nothing was run."""
    verdict = judged(call, lambda _: same(False), names, must="refuse")
    return Verdict(WRONG, "code of the file was run") if mark.exists() else verdict


@fault(FOREIGN, "weights in a .pth file that run code")
def evil_weights(bench: Bench) -> Verdict:
    path, mark = bench.folder / "weights.pth", bench.folder / "ran"
    torch.save({"model": Evil(mark)}, path)
    return runs_nothing(mark, lambda: load(str(path)), (path.name,))


@fault(FOREIGN, "embeddings with an object that runs code")
def evil_embeddings(bench: Bench) -> Verdict:
    path, mark = bench.folder / "embeddings.npz", bench.folder / "ran"
    np.savez(path, features=np.array([Evil(mark)], object), path=np.array(["a"]))
    return runs_nothing(mark, lambda: Embeddings.load(path), (path.name,))


@fault(FOREIGN, "a cache entry with an object that runs code")
def evil_entry(bench: Bench) -> Verdict:
    mark = bench.folder / "ran"
    (path,) = bench.cache.glob("*.npy")
    np.save(path, np.array([[Evil(mark)]] * 8, object), allow_pickle=True)
    return Verdict(WRONG, "code of the file was run") if mark.exists() else embedded(bench)


@fault(FOREIGN, "a log-mel file with an object that runs code")
def evil_log_mels(bench: Bench) -> Verdict:
    from melmask.data.prepare import prepare

    mark, folder = bench.folder / "ran", bench.folder / "mels"
    folder.mkdir()
    np.save(folder / "a.npy", np.array([[Evil(mark)]], object), allow_pickle=True)
    return runs_nothing(mark, lambda: prepare([folder], bench.folder / "new", num_workers=0), ("none of 1 files",))


@fault(FOREIGN, "a Hugging Face folder with code of its own (auto_map)", slow=True)
def auto_map(bench: Bench) -> Verdict:
    folder, mark = bench.folder / "hf", bench.folder / "ran"
    folder.mkdir()
    own = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}}
    (folder / "config.json").write_text(json.dumps(own))
    extractor = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 16_000}
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor))
    (folder / "mine.py").write_text(f"from pathlib import Path\nPath({str(mark)!r}).touch()\n")
    shutil.copy(bench.run / ENCODER, folder / "model.safetensors")
    assert load_file(folder / "model.safetensors")
    return runs_nothing(mark, lambda: load(f"hf:{folder}"), (folder,))


MEMBERS = {"..": "../out.wav", "an absolute path": "/tmp/melmask-out.wav", "a drive": "C:\\out.wav"}


@fault(FOREIGN, "a downloaded zip whose member has", [(words, (name,)) for words, name in MEMBERS.items()])
def zip_slip(bench: Bench, case: tuple[str]) -> Verdict:
    from melmask.data.download import unpack

    path = bench.folder / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(case[0], "out")
    (bench.folder / "in").mkdir()
    verdict = judged(lambda: unpack(path, bench.folder / "in"), lambda _: same(False), (path.name,), must="refuse")
    return Verdict(WRONG, "written outside") if (bench.folder / "out.wav").exists() else verdict


@fault(FOREIGN, "a downloaded tar with a link out of the folder, and a file behind it")
def tar_link(bench: Bench) -> Verdict:
    import io
    import tarfile

    from melmask.data.download import unpack

    path = bench.folder / "set.tar"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, ".."
        archive.addfile(link)
        file = tarfile.TarInfo("link/out.wav")
        file.size = 3
        archive.addfile(file, io.BytesIO(b"out"))
    (bench.folder / "in").mkdir()
    verdict = judged(lambda: unpack(path, bench.folder / "in"), lambda _: same(False), (path.name,), must="refuse")
    return Verdict(WRONG, "written outside") if (bench.folder / "out.wav").exists() else verdict


@fault(FOREIGN, "an address whose last part is coded", [("%2f", ("a%2f..%2fb.zip",)), ("%2e%2e", ("%2e%2e",))])
def coded_address(bench: Bench, case: tuple[str]) -> Verdict:
    from melmask.data.download import Archive

    name = lambda: Archive(f"https://example.org/{case[0]}").name  # noqa: E731
    return judged(name, lambda found: same("/" not in found and found not in ("", ".", "..")))
