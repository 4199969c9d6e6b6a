"""Market-1501 (Zheng et al., ICCV 2015): 1,501 persons, 6 cameras."""

from __future__ import annotations

import re

from calr_cli.prepare.datasets.layout import ITSELF, DatasetLayout, Download, FlatVersion, OfficialCounts

# 0000 marks distractors, which belong to the gallery; -1 marks junk, which does not.
MARKET1501 = DatasetLayout(
    name="market1501",
    title="Market-1501",
    aliases=("market", "market-1501"),
    mark=re.compile(ITSELF + r"market", re.IGNORECASE),
    source="open to all for research; calr prepare-data --download fetches it",
    official=OfficialCounts(
        images=(12936, 3368, 15913),
        ids=(751, 750, 751),  # the gallery's count holds the distractors as one
        train_per_camera=(2017, 1709, 2707, 920, 2338, 3245),
    ),
    versions=(
        FlatVersion(
            name="v15.09.15",
            folders=("bounding_box_train", "query", "bounding_box_test"),
            pattern=re.compile(r"(?P<pid>-1|\d{1,9})_c(?P<camera>\d{1,3})s\d+_", re.ASCII),
            num_cameras=6,
            example="0001_c1s1_001051_00.jpg",
        ),
    ),
    download=Download(
        file_name="Market-1501-v15.09.15.zip",
        drive_id="0B8-rUzbwVRk0c054eEozWG9COHM",
        resource_key="0-8nyl7K9_x37HlQm34MmrYQ",
        md5="65005ab7d12ec1c44de4eeafe813e68a",
    ),
)
