"""The synthetic dataset: drawn pedestrians in the folders and file names of Market-1501."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from calr_cli.errors import DataError
from calr_cli.prepare.datasets.pedestrians import SIDES, Pose, draw_person
from calr_cli.prepare.datasets.people import Person, make_people
from calr_cli.prepare.datasets.scenes import Camera, make_cameras, photograph

FOLDER = "Market-1501-v15.09.15"
SYNTHETIC_VERSION = "2"
"""Changes whenever the same arguments give other images: what was drawn before is then drawn anew."""

IMAGE_SIZE = (64, 128)
"""Width and height in pixels."""


def make_synthetic(
    root: Path, *, seed: int = 0, num_train_ids: int = 52, num_test_ids: int = 40, num_cameras: int = 4
) -> Path:
    """Draw the dataset into ``root / "Market-1501-v15.09.15"`` and return that folder.

    Each identity is seen by two to four cameras, five to seven times by each. The first image of each
    test identity and camera is a query. The same arguments give the same bytes on the same machine.
    The folder appears whole or not at all.

    Args:
        root: Data root; made if missing.
        seed: Another seed gives other people, places and cameras.
        num_train_ids: Identities in ``bounding_box_train``, from 1.
        num_test_ids: Identities in ``query`` and ``bounding_box_test``, after those of training.
        num_cameras: Cameras, 2 to 6, shared by training and test.

    Raises:
        DataError: Fewer than two cameras or more than six, or the folder exists.
        OSError: The folder cannot be written or the disk is full.
    """
    if not 2 <= num_cameras <= 6:  # names like Market-1501's are read with its six cameras
        raise DataError(f"The synthetic dataset cannot have {num_cameras} cameras", "Use 2 to 6")
    folder = root / FOLDER
    if folder.exists():
        raise DataError(f"{folder} exists", "Remove it or choose another folder")
    root.mkdir(parents=True, exist_ok=True)
    cameras = make_cameras(num_cameras, np.random.default_rng([seed, 0]))
    with TemporaryDirectory(dir=root, prefix=".synthetic.") as temporary:
        unfinished = Path(temporary) / FOLDER
        for split in ("bounding_box_train", "query", "bounding_box_test"):
            (unfinished / split).mkdir(parents=True)
        people = make_people(num_train_ids + num_test_ids, np.random.default_rng([seed, 1]))
        for pid, person in enumerate(people, start=1):
            rng = np.random.default_rng([seed, 2, pid])
            _shoot(unfinished, pid, person, cameras, rng, test=pid > num_train_ids)
        unfinished.rename(folder)
    return folder


def _shoot(
    folder: Path, pid: int, person: Person, cameras: list[Camera], rng: np.random.Generator, *, test: bool
) -> None:
    """Write all images of one identity."""
    seen = int(rng.integers(2, min(4, len(cameras)) + 1))
    for camid in sorted(rng.choice(len(cameras), seen, replace=False).tolist()):
        usual_place = float(rng.normal(0.5, 0.08))
        usual_side = int(rng.integers(len(SIDES)))
        frame = int(rng.integers(1, 2000))
        for shot in range(int(rng.integers(5, 8))):
            # People mostly keep their direction while one camera sees them.
            side = usual_side if rng.random() < 0.65 else int(rng.integers(len(SIDES)))
            pose = Pose(
                side=SIDES[side],
                phase=float(rng.uniform(0, 2 * np.pi)),
                stride=float(rng.uniform(0.25, 0.5)),
                x=IMAGE_SIZE[0] * float(rng.uniform(0.42, 0.58)),
                y=IMAGE_SIZE[1] * (cameras[camid].ground + float(rng.uniform(-0.03, 0.03))),
                height=IMAGE_SIZE[1] * cameras[camid].zoom * float(rng.uniform(0.94, 1.06)),
            )
            split = "bounding_box_train" if not test else "bounding_box_test" if shot else "query"
            name = f"{pid:04d}_c{camid + 1}s1_{frame + 25 * shot:06d}_00.jpg"
            where = min(max(usual_place + float(rng.normal(0, 0.02)), 0), 1)
            picture = photograph(draw_person(person, pose, IMAGE_SIZE), cameras[camid], where, rng)
            picture.save(folder / split / name, quality=90)
