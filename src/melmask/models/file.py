"""The folder of a trained model: its encoder, and beside it what predicts; tensors and JSON, never a pickle.

=====================  ===============================================================================================
model.safetensors      kind, classes, standardisation, weights, held-out confidences; which encoder, by a hash of it
encoder.safetensors    the encoder, if it is one of melmask's; any other is made by its name, and must have that hash
=====================  ===============================================================================================

`melmask finetune` keeps each training as encoder.safetensors and head.safetensors, which is read too.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from melmask.detect.decoding import Decoder
from melmask.encoders.base import AudioEncoder
from melmask.encoders.features import FeatureSettings, Precision
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.encoders.registry import as_encoder, of_file
from melmask.files import parse_json, read_tensors, select_prefix, write_tensors
from melmask.finetune.model import HEAD, FinetunedModel
from melmask.models.base import About, Model
from melmask.models.classifier import PROBE, Classifier
from melmask.models.detector import EventDetector
from melmask.models.held_out import NONE_HELD_OUT, HeldOut
from melmask.nn.encoder_file import ENCODER, EncoderFile
from melmask.probes import LinearProbe, make_probe

MODEL, FORMAT = "model.safetensors", "melmask-model-1"
REMEDY = "copy the whole folder again, or train the model again"
Parts = tuple[Mapping[str, Tensor], Mapping[str, str], AudioEncoder, tuple[str, ...], About | None]


def save_model(model: Model, folder: Path, encoder_name: str = "", command: str = "") -> Path:
    """Write a model into a folder, which is made, and whose model of before is replaced.

    Args:
        model: trained.
        folder: for its files.
        encoder_name: what `melmask.load` makes its encoder of, if that is none of melmask's own.
        command: that made it, to be recorded.

    Raises:
        ValueError: the encoder is none of melmask's and has no name, or no identity to know it by.
    """
    encoder, content = model.encoder, model.encoder.as_file()
    if content is None and not (encoder_name and encoder.identity):
        raise ValueError(
            f"the encoder {encoder.name} cannot be saved: it is none of melmask's, and has no name or identity to find "
            "it by; give it as onnx:FILE, hear:MODULE, hf:FOLDER or logmel-stats"
        )
    folder.mkdir(parents=True, exist_ok=True)
    named: dict[str, str] = {"identity": encoder.identity, "name": encoder.name}
    if content is None:
        named["spec"] = encoder_name
        (folder / ENCODER).unlink(missing_ok=True)  # of a model that was here before
    else:
        assert encoder.settings is not None
        named["precision"] = encoder.settings.precision
        content.save(folder / ENCODER)
    tensors, metadata = model.as_tensors()
    [kind] = [name for name, made in KINDS.items() if made is type(model)]
    about = {} if model.about is None else asdict(model.about) | {"version": version("melmask"), "command": command}
    general = {"classes": model.classes, "encoder": named, "about": about}
    metadata |= {name: json.dumps(value) for name, value in general.items()}
    write_tensors(folder / MODEL, tensors, {"format": FORMAT, "kind": kind, **metadata})
    return folder


def load_model(path: str | Path) -> Model:
    """Read a trained model.

    Args:
        path: the folder that `melmask evaluate --save-probe`, `melmask finetune --save-model` or `melmask detect
            --save-model` wrote, its model.safetensors, or the folder of one training of `melmask finetune`.

    Raises:
        ValueError: there is none, it is damaged, of a later version, or its encoder is not the one it was trained on.
        ImportError: the library that its encoder needs is not installed.
    """
    folder = Path(path).parent if Path(path).name in (MODEL, HEAD) else Path(path)
    if not (folder / MODEL).exists():
        return _finetuned(folder)
    file = folder / MODEL
    tensors, metadata = read_tensors(file, stated=("format",), remedy=REMEDY)
    if metadata["format"] != FORMAT or metadata.get("kind") not in LOADERS:
        raise ValueError(f"{file} is no model of this version of melmask (format {metadata['format']!r})")
    named = parse_json(metadata["encoder"], f"{file} is damaged: encoder", {"identity": str}, REMEDY)
    about = parse_json(metadata["about"], f"{file} is damaged: about", remedy=REMEDY)
    encoder = _encoder(folder, named)
    if encoder.identity != named["identity"]:
        raise ValueError(
            f"{file} was trained on another encoder than {named.get('spec') or folder / ENCODER} is now: its "
            f"weights or settings have changed; {REMEDY}"
        )
    classes = tuple(json.loads(metadata["classes"]))
    try:
        return LOADERS[metadata["kind"]]((tensors, metadata, encoder, classes, About(**about) if about else None))
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{file} is damaged: {error!r}; {REMEDY}") from error


def _encoder(folder: Path, named: Mapping[str, str]) -> AudioEncoder:
    if named.get("spec"):
        return as_encoder(named["spec"])
    saved = EncoderFile.load(folder / ENCODER)
    settings = FeatureSettings("auto", "auto", _precision(named))
    return of_file(saved, settings, named.get("name", folder.name))


def _precision(named: Mapping[str, str]) -> Precision:
    return named.get("precision", "float32")  # type: ignore[return-value]


def _finetuned(folder: Path) -> Classifier:
    """The model of one training of `melmask finetune`."""
    if not (folder / HEAD).exists():
        inside = sorted(found.parent for found in folder.rglob("*.safetensors") if found.name in (MODEL, HEAD))
        which = f"name one of the models in it, such as {inside[0]}" if inside else "name the folder of a trained model"
        raise ValueError(
            f"{folder} holds no {MODEL}: {which}; `melmask evaluate --save-probe FOLDER` and `melmask finetune "
            "--save-model FOLDER` write one"
        )
    return of_finetuned(FinetunedModel.load(folder))


def of_finetuned(model: FinetunedModel, held_out: HeldOut = NONE_HELD_OUT, about: About | None = None) -> Classifier:
    """A fine-tuned model as a classifier: its head is a linear probe of the features of its encoder."""
    weight, bias = model.linear_head()
    return Classifier(
        model.as_encoder(),
        LinearProbe(),
        {"weight": torch.cat([weight, bias[None]]).float()},
        np.zeros(len(weight)),
        np.ones(len(weight)),
        model.classes,
        model.is_multilabel,
        model.is_binary,
        held_out=held_out,
        about=about,
    )


def _classifier(parts: Parts) -> Classifier:
    tensors, metadata, encoder, classes, about = parts
    values = {name: json.loads(metadata[name]) for name in ("is_multilabel", "is_binary", "clip_s")}
    held_out = HeldOut(tensors["held_out.confidence"].numpy(), tensors["held_out.is_right"].numpy())
    state, probe = select_prefix(dict(tensors), PROBE), make_probe(metadata["probe"])
    centre, scale = tensors["centre"].numpy(), tensors["scale"].numpy()
    return Classifier(encoder, probe, state, centre, scale, classes, **values, held_out=held_out, about=about)


def _detector(parts: Parts) -> EventDetector:
    tensors, metadata, encoder, classes, about = parts
    assert isinstance(encoder, PretrainedEncoder)
    decoder = Decoder(tuple(tensors["thresholds"].tolist()), tuple(tensors["medians"].tolist()))
    centre, scale = tensors["centre"].numpy(), tensors["scale"].numpy()
    gap_s = json.loads(metadata["max_gap_s"])
    return EventDetector(encoder, tensors["weight"], centre, scale, decoder, classes, gap_s, about)


KINDS: dict[str, type] = {"classifier": Classifier, "detector": EventDetector}
LOADERS: dict[str, Callable[[Parts], Model]] = {"classifier": _classifier, "detector": _detector}
