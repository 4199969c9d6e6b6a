"""What a file with a vision transformer tells: which one it is, for which input, what calr cannot build."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from calr_cli.errors import CalrError
from calr_cli.models.vit import DEPTH, VITS, grid_of

POSITIONS = "backbone.pos_embed"

NOT_BUILT = {
    "part_token": "part tokens (PASS)",
    "sie_embed": "camera or view embeddings (SIE)",
    "cv_embed": "camera or view embeddings (CLIP-ReID)",
    "b1.0.norm1": "a branch for parts (JPM)",
    "dist_token": "a distillation token",
}
"""Texts in the keys of vision transformers -> what the networks of such files have and calr's do not."""


def require_buildable(path: Path, keys: Iterable[str], error_class: type[CalrError]) -> None:
    """Raise if the keys in ``path`` are those of a vision transformer with parts that calr does not have.

    Raises:
        CalrError: As ``error_class``: it has some.
    """
    text = "\n".join(keys)
    found = [words for part, words in NOT_BUILT.items() if part in text]
    if found:
        raise error_class(
            f"{path} has {' and '.join(found)}, which calr's vision transformers do not have",
            "Take a model that was trained without them",
        )


def vit_arch(path: Path, tensors: Mapping[str, Tensor], error_class: type[CalrError]) -> str | None:
    """The vision transformer that has the layers of ``tensors``, under the names of `Encoder`; None if none.

    Raises:
        CalrError: As ``error_class``: it is a vision transformer of another size.
    """
    qkv = tensors.get("backbone.blocks.0.attn.qkv.weight")
    if qkv is None or qkv.ndim == 0:
        return None
    blocks = len({name.split(".")[2] for name in tensors if name.startswith("backbone.blocks.")})
    dim, ics = qkv.shape[-1], "backbone.patch_embed.conv.0.weight" in tensors
    for arch, size in VITS.items():
        if (blocks, dim, ics) == (DEPTH, size.dim, size.ics):
            return arch
    stem = "a stem of convolutions" if ics else "no stem of convolutions"
    raise error_class(
        f"{path} is a vision transformer of {blocks} blocks, {dim} channels and {stem}: calr has no such one",
        f"Known are {', '.join(f'{arch} ({DEPTH}, {size.dim})' for arch, size in VITS.items())}",
    )


def grid_in(tensors: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """Rows and columns of patches that position embeddings are for; None if their number does not tell."""
    positions = tensors.get(POSITIONS)
    return None if positions is None or positions.ndim != 3 else grid_of(positions.shape[1] - 1)
