"""VeRi-776 (Liu et al., ECCV 2016): 776 vehicles, 20 cameras."""

from __future__ import annotations

import re

from calr_cli.prepare.datasets.layout import ITSELF, DatasetLayout, FlatVersion, OfficialCounts

VERI = DatasetLayout(
    name="veri",
    title="VeRi-776",
    aliases=("veri776", "veri-776"),
    # VERI-Wild and anything about verification are other things.
    mark=re.compile(ITSELF + r"veri(?![-_ ]?wild|[a-z])", re.IGNORECASE),
    source="given on request by its owners, ask at https://github.com/JDAI-CV/VeRidataset",
    official=OfficialCounts(
        images=(37778, 1678, 11579),
        ids=(576, 200, 200),
        train_per_camera=(
            *(2277, 2122, 2271, 2231, 903, 2034, 749, 1715, 1790, 2040),
            *(2061, 2276, 2190, 2734, 2650, 2417, 2603, 173, 2520, 22),
        ),
    ),
    versions=(
        FlatVersion(
            name="VeRi-776",
            folders=("image_train", "image_query", "image_test"),
            pattern=re.compile(r"(?P<pid>\d{1,9})_c(?P<camera>\d{1,3})_", re.ASCII),
            num_cameras=20,
            example="0001_c001_00016450_0.jpg",
        ),
    ),
)
