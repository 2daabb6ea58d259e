"""Published weights of masked autoencoders of spectrograms, in melmask's form: nothing of them is trained here."""

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from melmask.logmel import PUBLISHED_SPECS, LogMelSpec
from melmask.nn.foreign import PATCH_WEIGHT, STATISTICS, State, read_state, shortened
from melmask.nn.vit import Encoder, Size
from melmask.patches import PositionOrder, sincos_positions
from melmask.types import PatchGrid

AUDIOSET_MEAN, AUDIOSET_STD = -7.1, 4.2  # of log-mels: published with M2D and MSM-MAE
HEAD_DIM = 64  # of all published encoders: shapes say the width of attention, not its heads
TABLE_TOLERANCE = 2e-3  # of a table of positions, perhaps saved in half precision, from the exact one
SAY_IT = "import it by `melmask import` with"
OF_ENCODER = ("cls_token", "patch_embed.", "blocks.", "norm.")
OF_DECODER = ("decoder_embed.", "decoder_blocks.", "decoder_norm.", "decoder_pred.", "mask_token")
TARGET = "target_"
TABLES = ("pos_embed", "decoder_pos_embed")
NAMED = re.compile(r"(\d+)x(\d+)p(\d+)x(\d+)(?:p(\d+)k)?(?!\d)")


@dataclass(frozen=True)
class Unstated:
    """What the tensors of a published file do not say; None for what the file's name says, or what was published.

    Args:
        sample_rate_hz: of the recordings, in Hz: 16000 or 32000. The rest of the front end follows from it.
        num_mels: number of mel bands.
        crop_frames: length of the crops that it was trained on, in frames.
        heads: attention heads of each block of the encoder.
        mean: of the log-mel values of the training data.
        std: their standard deviation.
    """

    sample_rate_hz: int | None = None
    num_mels: int | None = None
    crop_frames: int | None = None
    heads: int | None = None
    mean: float | None = None
    std: float | None = None


@dataclass(frozen=True)
class Published:
    """Published weights, in melmask's form.

    Args:
        encoder: the network.
        spec: the log-mel settings of its input.
        mean: of the log-mel values of its training data.
        std: their standard deviation.
        crop_frames: length of the crops that it was trained on, in frames.
        framework: that trained it: "m2d" or "msm-mae", as its decoder and target say, or "" without them.
        decoder: width and depth of its decoder or predictor; None without one.
        beside: the weights of decoder, predictor and target encoder, under melmask's names.
    """

    encoder: Encoder
    spec: LogMelSpec
    mean: float
    std: float
    crop_frames: int
    framework: str
    decoder: tuple[int, int] | None
    beside: Mapping[str, Tensor]


@dataclass(frozen=True)
class Named:
    """What the name of a file or of its folder says, as in ``m2d_vit_base-80x608p16x16p32k-...``.

    >>> Named.of(Path("m2d_vit_base-80x608p16x4-mr7/checkpoint-300.pth")).patch_shape
    (16, 4)
    """

    num_mels: int | None = None
    num_frames: int | None = None
    patch_shape: tuple[int, int] | None = None
    sample_rate_hz: int | None = None

    @staticmethod
    def of(path: Path) -> "Named":
        """What a path says; nothing if it is not named so."""
        found = NAMED.search(path.name) or NAMED.search(path.absolute().parent.name)
        if not found:
            return Named()
        mels, frames, freq, time, rate = (int(number) if number else None for number in found.groups())
        assert freq is not None and time is not None
        return Named(mels, frames, (freq, time), rate * 1000 if rate else (16_000 if "p16k" in found[0] else None))


AS_PUBLISHED = Unstated()


