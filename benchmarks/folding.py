"""Forward passes of extraction: batch norms folded into convolutions, against the network as it is trained.

python benchmarks/folding.py

Batches of 64 images, one thread, each measurement in a fresh process; the two take turns.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measuring import fastest, in_turns, machine, table, write_json

from calr_cli.models.encoder import Encoder
from calr_cli.models.folding import fold_batch_norms

NETWORKS = {
    "mobilenet_v2": (64, 128, 64),
    "resnet18": (64, 128, 64),
    "resnet50": (64, 256, 128),
    "tiny": (2, 32, 16),
}
"""Name -> images, height, width; ``tiny`` is a resnet18."""
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
WAYS = ("as trained", "folded")


def passes(way: str, network: str, precision: str, repeat: int) -> Callable[[], float]:
    """A function that makes ``repeat`` forward passes and returns the process time of the fastest."""
    encoder = Encoder("resnet18" if network == "tiny" else network).eval()
    encoder.precision = PRECISIONS[precision]
    if way == "folded":
        encoder = fold_batch_norms(encoder)
    count, height, width = NETWORKS[network]
    images = torch.rand(count, 3, height, width).to(memory_format=torch.channels_last)

    return torch.inference_mode()(lambda: fastest(lambda: encoder(images), repeat))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=[*NETWORKS], nargs="+", default=list(NETWORKS)[:3])
    parser.add_argument("--precision", choices=[*PRECISIONS], nargs="+", default=list(PRECISIONS))
    parser.add_argument("--repeat", type=int, default=4)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for network in options.network:
        for precision in options.precision:
            seconds = in_turns(passes, WAYS, network, precision, options.repeat, rounds=2)
            for way in WAYS:
                rate = NETWORKS[network][0] / seconds[way]
                gain = seconds["as trained"] / seconds[way]
                step = f"{network} {precision}"
                rows.append({"step": step, "way": way, "images/s": rate, "of as trained": gain})
    print(table(f"extraction, {machine()}", rows, ["step", "way", "images/s", "of as trained"]))
    write_json(options.json, {"rows": rows})


if __name__ == "__main__":
    main()
