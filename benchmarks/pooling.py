"""GeM forwards and backwards: calr's gradients against those that autograd makes of the formula.

python benchmarks/pooling.py

Feature maps of a batch of 64 images, one thread, each measurement in a fresh process; the two take turns.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measuring import fastest, in_turns, machine, table, write_json
from torch import Tensor, nn

from calr_cli.models.pooling import GeneralisedMeanPooling

MAPS = {
    "MobileNetV2 128 x 64": (64, 1280, 8, 4),
    "ResNet-50 256 x 128": (64, 2048, 16, 8),
    "tiny": (2, 8, 4, 2),
}


class Formula(GeneralisedMeanPooling):
    """The formula, left to autograd."""

    def forward(self, feature_map: Tensor) -> Tensor:
        """Pool (B, C, H, W) to (B, C)."""
        return feature_map.clamp(min=self.eps).pow(self.p).mean(dim=(2, 3)).pow(1 / self.p)


WAYS: dict[str, type[nn.Module]] = {"autograd": Formula, "calr": GeneralisedMeanPooling}


def steps(way: str, shape: tuple[int, ...], repeat: int) -> Callable[[], float]:
    """A function that takes ``repeat`` steps and returns the process time of the fastest."""
    pooling = WAYS[way]()
    draw = torch.Generator().manual_seed(0)
    # What a ReLU leaves: half of the activations are 0.
    feature_map = torch.randn(shape, generator=draw).relu_().to(memory_format=torch.channels_last)
    feature_map.requires_grad_()

    return lambda: fastest(lambda: pooling(feature_map).sum().backward(), repeat)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--map", choices=[*MAPS], nargs="+", default=list(MAPS)[:2])
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in options.map:
        seconds = in_turns(steps, WAYS, MAPS[name], options.repeat, rounds=3)
        for way in WAYS:
            share = seconds[way] / seconds["autograd"]
            rows.append({"step": name, "way": way, "ms": 1e3 * seconds[way], "of autograd's": share})
    print(table(f"GeM, {machine()}", rows, ["step", "way", "ms", "of autograd's"]))
    write_json(options.json, {"rows": rows})


if __name__ == "__main__":
    main()
