"""What the benchmarks of training compare with: MSM-MAE and M2D as one first writes them down from the papers.

Patches are embedded by a convolution, all of them, then shuffled by sorted noise; the decoder unshuffles them and says
something about every patch; attention is three lines; AdamW is torch's default; the moving average goes parameter by
parameter; every clip is a file. Nothing is slowed down on purpose, and a test holds the losses against melmask's.

Source: arXiv 2111.06377 (shuffle and unshuffle), 2204.12260, 2210.14648.
"""

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from melmask.nn.vit import Size, init_weights
from melmask.patches import patchify, sincos_positions
from melmask.train.recipe import Recipe
from melmask.types import PatchGrid

EPS = 1e-6
DECAY = 0.99995  # of the moving average; its time does not depend on it


class PlainBlock(nn.Module):
    """Attention and two linear layers, each after a norm and beside a shortcut."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=EPS), nn.LayerNorm(dim, eps=EPS)
        self.attn, self.mlp = nn.Module(), nn.Module()  # so that the parameters have timm's names
        self.attn.qkv, self.attn.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        b, t, d = tokens.shape
        qkv = self.attn.qkv(self.norm1(tokens)).reshape(b, t, 3, self.heads, d // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attention = (query @ key.transpose(2, 3) / (d // self.heads) ** 0.5).softmax(dim=3)
        tokens = tokens + self.attn.proj((attention @ value).transpose(1, 2).reshape(b, t, d))
        return tokens + self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(tokens))))


class PlainEncoder(nn.Module):
    """A ViT that embeds all patches and then keeps those at ``index``."""

    def __init__(self, size: Size, grid: PatchGrid, patch_shape: tuple[int, int]) -> None:
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(1, size.dim, patch_shape, stride=patch_shape)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.dim))
        self.register_buffer("positions", sincos_positions(grid, size.dim)[None], persistent=False)
        self.blocks = nn.ModuleList(PlainBlock(size.dim, size.heads) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.dim, eps=EPS)
        self.apply(init_weights)

    def forward(self, log_mel: Tensor, index: Tensor | None = None) -> Tensor:
        tokens = self.patch_embed.proj(log_mel[:, None]).flatten(2).transpose(1, 2) + self.positions
        if index is not None:
            tokens = pick(tokens, index)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)


class PlainDecoder(nn.Module):
    """Puts learnt tokens where patches are masked, in the order of the input, and says something about every patch."""

    def __init__(self, size: Size, grid: PatchGrid, encoder_dim: int, out_dim: int) -> None:
        super().__init__()
        self.embed = nn.Linear(encoder_dim, size.dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, size.dim))
        positions = torch.cat([torch.zeros(1, size.dim), sincos_positions(grid, size.dim)])
        self.register_buffer("positions", positions[None], persistent=False)
        self.blocks = nn.ModuleList(PlainBlock(size.dim, size.heads) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.dim, eps=EPS)
        self.pred = nn.Linear(size.dim, out_dim)
        self.apply(init_weights)

    def forward(self, latent: Tensor, unshuffle: Tensor) -> Tensor:
        tokens = self.embed(latent)
        num_masked = unshuffle.shape[1] - (tokens.shape[1] - 1)
        mask_tokens = self.mask_token.expand(len(tokens), num_masked, -1)
        patches = pick(torch.cat([tokens[:, 1:], mask_tokens], dim=1), unshuffle)
        tokens = torch.cat([tokens[:, :1], patches], dim=1) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        return self.pred(self.norm(tokens))[:, 1:]


class PlainMSMMAE(nn.Module):
    """Rebuild the masked patches, each normalised over its own values."""

    def __init__(self, encoder: Size, decoder: Size, grid: PatchGrid, patch_shape: tuple[int, int]) -> None:
        super().__init__()
        self.patch_shape = patch_shape
        self.encoder = PlainEncoder(encoder, grid, patch_shape)
        self.decoder = PlainDecoder(decoder, grid, encoder.dim, patch_shape[0] * patch_shape[1])

    def forward(self, log_mel: Tensor, shuffle: Tensor, num_visible: int) -> Tensor:
        unshuffle = shuffle.argsort(dim=1)
        predicted = self.decoder(self.encoder(log_mel, shuffle[:, :num_visible]), unshuffle)
        target = patchify(log_mel, self.patch_shape)
        mean, variance = target.mean(dim=2, keepdim=True), target.var(dim=2, keepdim=True)
        error = ((predicted - (target - mean) / (variance + EPS).sqrt()) ** 2).mean(dim=2)
        is_masked = (unshuffle >= num_visible).float()
        return (error * is_masked).sum() / is_masked.sum()

    def after_step(self, decay: float) -> None:
        """Nothing follows a step."""


class PlainM2D(nn.Module):
    """Predict what a slowly following encoder makes of the masked patches, each target standardised by itself."""

    def __init__(self, encoder: Size, predictor: Size, grid: PatchGrid, patch_shape: tuple[int, int]) -> None:
        super().__init__()
        self.encoder = PlainEncoder(encoder, grid, patch_shape)
        self.target = copy.deepcopy(self.encoder).requires_grad_(False)
        self.predictor = PlainDecoder(predictor, grid, encoder.dim, encoder.dim)

    def forward(self, log_mel: Tensor, shuffle: Tensor, num_visible: int) -> Tensor:
        visible, masked = shuffle[:, :num_visible], shuffle[:, num_visible:]
        predicted = pick(self.predictor(self.encoder(log_mel, visible), shuffle.argsort(dim=1)), masked)
        with torch.no_grad():
            target = self.target(log_mel, masked)[:, 1:]
            mean, variance = target.mean(dim=2, keepdim=True), target.var(dim=2, keepdim=True, unbiased=False)
            target = (target - mean) / (variance + EPS).sqrt()
        return ((F.normalize(predicted, dim=2) - F.normalize(target, dim=2)) ** 2).sum(dim=2).mean()

    @torch.no_grad()
    def after_step(self, decay: float) -> None:
        """Move the target encoder, parameter by parameter."""
        for slow, fast in zip(self.target.parameters(), self.encoder.parameters(), strict=True):
            slow.mul_(decay).add_(fast, alpha=1 - decay)


PLAIN: dict[str, type[PlainM2D | PlainMSMMAE]] = {"m2d": PlainM2D, "msm-mae": PlainMSMMAE}


def pick(tokens: Tensor, index: Tensor) -> Tensor:
    """The tokens at ``index`` of each sample."""
    return torch.gather(tokens, 1, index[:, :, None].expand(-1, -1, tokens.shape[2]))


def copy_weights(plain: nn.Module, ours: nn.Module) -> None:
    """Give a plain module the weights of melmask's; only the shape of the patch embedding differs."""
    shapes = {name: weight.shape for name, weight in plain.state_dict().items()}
    plain.load_state_dict({name: weight.reshape(shapes[name]) for name, weight in ours.state_dict().items()})


