"""Training steps on all threads beside other programs: threads that spin long, briefly, or not at all.

python benchmarks/waiting.py --busy 0 3

The steps are of ResNet-18 on small images, where the threads meet thousands of times a second; each
measurement is a process of its own, and the ways take turns. ``--busy`` starts so many programs that do
nothing but compute.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from measuring import machine, table, write_json

WAYS: dict[str, dict[str, str]] = {
    "spin as by default": {},
    "spin briefly, as calr": {"GOMP_SPINCOUNT": "1000"},
    "sleep at once": {"OMP_WAIT_POLICY": "PASSIVE"},
}

STEPS = """
import sys, time
import torch
from calr_cli.models.encoder import Encoder
steps, limit = int(sys.argv[1]), float(sys.argv[2])
encoder, images = Encoder("resnet18").train(), torch.randn(16, 3, 64, 32)
encoder(images).sum().backward()
seconds = []
while len(seconds) < steps and sum(seconds) < limit:
    began = time.perf_counter()
    encoder.zero_grad()
    encoder(images).sum().backward()
    seconds.append(time.perf_counter() - began)
print(sum(seconds) / len(seconds))
"""


def seconds_of_a_step(waiting: dict[str, str], steps: int, limit: float) -> float:
    """Mean over ``steps`` steps, or as many as begin within ``limit`` seconds."""
    command = [sys.executable, "-c", STEPS, str(steps), str(limit)]
    environment = {**os.environ, **waiting}
    return float(json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout))


def compute() -> None:
    """Keep a core busy."""
    while True:
        sum(range(100_000))


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Inside, ``count`` other programs compute."""
    others = [multiprocessing.Process(target=compute, daemon=True) for _ in range(count)]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 3], help="other programs at work")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=30, help="seconds of one measurement")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for count in options.busy:
        best = dict.fromkeys(WAYS, float("inf"))
        with busy(count):
            for _ in range(options.rounds):
                for way, waiting in WAYS.items():
                    best[way] = min(best[way], seconds_of_a_step(waiting, options.steps, options.limit))
        for way in WAYS:
            share = best[way] / best["spin as by default"]
            figures = {"busy": count, "threads": way, "ms": 1000 * best[way], "of the default": share}
            rows.append({"step": "16 images of 64 x 32", **figures})
    print(
        table(
            "A training step beside other programs", rows, ["step", "busy", "threads", "ms", "of the default"]
        )
    )
    write_json(options.json, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
