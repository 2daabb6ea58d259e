"""Encoders of other makes as encoders of waveforms: ONNX files, HEAR modules and Hugging Face folders."""

import glob
import hashlib
import importlib
import re
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from melmask.encoders.waveform import WaveformEncoder, Waveforms, as_array
from melmask.extras import need
from melmask.nn.foreign import IN_PICKLE
from melmask.nn.published import read_audiomae
from melmask.patches import grid_of, patchify
from melmask.runtime import this_device

WEIGHTS = ("*.json", "*.safetensors")  # of a Hugging Face folder: all that changes a vector


def from_onnx(spec: str) -> WaveformEncoder:
    """An ONNX file with one input, float32 waveforms [b, sample], whose first output is [b, dim] or [b, time, dim].

    Args:
        spec: ``FILE`` whose metadata hold ``sample_rate_hz`` (or ``sample_rate``), or ``FILE@RATE``. A fixed number of
            samples makes windows of that length, a fixed b of 1 one waveform a call. [b, time, dim] is averaged over
            time.

    Raises:
        ValueError: no such file, no model, another interface, or no known rate.
        ImportError: onnxruntime is not installed.
    """
    name, rate = re.fullmatch(r"(.*?)(?:@(\d+))?", spec, re.DOTALL).groups()  # type: ignore[union-attr]
    path, library = Path(name), _library("onnxruntime", "onnx")
    if not path.is_file():
        raise ValueError(f"no ONNX file {path}: check the path")
    try:
        session = library.InferenceSession(str(path), providers=library.get_available_providers())
    except Exception as error:  # onnxruntime's errors have no base class of their own
        raise ValueError(f"{path} is no ONNX model that onnxruntime runs: {error}") from error
    metadata = session.get_modelmeta().custom_metadata_map
    rate = rate or metadata.get("sample_rate_hz") or metadata.get("sample_rate")
    if not rate:
        raise ValueError(f"{path} has no metadata sample_rate_hz: name the rate, as in onnx:{path}@16000")
    inputs, output = session.get_inputs(), session.get_outputs()[0]
    if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 2:
        found = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
        raise ValueError(f"{path} takes {found}: one input of float32 waveforms [b, sample] is needed")
    num_waves, num_samples = inputs[0].shape
    if isinstance(num_waves, int) and num_waves != 1:
        raise ValueError(f"{path} takes batches of exactly {num_waves}: export it with any batch size, or with 1")

    def encode(waves: Waveforms) -> np.ndarray:
        vectors = session.run([output.name], {inputs[0].name: waves})[0]
        return vectors.mean(axis=1) if vectors.ndim == 3 else vectors

    window = num_samples if isinstance(num_samples, int) else None
    return WaveformEncoder(
        name=f"onnx:{path.name}",
        identity=_hash("onnx", rate, *sorted(path.parent.glob(f"{glob.escape(path.name)}*"))),
        sample_rate_hz=int(rate),
        encode=encode,
        max_samples=window,
        is_fixed=window is not None,
        max_batch=1 if isinstance(num_waves, int) else 64,
    )


def from_hear(spec: str) -> WaveformEncoder:
    """A module with HEAR's API; importing and loading it runs its own code, and reads its weights in its own way.

    Args:
        spec: ``MODULE``, as it would be imported, or ``MODULE@WEIGHTS``, handed to its ``load_model``. A PyTorch model
            is given tensors, any other one arrays.

    Raises:
        ValueError: no such module, or it lacks a part of the API.

    Source: HEAR 2021, common API (Turian et al. 2022, arXiv 2203.03022). Deviates: not at all.
    """
    name, _, weights = spec.partition("@")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(f"no HEAR module {name!r}: {error}; install it, or name its folder in PYTHONPATH") from error
    lacks = [part for part in ("load_model", "get_scene_embeddings") if not hasattr(module, part)]
    if lacks:
        raise ValueError(f"module {name} has no {' and no '.join(lacks)}: HEAR's API asks for both")
    model = module.load_model(weights) if weights else module.load_model()
    if not hasattr(model, "sample_rate"):
        raise ValueError(f"the model of {name} has no attribute sample_rate: HEAR's API asks for it")
    if isinstance(model, torch.nn.Module):
        model.eval().to(this_device())

    def encode(waves: Waveforms) -> np.ndarray:
        audio = torch.from_numpy(waves).to(this_device()) if isinstance(model, torch.nn.Module) else waves
        with torch.inference_mode():
            return as_array(module.get_scene_embeddings(audio, model))

    files = [Path(weights)] if weights else []
    return WaveformEncoder(
        name=f"hear:{name}",
        identity=_hash("hear", spec, *_sources(sys.modules[name.partition(".")[0]]), *files),
        sample_rate_hz=int(model.sample_rate),
        encode=encode,
    )


