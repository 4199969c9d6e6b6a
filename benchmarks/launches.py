"""What one training step asks of a GPU: operations, what they start, waits of the host, copied bytes.

python benchmarks/launches.py

No GPU is needed: the step runs on the device of the tests that pretends to be one, and counts. An operation
that only makes a view launches nothing; one that works on a list of tensors counts once, though it may start
several kernels. The height of an image changes nothing but the bytes of the pixels, which are counted for
``--height``, so the images are 16 pixels high.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import table, write_json

from calr_cli.config.loading import resolve_settings
from calr_cli.data.samplers import cluster_batches
from calr_cli.method.build import build_augmentation, build_losses
from calr_cli.method.inter import inter_networks
from calr_cli.training.objective import Objective
from calr_cli.training.reproducibility import keyed_rng
from calr_cli.training.step import Batching, TrainingStep
from calr_cli.transfer import to_device

ROOT = Path(__file__).parents[1]
ROWS, CLUSTERS, CAMERAS = 16, 200, 6
RECIPES = ["calr", "plus"]


def counted(recipe: str, options: argparse.Namespace) -> dict[str, Any]:
    """The record of the second step of stage 2 with the default settings of a recipe."""
    flags = {
        "model.arch": ("", options.arch),
        "model.pretrained": ("", "none"),
        "inter.batch_size": ("", options.batch_size),
        "inter.num_instances": ("", min(16, options.batch_size)),
    }
    settings = resolve_settings(None, None, flags=flags, recipe=None if recipe == "calr" else recipe).settings
    sys.path.insert(0, str(ROOT))
    pretended_cuda = importlib.import_module("tests.support.pretended_cuda").pretended_cuda
    rng = np.random.default_rng(0)
    labels, camids = np.repeat(np.arange(CLUSTERS), 20), rng.integers(0, CAMERAS, 20 * CLUSTERS)
    batches = cluster_batches(
        labels,
        camids,
        batch_size=options.batch_size,
        num_instances=settings.inter.num_instances,
        iterations=2,
        rng=rng,
    )
    with pretended_cuda(bf16=True) as record:
        device = torch.device("cuda", 0)
        networks, alignment = inter_networks(settings, CAMERAS, device)
        features = rng.normal(size=(len(labels), networks.encoder.feature_dim)).astype(np.float32)
        terms = [
            loss(torch.from_numpy(loss.start(features, labels, camids)).to(device), labels, camids)
            for loss in build_losses(settings, settings.inter).values()
        ]
        weights = np.ones(CLUSTERS, np.float32)
        take_step = TrainingStep(
            networks,
            Objective(terms, labels, camids, weights, alignment),
            options.batch_size,
            Batching(
                build_augmentation(settings, networks.encoder),
                partial(keyed_rng, 0),
                settings.batch_norm_group_size,
            ),
        )
        blocks = [
            torch.empty((options.batch_size, ROWS, options.width, 3), dtype=torch.uint8, pin_memory=True)
            for _ in batches
        ]
        for iteration, (batch, block) in enumerate(zip(batches, blocks, strict=True)):
            record.clear()
            take_step(iteration, batch, to_device(block.random_(), device))
            in_step = sum(record.launches.values())
            networks.follow()
        return {
            "step": recipe,
            "operations": sum(record.operations.values()),
            "launches": sum(record.launches.values()),
            "of the average": sum(record.launches.values()) - in_step,
            "waits": len(record.waits),
            "copied MB": (record.copied + blocks[0].nbytes * (options.height - ROWS) // ROWS) / 1e6,
            "of pixels MB": blocks[0].nbytes * options.height // ROWS / 1e6,
            "where": sorted({f"{wait.why} at {wait.where}" for wait in record.waits}),
            "most": dict(record.launches.most_common(12)),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", choices=RECIPES, nargs="+", default=RECIPES)
    parser.add_argument("-a", "--arch", default="resnet50")
    parser.add_argument("-b", "--batch-size", type=int, default=256)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [counted(recipe, options) for recipe in options.recipe]
    columns = ["step", "operations", "launches", "of the average", "waits", "copied MB", "of pixels MB"]
    print(table(f"{options.arch}, batch of {options.batch_size}, one GPU that is pretended", rows, columns))
    for row in rows:
        for where in row["where"]:
            print(f"{row['step']}: {where}")
    write_json(options.json, {"rows": rows})


if __name__ == "__main__":
    main()
