"""Whether a model is one: a weight that is no number makes every feature one that is none."""

from __future__ import annotations

from pathlib import Path

import torch

from calr_cli.errors import CheckpointError
from calr_cli.models.encoder import Encoder


def require_finite(encoder: Encoder, path: Path) -> None:
    """Raise unless all weights and statistics of a model are finite numbers.

    Raises:
        CheckpointError: One is not.
    """
    for name, tensor in encoder.state_dict().items():
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise CheckpointError(
                f"{path}: {bad:,} of the {tensor.numel():,} numbers of {name} are not finite",
                "Its training went wrong, or the file is damaged: take another model, or train again",
            )
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise CheckpointError(
                f"{path}: {name} has negative numbers, and a variance has none",
                "The file is damaged: take another model, or train again",
            )
