"""Files as M2D and MSM-MAE publish them, made of random weights, and a slow forward pass of one, from the papers alone.

Names and shapes are published facts; nothing here uses melmask.
"""

import math
from pathlib import Path

import numpy as np
import torch

Tensors = dict[str, torch.Tensor]


def table(num_freq: int, num_time: int, dim: int, first: str = "time") -> torch.Tensor:
    """Sine-cosine positions [1, 1 + n, dim] with zeros for the class token; ``first`` is the first half."""
    quarter = dim // 4
    rows = [np.zeros(dim)]
    for f in range(num_freq):
        for t in range(num_time):
            places = (t, f) if first == "time" else (f, t)
            angles = [[place / 10000 ** (k / quarter) for k in range(quarter)] for place in places]
            rows.append(np.concatenate([wave(one) for one in angles for wave in (np.sin, np.cos)]))
    return torch.from_numpy(np.stack(rows)).float()[None]


def blocks(name: str, dim: int, depth: int, rng: torch.Generator) -> Tensors:
    """The twelve tensors of each block, and those of the norm after them."""
    tensors: Tensors = {}
    of_block = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}  # in multiples of dim
    for i in range(depth):
        for part in ("norm1", "norm2"):
            tensors |= norm(f"{name}blocks.{i}.{part}", dim, rng)
        for part, (fan_out, fan_in) in of_block.items():
            tensors |= linear(f"{name}blocks.{i}.{part}", (fan_out * dim, fan_in * dim), rng)
    return tensors | norm(f"{name}norm", dim, rng)


def linear(name: str, shape: tuple[int, ...], rng: torch.Generator) -> Tensors:
    weight = torch.randn(shape, generator=rng) * 1.5 / math.sqrt(math.prod(shape[1:]))
    return {f"{name}.weight": weight, f"{name}.bias": 0.3 * torch.randn(shape[0], generator=rng)}


def norm(name: str, dim: int, rng: torch.Generator) -> Tensors:
    weight, bias = 1 + 0.3 * torch.randn(dim, generator=rng), 0.3 * torch.randn(dim, generator=rng)
    return {f"{name}.weight": weight, f"{name}.bias": bias}


def published_tensors(
    kind: str = "m2d",
    patch: tuple[int, int] = (16, 16),
    num_frames: int = 96,
    dim: int = 128,
    depth: int = 2,
    decoder: tuple[int, int] = (64, 1),
    seed: int = 0,
    num_mels: int = 80,
) -> Tensors:
    """All tensors of a published model: "m2d" with predictor and target, "msm-mae" with decoder, or "encoder" alone."""
    rng = torch.Generator().manual_seed(seed)
    num_freq, num_time = num_mels // patch[0], num_frames // patch[1]
    tensors = {
        "cls_token": torch.randn(1, 1, dim, generator=rng),
        "pos_embed": table(num_freq, num_time, dim),
        **linear("patch_embed.proj", (dim, 1, *patch), rng),
        **blocks("", dim, depth, rng),
    }
    if kind == "encoder":
        return tensors
    width, decoder_depth = decoder
    tensors |= {
        "mask_token": torch.randn(1, 1, width, generator=rng),
        "decoder_pos_embed": table(num_freq, num_time, width),
        **linear("decoder_embed", (width, dim), rng),
        **blocks("decoder_", width, decoder_depth, rng),
        **linear("decoder_pred", (dim if kind == "m2d" else patch[0] * patch[1], width), rng),
    }
    return tensors | (blocks("target_", dim, depth, rng) if kind == "m2d" else {})


def save_published(path: Path, tensors: Tensors) -> Path:
    """As a training script leaves them: in a dict, under "model"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": tensors}, path)
    return path


def features(
    tensors: Tensors,
    log_mel: np.ndarray,
    num_heads: int,
    chosen: list[int] | None = None,
    name: str = "",
    is_normed: bool = True,
) -> np.ndarray:
    """The encoder's output [class token and patches, dim] for one normalised spectrogram [mel, frame], in float64.

    Args:
        tensors: of a published file.
        log_mel: its sides are multiples of the patch's.
        num_heads: of each block.
        chosen: patches that it sees, at index freq * num_time + time; None for all.
        name: "target_" for the target's blocks and norm.
        is_normed: whether the norm after the blocks is applied.
    """
    weights = {key: tensor.double().numpy() for key, tensor in tensors.items()}
    kernel, bias = weights["patch_embed.proj.weight"][:, 0], weights["patch_embed.proj.bias"]
    high, wide = kernel.shape[1:]
    num_freq, num_time = log_mel.shape[0] // high, log_mel.shape[1] // wide
    tokens = [weights["cls_token"][0, 0] + weights["pos_embed"][0, 0]]
    for index in range(num_freq * num_time) if chosen is None else chosen:
        f, t = divmod(index, num_time)
        patch = log_mel[f * high : (f + 1) * high, t * wide : (t + 1) * wide]
        embedded = np.array([(one * patch).sum() for one in kernel]) + bias
        tokens.append(embedded + weights["pos_embed"][0, 1 + index])
    return transformer(weights, name, np.stack(tokens), num_heads, is_normed)


def transformer(
    weights: dict[str, np.ndarray], name: str, tokens: np.ndarray, num_heads: int, is_normed: bool = True
) -> np.ndarray:
    """Pre-norm blocks, and the norm after them."""
    i = 0
    while f"{name}blocks.{i}.norm1.weight" in weights:
        block = f"{name}blocks.{i}."
        tokens = tokens + attention(weights, f"{block}attn.", layer_norm(weights, f"{block}norm1", tokens), num_heads)
        hidden = affine(weights, f"{block}mlp.fc1", layer_norm(weights, f"{block}norm2", tokens))
        error = np.vectorize(math.erf, otypes=[float])
        tokens = tokens + affine(weights, f"{block}mlp.fc2", 0.5 * hidden * (1 + error(hidden / math.sqrt(2))))
        i += 1
    return layer_norm(weights, f"{name}norm", tokens) if is_normed else tokens


def attention(weights: dict[str, np.ndarray], name: str, tokens: np.ndarray, num_heads: int) -> np.ndarray:
    query, key, value = np.split(affine(weights, f"{name}qkv", tokens), 3, axis=1)
    width = tokens.shape[1] // num_heads
    mixed = np.empty_like(tokens)
    for head in range(num_heads):
        own = slice(head * width, (head + 1) * width)
        scores = query[:, own] @ key[:, own].T / math.sqrt(width)
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        mixed[:, own] = shares / shares.sum(axis=1, keepdims=True) @ value[:, own]
    return affine(weights, f"{name}proj", mixed)


def layer_norm(weights: dict[str, np.ndarray], name: str, tokens: np.ndarray) -> np.ndarray:
    centred = tokens - tokens.mean(axis=1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-6)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def affine(weights: dict[str, np.ndarray], name: str, tokens: np.ndarray) -> np.ndarray:
    return tokens @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def by_step(tokens: np.ndarray, num_freq: int) -> np.ndarray:
    """Features of the time steps: class token dropped, the patches of one step side by side, low to high."""
    num_time = (len(tokens) - 1) // num_freq
    return np.stack([np.concatenate([tokens[1 + f * num_time + t] for f in range(num_freq)]) for t in range(num_time)])
