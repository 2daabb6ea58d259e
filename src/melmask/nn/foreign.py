"""Weights as others save them, under one set of names: those of the published code of MAE, MSM-MAE and M2D."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melmask.files import read_pickle, read_tensors

PICKLES = (".pth", ".pt", ".ckpt", ".bin")
CONFIG, FRONT_END, IN_PICKLE = (
    "config.json",
    "preprocessor_config.json",
    "pytorch_model.bin",
)  # of a Hugging Face folder
PATCH_WEIGHT = "patch_embed.proj.weight"
IN_TRANSFORMERS = "patch_embeddings.projection.weight"
STATISTICS = "norm_stats"  # mean and standard deviation of the log-mels, where a file has them

# The names of a ViTMAE in transformers 4 and 5, and what they are here, in the order of application.
RENAMED = (
    (r"^vit\.", ""),
    (r"^decoder\.mask_token$", "mask_token"),
    (r"^decoder\.decoder_(?:layers|encoder\.layer)\.", "decoder_blocks."),
    (r"^decoder\.decoder_", "decoder_"),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^(encoder\.layer|layers)\.", "blocks."),
    (r"\.attention\.(?:attention\.)?(?:query|q_proj)\.", ".attn.q."),
    (r"\.attention\.(?:attention\.)?(?:key|k_proj)\.", ".attn.k."),
    (r"\.attention\.(?:attention\.)?(?:value|v_proj)\.", ".attn.v."),
    (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"^layernorm\.", "norm."),
)


@dataclass(frozen=True)
class State:
    """What a file or folder holds.

    Args:
        tensors: of the model, in float32, under the names of MAE's code, such as ``blocks.0.attn.qkv.weight``.
        config: of a Hugging Face folder; empty for a file.
        left_out: names of tensors outside the model, such as a classifier's.
    """

    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]
    left_out: tuple[str, ...]


def is_foreign(path: Path) -> bool:
    """Whether a path is of a kind that only others write: a file of torch.save, or a folder with config.json."""
    return path.suffix in PICKLES or (path / CONFIG).is_file()


def read_config(folder: Path) -> dict[str, Any]:
    """The settings in config.json of a Hugging Face folder.

    Raises:
        ValueError: it is missing or damaged.
    """
    try:
        return dict(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{folder / CONFIG} cannot be read: {error}") from error


def holds_transformer(names: Iterable[str]) -> bool:
    """Whether one of these tensors is the patch embedding of a vision transformer."""
    return any(name.endswith((PATCH_WEIGHT, IN_TRANSFORMERS)) for name in names)


def read_state(path: Path) -> State:
    """Read a file of torch.save, a safetensors file, or a Hugging Face folder; none is executed.

    Raises:
        ValueError: it cannot be read, or holds no vision transformer or several.
    """
    config: dict[str, Any] = {}
    if path.is_dir():
        found, config = _read_folder(path)
    elif path.suffix in PICKLES:
        found = _tensors_of(path, read_pickle(path))
    else:
        found = read_tensors(path)[0]
    if any(name.endswith(IN_TRANSFORMERS) for name in found):
        found = _of_transformers(path, found)
    ends = [name for name in found if f".{name}".endswith(f".{PATCH_WEIGHT}")]
    prefix = _only(path, ends).removesuffix(PATCH_WEIGHT)
    inside = {name.removeprefix(prefix): tensor.float() for name, tensor in found.items() if name.startswith(prefix)}
    outside = {name: tensor for name, tensor in found.items() if not name.startswith(prefix)}
    if STATISTICS in outside:
        inside[STATISTICS] = outside.pop(STATISTICS).float()
    return State(inside, config, tuple(outside))


def names_in(folder: Path) -> list[str]:
    """The names of all tensors in the safetensors files of a folder.

    Raises:
        ValueError: a file is damaged.
    """
    return [name for file in sorted(folder.glob("*.safetensors")) for name in read_tensors(file)[0]]


def shortened(names: Iterable[str], most: int = 8) -> str:
    """Names for a message, the first few in full.

    >>> shortened(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def _read_folder(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All tensors of a Hugging Face folder, and its config.json."""
    config = read_config(folder)
    files = sorted(folder.glob("*.safetensors"))
    if not files and (folder / IN_PICKLE).exists():
        return _tensors_of(folder / IN_PICKLE, read_pickle(folder / IN_PICKLE)), config
    if not files:
        raise ValueError(f"{folder} holds no weights: neither model.safetensors nor {IN_PICKLE}")
    return {name: tensor for file in files for name, tensor in read_tensors(file)[0].items()}, config


def _tensors_of(path: Path, content: Any) -> dict[str, Tensor]:
    """The weights in what torch.save saved: the dict itself, or one in it, beside an optimiser's state or settings."""
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, no dict of weights")
    levels = {"": content} | {str(key): value for key, value in content.items() if isinstance(value, Mapping)}
    held = {
        key: {str(name): value for name, value in level.items() if isinstance(value, Tensor)}
        for key, level in levels.items()
    }
    models = [key for key, tensors in held.items() if holds_transformer(tensors)]
    found = held[_only(path, models)]
    stray = content.get(STATISTICS)
    return found | ({STATISTICS: torch.as_tensor(stray)} if stray is not None and STATISTICS not in found else {})


def _only(path: Path, found: list[str]) -> str:
    """The only one of the names under which a vision transformer is found."""
    if len(found) != 1:
        several = f"several: {', '.join(map(repr, found))}" if found else "none"
        raise ValueError(f"{path} should hold one vision transformer, with a tensor {PATCH_WEIGHT}; it holds {several}")
    return found[0]


def _of_transformers(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ViTMAE of transformers under the names of MAE's code; query, key and value become one tensor."""
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    for name in [name for name in renamed if ".attn.q." in name]:
        parts = [name.replace(".attn.q.", f".attn.{part}.") for part in "qkv"]
        missing = [part for part in parts if part not in renamed]
        if missing:
            raise ValueError(f"{path} lacks {shortened(missing)}")
        renamed[name.replace(".attn.q.", ".attn.qkv.")] = torch.cat([renamed.pop(part) for part in parts])
    return renamed