def from_huggingface(folder: Path) -> WaveformEncoder:
    """An audio encoder in a local folder of Hugging Face's form; the vector is the mean of its last hidden state.

    Args:
        folder: config.json, preprocessor_config.json and weights in safetensors. Nothing is downloaded, and no code in
            it is run. Of a model with a decoder, the encoder is used. Recordings longer than the feature extractor's
            longest are read in windows; what it pads itself (AST to 10.24 s, Whisper to 30 s) is part of the mean.

    Raises:
        ValueError: no such folder, no safetensors in it, or no audio encoder.
        ImportError: transformers is not installed.
    """
    transformers = _library("transformers", "hf")
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no config.json: name a folder that save_pretrained wrote")
    if not list(folder.glob("*.safetensors")):
        raise ValueError(
            f"{folder} holds no weights in safetensors: pickled weights are not read; save them as safetensors"
        )
    try:
        # Without the last, transformers asks on the terminal whether to run code that lies in the folder.
        options = {"local_files_only": True, "trust_remote_code": False}
        extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, **options)
        model = transformers.AutoModel.from_pretrained(folder, use_safetensors=True, **options)
    except (OSError, KeyError, ValueError) as error:
        if "trust_remote_code" in str(error):
            raise ValueError(
                f"{folder} asks for code of its own (auto_map in its config.json), which is never run: use a model "
                "that transformers knows by itself, or give an object of your own as package.module:Class"
            ) from None
        raise ValueError(f"{folder} is no audio encoder that transformers reads: {error}") from error
    encoder = (model.get_encoder() if model.config.is_encoder_decoder else model).eval().to(this_device())
    rate = int(extractor.sampling_rate)

    def encode(waves: Waveforms) -> np.ndarray:
        inputs = extractor(list(waves), sampling_rate=rate, return_tensors="pt").to(this_device())
        with torch.inference_mode():
            return as_array(encoder(**inputs).last_hidden_state.mean(dim=1))

    files = [path for pattern in WEIGHTS for path in sorted(folder.glob(pattern))]
    return WaveformEncoder(f"hf:{folder.name}", _hash("hf", *files), rate, encode, _longest(extractor, rate))


def from_audiomae(folder: Path) -> WaveformEncoder:
    """The encoder of an AudioMAE in a Hugging Face folder; the vector is the mean over patches, normed.

    Its input is that of its model cards, and of AST: Kaldi's filterbank of 128 bands, zero-padded to 1,024 frames, less
    -4.2677393 and divided by twice 4.5689974.

    Args:
        folder: config.json and weights in safetensors, under timm's names.

    Raises:
        ValueError: tensors are missing or unknown, which are named; see `melmask.nn.published.read_published`.
        ImportError: transformers is not installed, whose front end of AST is used.

    Source: arXiv 2207.06405. Deviates: not at all.
    """
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # its lowest bands have no bin, as published
        extractor = _library("transformers", "hf").ASTFeatureExtractor()
    encoder, is_normed_after = read_audiomae(folder)
    encoder.eval().to(this_device())
    rate = int(extractor.sampling_rate)

    def encode(waves: Waveforms) -> np.ndarray:
        log_mel = extractor(list(waves), sampling_rate=rate, return_tensors="pt").input_values.mT.to(this_device())
        patches, grid = patchify(log_mel, encoder.patch_shape), grid_of(log_mel, encoder.patch_shape)
        with torch.inference_mode():
            if is_normed_after:
                return as_array(encoder.norm(encoder.layers(patches, grid)[-1][:, 1:].mean(dim=1)))
            return as_array(encoder(patches, grid)[:, 1:].mean(dim=1))

    files = [path for pattern in (*WEIGHTS, IN_PICKLE) for path in sorted(folder.glob(pattern))]
    return WaveformEncoder(f"hf:{folder.name}", _hash("hf", *files), rate, encode, _longest(extractor, rate))


def _longest(extractor: Any, rate_hz: int) -> int | None:
    """The longest input of a feature extractor, in samples; None for any length."""
    for of_samples in ("nb_max_samples", "n_samples"):  # CLAP's, Whisper's
        if hasattr(extractor, of_samples):
            return int(getattr(extractor, of_samples))
    if hasattr(extractor, "max_length"):  # AST's, in frames of 10 ms
        return int(extractor.max_length * rate_hz / 100)
    return None


def _library(name: str, extra: str) -> Any:
    need(extra, f"{extra}:")
    return importlib.import_module(name)


def _sources(package: ModuleType) -> list[Path]:
    """All files of a package, weights among them, or the one of a module; but for what Python compiles of them."""
    if hasattr(package, "__path__"):  # a package, perhaps without __init__.py
        files = (file for folder in package.__path__ for file in Path(folder).rglob("*"))
        return sorted(file for file in files if file.is_file() and "__pycache__" not in file.parts)
    return [Path(package.__file__)] if package.__file__ else []


def _hash(*parts: str | Path) -> str:
    """Hash of strings, and of the contents of files and folders."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(f"{len(part)} {part}".encode())
            continue
        for file in sorted(part.rglob("*")) if part.is_dir() else [part]:
            if file.is_file():
                digest.update(f"{file.name} {file.stat().st_size} ".encode())
                with file.open("rb") as content:
                    while block := content.read(2**20):
                        digest.update(block)
    return digest.hexdigest()
