"""DukeMTMC-reID (Zheng et al., ICCV 2017): 1,404 persons, 408 distractors, 8 cameras."""

from __future__ import annotations

import re

from calr_cli.prepare.datasets.layout import ITSELF, DatasetLayout, FlatVersion, OfficialCounts

DUKEMTMCREID = DatasetLayout(
    name="dukemtmcreid",
    title="DukeMTMC-reID",
    aliases=("duke", "dukemtmc", "dukemtmc-reid"),
    mark=re.compile(ITSELF + r"duke(?!mtmc4)", re.IGNORECASE),
    source="withdrawn by its authors in 2019, so only a copy that you have can be used",
    official=OfficialCounts(
        images=(16522, 2228, 17661),
        ids=(702, 702, 702 + 408),
        train_per_camera=(2809, 3009, 1088, 1395, 1685, 3700, 1330, 1506),
    ),
    versions=(
        FlatVersion(
            name="DukeMTMC-reID",
            folders=("bounding_box_train", "query", "bounding_box_test"),
            pattern=re.compile(r"(?P<pid>\d{1,9})_c(?P<camera>\d{1,3})_f\d+", re.ASCII),
            num_cameras=8,
            example="0005_c2_f0046985.jpg",
        ),
    ),
)
