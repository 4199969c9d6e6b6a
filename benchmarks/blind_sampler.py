"""The program `calr` with a sampler that does not look at cameras: what that part of the method gives.

    python benchmarks/blind_sampler.py train-inter -d market1501 --set inter.epochs=12

The sampler has no setting that would do this, since nobody would train with it; recipes.py measures it. On
one device only: other processes would have the ordinary sampler.
"""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np

from calr_cli.cli.app import main
from calr_cli.data.samplers import cluster_batches
from calr_cli.method import inter
from calr_cli.types import IntArray


def blind_batches(labels: IntArray, camids: IntArray, **others: Any) -> IntArray:
    """Batches as if all images came from one camera."""
    return cluster_batches(labels, np.zeros_like(camids), **others)


if __name__ == "__main__":
    with patch.object(inter, "cluster_batches", blind_batches):
        main()