class ClipFiles(Dataset):
    """One .npy file [mel, frame] per clip: read whole, normalised, cropped at random."""

    def __init__(self, folder: Path, crop_frames: int, mean: float, std: float) -> None:
        self.paths = sorted(folder.glob("*.npy"))
        self.crop_frames, self.mean, self.std = crop_frames, mean, std

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: int) -> Tensor:
        log_mel = torch.from_numpy(np.load(self.paths[item]))
        start = int(torch.randint(log_mel.shape[1] - self.crop_frames + 1, ()))
        return (log_mel[:, start : start + self.crop_frames] - self.mean) / self.std


class PlainTrainer:
    """The plain loop, a step at a time, at the settings of a recipe."""

    def __init__(self, recipe: Recipe, num_mels: int, clips: ClipFiles) -> None:
        self.recipe, grid = recipe, recipe.grid(num_mels)
        self.num_patches = grid.num_patches
        self.num_visible = int(grid.num_patches * (1 - recipe.mask_ratio))
        self.model = PLAIN[recipe.framework](recipe.encoder_size, recipe.decoder_size, grid, recipe.patch_shape)
        self.optimiser = torch.optim.AdamW(
            [parameter for parameter in self.model.parameters() if parameter.requires_grad],
            lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay,
        )  # fmt: skip
        self.batches = self._batches(DataLoader(clips, recipe.batch_size, shuffle=True, drop_last=True))

    def step(self) -> float:
        """Read a batch, mask it, learn from it; the loss."""
        log_mel = next(self.batches)
        shuffle = torch.rand(len(log_mel), self.num_patches).argsort(dim=1)
        loss = self.model(log_mel, shuffle, self.num_visible)
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.grad_clip)
        self.optimiser.step()
        self.model.after_step(DECAY)
        return loss.item()

    @staticmethod
    def _batches(loader: DataLoader) -> Iterator[Tensor]:
        while True:
            yield from loader
