"""Training steps by several processes against one: with NCCL a GPU for each, or two that share a device.

    python benchmarks/several.py
    python benchmarks/several.py --size tiny --device cpu

With one GPU, two processes share it and gloo carries their tensors: it shows that several processes give what
one gives, not how fast several GPUs are. The features after training are compared with those of one process.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import machine, made_up, table, write_json
from our_loop import OurLoop
from training import SCALES, Scale, write_images
from training_loops import Work

from calr_cli.clustering.centroids import cluster_centroids
from calr_cli.data.samplers import cluster_batches
from calr_cli.distributed import collectives
from calr_cli.distributed.devices import working_on

CHECKED = 32
STEPS_CHECKED = 3


def train(scale: Scale, device: torch.device, precision: str, folder: Path) -> dict[str, Any]:
    """Images per second of all processes together, and features after a few steps in fp32."""
    data = made_up(scale.images, max(10, scale.images // 17), 6, 64, seed=1)
    images = collectives.made_by_main(lambda: write_images(folder / f"images-{os.getpid()}", data))
    work = Work(images, 6, scale.arch, scale.height, scale.width, scale.batch_size, str(device), 4, None)
    labels = np.unique(data.pids, return_inverse=True)[1]
    batches = cluster_batches(
        labels,
        data.camids,
        batch_size=scale.batch_size,
        num_instances=max(2, scale.batch_size // 16),
        iterations=scale.steps,
        rng=np.random.default_rng(0),
    )
    result: dict[str, Any] = {"processes": collectives.world_size(), "batch": batches.shape[1]}
    for kind in ("fp32", precision):
        loop = OurLoop(work, kind)
        loop.decode()
        dim = loop.encoder.feature_dim
        rows = np.random.default_rng(0).normal(size=(len(labels), dim)).astype(np.float32)
        centroids = cluster_centroids(rows / np.linalg.norm(rows, axis=1, keepdims=True), labels)
        loop.train(labels, centroids, batches[:STEPS_CHECKED])
        if kind == "fp32":
            with collectives.alone():
                result["features"] = loop.extract(CHECKED)[1].tolist()
        result[f"images/s, {kind}"] = loop.train(labels, centroids, batches).rate
    return result


def run(count: int, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What ``count`` processes measure, started as a cluster's launcher would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes, file = [], folder / f"{count}.json"
    for rank in range(count):
        told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        environment = os.environ | {name: str(value) for name, value in told.items()}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        command = [sys.executable, __file__, "--size", options.size, "--device", options.device]
        command += ["--precision", options.precision, "--rank", str(rank), "--json", str(file)]
        processes.append(subprocess.Popen(command, env=environment))
    if any(process.wait() for process in processes):
        raise SystemExit(f"{count} processes failed")
    return dict(json.loads(file.read_text()))


def rank_main(options: argparse.Namespace) -> None:
    cards = torch.cuda.device_count() if options.device == "cuda" else 0
    device = torch.device("cuda", options.rank % cards) if cards else torch.device("cpu")
    if cards < int(os.environ["WORLD_SIZE"]):
        collectives.BACKEND = "cpu:gloo,cuda:gloo"  # NCCL refuses two processes on one GPU
    scale = SCALES[options.size]
    scale = replace(scale, images=min(scale.images, 4 * scale.batch_size))
    with working_on(device):
        collectives.join()
        result = train(scale, device, options.precision, options.json.parent)
        if collectives.is_main():
            options.json.write_text(json.dumps(result))
        collectives.barrier()
        collectives.leave()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--size", choices=SCALES, default="cuda")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.rank is not None:
        return rank_main(options)
    cards = torch.cuda.device_count() if options.device == "cuda" else 0
    count = max(2, cards)
    with tempfile.TemporaryDirectory() as name:
        os.environ["CALR_HOME"] = str(Path(name) / "home")
        rows = [run(processes, options, Path(name)) for processes in (1, count)]
    one, several = (np.array(row.pop("features")) for row in rows)
    rows[1]["1 - cosine to one"] = f"{1 - float((one * several).sum(axis=1).min()):.1e}"
    kind = f"images/s, {options.precision}"
    rows[1]["ratio"] = rows[1][kind] / rows[0][kind]
    how = "NCCL, a GPU each" if cards > 1 else "gloo, all on one device"
    print(machine())
    columns = list(dict.fromkeys(["processes", "images/s, fp32", kind, "ratio", "1 - cosine to one"]))
    print(table(f"Training step, batch {rows[0]['batch']}, {how}", rows, columns))
    write_json(options.json, {"how": how, "rows": rows})


if __name__ == "__main__":
    main()
