"""calr: unsupervised re-identification by camera-aware label refinement (arXiv 2403.16450)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calr_cli.pipelines.embedding import load_embedder

__version__ = "0.1.0"

__all__ = ["load_embedder"]


def __getattr__(name: str) -> Any:
    """``load_embedder``, imported when it is asked for: `calr --help` does without torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from calr_cli.pipelines import embedding

    return getattr(embedding, name)
