"""calr: unsupervised re-identification by camera-aware label refinement (arXiv 2403.16450)."""

__version__ = "0.1.0"
