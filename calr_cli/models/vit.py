"""Vision transformers: an image batch in, one token per patch and a class token out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from calr_cli.errors import ConfigError
from calr_cli.models.ibn import InstanceBatchNorm

PATCH = 16
DEPTH = 12
MLP_RATIO = 4
NORM_EPS = 1e-6
STEM_CHANNELS = 64
INITIAL_STD = 0.02


@dataclass(frozen=True)
class Size:
    """Which vision transformer: length of a token, heads of attention, and whether convolutions come first.

    Attributes:
        dim: D, the length of a token.
        heads: Heads of attention.
        ics: Whether the stem is made of convolutions with IBN ("IBN-based convolution stem").
    """

    dim: int
    heads: int
    ics: bool


VITS: dict[str, Size] = {
    "vit_small": Size(384, 6, ics=False),
    "vit_base": Size(768, 12, ics=False),
    "vit_small_ics": Size(384, 6, ics=True),
}
"""The vision transformers, by their names for users."""


class VisionTransformer(nn.Module):
    """Patches, class token and position embeddings through 12 blocks and a last norm; randomly initialised.

    The state has the names of timm.

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021; the stem of ``ics``: Luo et al.,
    "Self-Supervised Pre-Training for Transformer-Based Person Re-Identification", arXiv 2111.12084.

    Args:
        arch: One of ``VITS``.
        height: Of the input, pixels.
        width: Of the input, pixels.
    """

    def __init__(self, arch: str, height: int, width: int) -> None:
        super().__init__()
        size = VITS[arch]
        self.patch_embed = PatchEmbedding(size)
        self.grid = self.patch_embed.grid(height, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + math.prod(self.grid), size.dim))
        self.blocks = nn.ModuleList(Block(size) for _ in range(DEPTH))
        self.norm = nn.LayerNorm(size.dim, NORM_EPS)
        for token in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(token, std=INITIAL_STD)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=INITIAL_STD)
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor, kept: Tensor | None = None) -> Tensor:
        """The tokens of ``images``.

        Args:
            images: (B, 3, H, W) of the size that it was made for.
            kept: (B, 24) from `draw_kept_branches`; None: all are kept.

        Returns:
            (B, 1 + patches, D), the class token first.
        """
        patches = self.patch_embed(images)  # their number by shape: len() would fix it in an exported file
        tokens = torch.cat([self.cls_token.expand(patches.shape[0], -1, -1), patches], dim=1) + self.pos_embed
        for number, block in enumerate(self.blocks):
            tokens = block(tokens, None if kept is None else kept[:, 2 * number : 2 * number + 2])
        normed: Tensor = self.norm(tokens)
        return normed


class PatchEmbedding(nn.Module):
    """Cuts images into patches of 16 x 16 pixels and makes a token of each."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        channels, patch = 3, PATCH
        self.ics = size.ics
        if size.ics:
            channels, patch = STEM_CHANNELS, PATCH // 2  # the first convolution halves the image
            self.conv = nn.Sequential(
                nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False),
                InstanceBatchNorm(channels),
                nn.ReLU(inplace=True),
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                InstanceBatchNorm(channels),
                nn.ReLU(inplace=True),
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
            )
        self.proj = nn.Conv2d(channels, size.dim, patch, stride=patch)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches; what is left at the right and at the bottom is not seen."""
        if self.ics:
            return (height + 1) // 2 // (PATCH // 2), (width + 1) // 2 // (PATCH // 2)
        return height // PATCH, width // PATCH

    def forward(self, images: Tensor) -> Tensor:
        """(B, patches, D) of ``images`` (B, 3, H, W), row by row."""
        patches: Tensor = self.proj(self.conv(images) if self.ics else images)
        return patches.flatten(2).transpose(1, 2)


class Block(nn.Module):
    """Attention among all tokens, then two layers on each of them; both add to what comes in."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(size.dim, NORM_EPS)
        self.attn = Attention(size)
        self.norm2 = nn.LayerNorm(size.dim, NORM_EPS)
        self.mlp = Mlp(size.dim)

    def forward(self, tokens: Tensor, kept: Tensor | None) -> Tensor:
        """Tokens (B, T, D) of tokens; ``kept`` (B, 2): factors of the two branches."""
        mixed = self.attn(self.norm1(tokens))
        tokens = tokens + (mixed if kept is None else mixed * kept[:, 0, None, None])
        changed = self.mlp(self.norm2(tokens))
        added: Tensor = tokens + (changed if kept is None else changed * kept[:, 1, None, None])
        return added


class Attention(nn.Module):
    """Self-attention with several heads."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.heads
        self.qkv = nn.Linear(size.dim, 3 * size.dim)
        self.proj = nn.Linear(size.dim, size.dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, D) of tokens."""
        split = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(*split.unbind(0))  # (B, heads, T, D / heads)
        projected: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return projected


class Mlp(nn.Module):
    """Two layers with GELU between them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, MLP_RATIO * dim)
        self.fc2 = nn.Linear(MLP_RATIO * dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, D) of tokens."""
        changed: Tensor = self.fc2(functional.gelu(self.fc1(tokens)))
        return changed


class ClassToken(nn.Module):
    """The class token as the feature of the image."""

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, D) of ``tokens`` (B, 1 + patches, D)."""
        return tokens[:, 0]


class MeanOfPatches(nn.Module):
    """The mean of all tokens but the class token."""

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, D) of ``tokens`` (B, 1 + patches, D)."""
        return tokens[:, 1:].mean(dim=1)


def build_token_pooling(name: str) -> nn.Module:
    """The pooling of tokens called ``cls`` or ``avg``, (B, 1 + patches, D) to (B, D).

    Raises:
        ConfigError: ``name`` is neither.
    """
    if name == "cls":
        return ClassToken()
    if name == "avg":
        return MeanOfPatches()
    raise ConfigError(f"unknown pooling '{name}' of a vision transformer", "Known: cls, avg")


def draw_kept_branches(count: int, rate: float, rng: np.random.Generator) -> Tensor:
    """Which branches of which blocks each of ``count`` images goes through: stochastic depth.

    A branch is left out with a probability that rises from 0 in the first block to ``rate`` in the last.

    Source: Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016.

    Returns:
        (count, 24) float32, attention and layers of each block in turn: 0, or 1 over the probability to keep.
    """
    keep = 1 - np.repeat(np.linspace(0, rate, DEPTH), 2)
    return torch.from_numpy(((rng.random((count, 2 * DEPTH)) < keep) / keep).astype(np.float32))


def grid_of(patches: int) -> tuple[int, int] | None:
    """Rows and columns of a file's patches, by the usual proportions of inputs; None if none of them fits.

    >>> grid_of(128), grid_of(196), grid_of(192), grid_of(210)
    ((16, 8), (14, 14), (24, 8), None)
    """
    for ratio in (1, 2, 3):
        columns = math.isqrt(patches // ratio)
        if columns and ratio * columns**2 == patches:
            return ratio * columns, columns
    return None


def resampled(pos_embed: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Position embeddings for another grid: bilinear, the class token's kept.

    Args:
        pos_embed: (1, 1 + rows * columns, D).
        old: Its rows and columns.
        new: Those of the result.
    """
    if old == new:
        return pos_embed
    token, patches = pos_embed[:, :1], pos_embed[:, 1:]
    image = patches.transpose(1, 2).unflatten(2, old)
    image = functional.interpolate(image, size=new, mode="bilinear", align_corners=False)
    return torch.cat([token, image.flatten(2).transpose(1, 2)], dim=1)
