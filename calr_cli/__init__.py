"""calr: unsupervised re-identification by camera-aware label refinement (arXiv 2403.16450)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from calr_cli.version import __version__

if TYPE_CHECKING:
    from calr_cli.use.embedding import load_embedder

__all__ = ["__version__", "load_embedder"]


def __getattr__(name: str) -> Any:
    """``load_embedder``, imported when it is asked for: `calr --help` does without torch."""
    if name != "load_embedder":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from calr_cli.use import embedding

    return getattr(embedding, name)