def read_published(path: Path, unstated: Unstated = AS_PUBLISHED) -> Published:
    """Read weights that M2D or MSM-MAE published, or a Hugging Face folder of a masked autoencoder of spectrograms.

    A warning names tensors that are no part of encoder, decoder and target, such as a classifier's.

    Args:
        path: a .pth file, with the whole model or its encoder alone; a safetensors file; or a folder with config.json
            and model.safetensors. Its name or that of its folder may say the form, as in ``80x608p16x4``.
        unstated: what to take in place of the name or of what was published.

    Raises:
        ValueError: it cannot be read; tensors are missing, unknown or of wrong shapes, which are named; its positions
            are learnt; or what its name says is not what its tensors say.
    """
    state, named = read_state(path), Named.of(path)
    if is_audiomae(state.config):
        raise ValueError(f"{path} is an AudioMAE, which has a front end of its own: it can only be named as hf:{path}")
    form = _Form.of(path, state, named, unstated)
    encoder = form.encoder(path, state.tensors)
    framework, beside = form.beside(state.tensors)
    known = (*OF_ENCODER, *OF_DECODER, TARGET, *TABLES, STATISTICS)
    _warn_of_others(path, [*state.left_out, *(name for name in state.tensors if not name.startswith(known))])
    statistics = state.tensors.get(STATISTICS, torch.tensor([AUDIOSET_MEAN, AUDIOSET_STD], dtype=torch.float64))
    if statistics.numel() != 2:
        raise ValueError(f"{path}: {STATISTICS} should hold two numbers, and has the shape {list(statistics.shape)}")
    mean, std = statistics.flatten().tolist()
    rate = unstated.sample_rate_hz or named.sample_rate_hz or 16_000
    if rate not in PUBLISHED_SPECS:
        raise ValueError(
            f"{path}: weights were published for {', '.join(map(str, PUBLISHED_SPECS))} Hz, not for {rate}"
        )
    return Published(
        encoder=encoder,
        spec=replace(PUBLISHED_SPECS[rate], num_mels=form.num_mels),
        mean=mean if unstated.mean is None else unstated.mean,
        std=std if unstated.std is None else unstated.std,
        crop_frames=unstated.crop_frames or form.grid.time * form.grid.patch[1],
        framework=framework,
        decoder=_decoder_size(state.tensors),
        beside=beside,
    )


def read_audiomae(folder: Path) -> tuple[Encoder, bool]:
    """Read the encoder of an AudioMAE from a Hugging Face folder.

    Returns:
        The encoder, and whether its last norm comes after the mean over patches, and not before.

    Raises:
        ValueError: as `read_published`.
    """
    state = read_state(folder)
    is_after = "fc_norm.weight" in state.tensors and "norm.weight" not in state.tensors
    tensors = {re.sub(r"^fc_norm\.", "norm.", name) if is_after else name: one for name, one in state.tensors.items()}
    form = _Form.of(folder, state, Named(), AS_PUBLISHED)
    known = (*OF_ENCODER, *OF_DECODER, *TABLES)
    _warn_of_others(folder, [*state.left_out, *(name for name in tensors if not name.startswith(known))])
    return form.encoder(folder, tensors), is_after


def is_audiomae(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is of AudioMAE: by its own model type, or of a port to timm by its tag."""
    return config.get("model_type") == "audiomae" or "audiomae" in config.get("pretrained_cfg", {}).get("tag", "")


def _warn_of_others(path: Path, names: Sequence[str]) -> None:
    if names:
        warnings.warn(f"{path}: tensors beside the encoder's are left out: {shortened(names)}", stacklevel=4)


@dataclass(frozen=True)
class _Form:
    """The form of an encoder, as its tensors, its name and its config say.

    Args:
        size: width, depth and heads.
        grid: of the input that it was trained on, with its patch shape.
        num_mels: mel bands of that input.
        order: of its positions.
        is_turned: whether time runs along the first axis of its input, as in AudioMAE, and not along the second.
    """

    size: Size
    grid: PatchGrid
    num_mels: int
    order: PositionOrder
    is_turned: bool

    @staticmethod
    def of(path: Path, state: State, named: Named, unstated: Unstated) -> "_Form":
        """Raises ValueError: name, config and tensors do not agree, or say too little."""
        weight, image = state.tensors[PATCH_WEIGHT], _image(state.config)
        if weight.ndim != 4 or weight.shape[1] != 1:
            raise ValueError(
                f"{path}: {PATCH_WEIGHT} has the shape {list(weight.shape)}: a convolution of one channel, "
                "[dim, 1, freq, time], is needed"
            )
        is_turned = image is not None and image[0] > image[1]
        patch = (weight.shape[3], weight.shape[2]) if is_turned else (weight.shape[2], weight.shape[3])
        if named.patch_shape not in (None, patch):
            raise ValueError(f"{path}: by its name, patches are {named.patch_shape}, by its tensors {patch}: rename it")
        num_mels = unstated.num_mels or named.num_mels or (min(image) if image else PUBLISHED_SPECS[16_000].num_mels)
        grid = _grid(path, state.tensors, patch, num_mels, unstated.crop_frames or named.num_frames)
        size = _size(path, state, unstated.heads)
        return _Form(size, grid, num_mels, _order(path, state.tensors, grid, is_turned), is_turned)

    def encoder(self, path: Path, tensors: Mapping[str, Tensor]) -> Encoder:
        """The encoder: its patches flattened, its class token with the position added.

        Raises:
            ValueError: tensors are missing, unknown or of wrong shapes, which are named.
        """
        encoder = Encoder(self.size, self.grid.patch, self.order)
        own = {name: tensor for name, tensor in tensors.items() if name.startswith(OF_ENCODER)}
        if "pos_embed" in tensors and "cls_token" in own:
            own["cls_token"] = own["cls_token"] + tensors["pos_embed"][:, :1]
        own[PATCH_WEIGHT] = self._flat(own[PATCH_WEIGHT])
        _check(path, own, encoder)
        encoder.load_state_dict(own)
        return encoder

    def beside(self, tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
        """The framework, and the weights of decoder or predictor and of the target under melmask's names."""
        target = {f"target.{name[len(TARGET) :]}": one for name, one in tensors.items() if name.startswith(TARGET)}
        if f"target.{PATCH_WEIGHT}" in target:
            target[f"target.{PATCH_WEIGHT}"] = self._flat(target[f"target.{PATCH_WEIGHT}"])
        decoder = {name.removeprefix("decoder_"): one for name, one in tensors.items() if name.startswith(OF_DECODER)}
        if not decoder:
            return ("m2d" if target else ""), target
        predicts = decoder["pred.bias"].numel() if "pred.bias" in decoder else 0
        is_m2d = bool(target) or predicts == self.size.dim != math.prod(self.grid.patch)
        if not is_m2d and self.is_turned:  # the values of a patch that it predicts are turned too
            decoder |= {name: self._turned(one) for name, one in decoder.items() if name.startswith("pred.")}
        part = "predictor" if is_m2d else "decoder"
        return ("m2d" if is_m2d else "msm-mae"), target | {f"{part}.{name}": one for name, one in decoder.items()}

    def _flat(self, weight: Float[Tensor, "d 1 high wide"]) -> Float[Tensor, "d p"]:
        """A convolution over patches as a matrix on patches flattened in the order (freq, time)."""
        return (weight.mT if self.is_turned else weight).flatten(1)

    def _turned(self, rows: Float[Tensor, "p *shape"]) -> Float[Tensor, "p *shape"]:
        """One row a value of a patch, from the order (time, freq) to (freq, time)."""
        freq, time = self.grid.patch
        return rows.unflatten(0, (time, freq)).transpose(0, 1).flatten(0, 1)


def _image(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """The sides of the input that a config.json says; None if it says none."""
    saved = config.get("image_size", config.get("img_size", config.get("pretrained_cfg", {}).get("input_size")))
    if saved is None:
        return None
    high, wide = saved[-2:] if isinstance(saved, list) else (saved, saved)
    return int(high), int(wide)


def _size(path: Path, state: State, heads: int | None) -> Size:
    """Width, depth and heads of the encoder."""
    dim = state.tensors[PATCH_WEIGHT].shape[0]
    numbers = {int(name.split(".")[1]) for name in state.tensors if re.match(r"blocks\.\d+\.", name)}
    if numbers != set(range(len(numbers))) or not numbers:
        raise ValueError(f"{path}: blocks 0 to N are needed, there are {sorted(numbers)}")
    heads = heads or state.config.get("num_attention_heads") or state.config.get("num_heads")
    if not heads and dim % HEAD_DIM:
        raise ValueError(f"{path}: shapes do not say the heads of an encoder {dim} wide: {SAY_IT} --heads")
    return Size(dim, len(numbers), int(heads or dim // HEAD_DIM))


def _decoder_size(tensors: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """Width and depth of the decoder or predictor; None without one."""
    token = tensors.get("mask_token")
    blocks = {name.split(".")[1] for name in tensors if name.startswith("decoder_blocks.")}
    return None if token is None else (token.shape[-1], len(blocks))


def _grid(
    path: Path, tensors: Mapping[str, Tensor], patch: tuple[int, int], num_mels: int, num_frames: int | None
) -> PatchGrid:
    """The grid of the training input, from the table of positions where there is one."""
    num_rows, table = num_mels // patch[0], tensors.get("pos_embed")
    if not num_rows:
        raise ValueError(
            f"{path}: patches {patch[0]} bands high do not fit into {num_mels} mel bands: {SAY_IT} --num-mels"
        )
    if table is None:
        if num_frames is None:
            raise ValueError(f"{path} has no pos_embed to say the length of input: {SAY_IT} --crop-frames")
        return PatchGrid(num_rows, num_frames // patch[1], patch)
    num_patches = table.shape[1] - 1
    if num_patches < num_rows or num_patches % num_rows:
        raise ValueError(
            f"{path}: {num_patches} positions are no multiple of the {num_rows} patches in {num_mels} mel bands: "
            f"{SAY_IT} --num-mels"
        )
    return PatchGrid(num_rows, num_patches // num_rows, patch)


def _order(path: Path, tensors: Mapping[str, Tensor], grid: PatchGrid, is_turned: bool) -> PositionOrder:
    """The order of the fixed positions: that of which the tables of the file are; as published without a table."""
    orders: list[PositionOrder] = list(get_args(PositionOrder))
    for name in TABLES:
        if name not in tensors:
            continue
        table = tensors[name][0, 1:]
        if is_turned:
            table = table.unflatten(0, (grid.time, grid.freq)).transpose(0, 1).flatten(0, 1)
        orders = [order for order in orders if _is_table(table, grid, order)]
        if not orders:
            raise ValueError(
                f"{path}: {name} is not the fixed sine-cosine table of {grid.freq} x {grid.time} patches: learnt "
                f"positions are of one length only and are not read; with other than {grid.freq * grid.patch[0]} mel "
                f"bands, {SAY_IT} --num-mels"
            )
    published: PositionOrder = "freq-time" if is_turned else "time-freq"
    return published if published in orders else orders[0]


def _is_table(table: Float[Tensor, "n d"], grid: PatchGrid, order: PositionOrder) -> bool:
    exact = sincos_positions(grid, table.shape[1], order)
    return exact.shape == table.shape and bool((table - exact).abs().max() < TABLE_TOLERANCE)


def _check(path: Path, tensors: Mapping[str, Tensor], encoder: Encoder) -> None:
    """Raise ValueError, with the names, unless these are the tensors of the encoder."""
    needed = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    faults = []
    if missing := [name for name in needed if name not in found]:
        faults.append(f"missing: {shortened(missing)}")
    if unknown := [name for name in found if name not in needed]:
        faults.append(f"of another encoder than a plain ViT: {shortened(unknown)}")
    other = [
        f"{name} {list(found[name])} in place of {list(shape)}"
        for name, shape in needed.items()
        if found.get(name, shape) != shape
    ]
    if other:
        faults.append(f"of other shapes: {shortened(other)}")
    if faults:
        raise ValueError(f"{path} is not read: tensors {'; '.join(faults)}")
