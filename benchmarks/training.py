"""Extraction, training step and a whole epoch of stage 2, against the loop of the peers' programs.

    python benchmarks/training.py
    python benchmarks/training.py --arch mobilenet_v2 --height 128 --width 64 --batch-size 64
    python benchmarks/training.py --arch vit_small
    python benchmarks/training.py --device cuda --epoch market

Made-up JPEGs of 64 x 128 pixels, weights that are not trained. Each loop lives in a fresh process (the plain
one with glibc's own thresholds), and they work in turns; the median over the turns counts. All start from the
same weights; the table has the largest 1 - cosine between their features and the plain loop's. Labels are
made from made-up features: those of a network that is not trained have no clusters.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import SIZES, MadeUp, machine, made_up, table, write_json
from our_loop import OurLoop
from PIL import Image
from plain_loop import PlainLoop
from torch.utils.flop_counter import FlopCounterMode
from training_loops import Timing, Work, network

from calr_cli.data.images import content_digest
from calr_cli.data.samplers import cluster_batches
from calr_cli.training.precision import has_bf16
from calr_cli.types import FloatArray, ImageSet, IntArray


@dataclass(frozen=True)
class Scale:
    """How much is done: images of the epoch and of an extraction, steps and turns, batches of the epoch."""

    arch: str
    height: int
    width: int
    batch_size: int
    images: int
    extracted: int
    steps: int
    turns: int
    iterations: int


SCALES = {
    "tiny": Scale("resnet18", 32, 16, 16, 160, 32, 2, 1, 2),
    "cpu": Scale("resnet50", 256, 128, 32, 300, 64, 3, 3, 4),
    "cuda": Scale("resnet50", 256, 128, 256, 4_096, 4_096, 40, 3, 40),
}
MARKET_ITERATIONS, MARKET_BATCH = 200, 256
EXACT = 1e-5  # allowed 1 - cosine in fp32 on a CPU; rounding to fewer digits counts for more without training


class Process:
    """A loop in a process of its own that does one thing at a time; ends with the ``with`` block."""

    def __init__(self, make: Callable[..., Any], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, make, arguments))
        self.process.start()
        other.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc: object) -> None:
        self.pipe.close()
        self.process.join()

    def __call__(self, method: str, *arguments: Any) -> Any:
        """What the loop's ``method`` returns."""
        try:
            self.pipe.send((method, arguments))
            done, value = self.pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise SystemExit(f"a process died in {method}: out of memory?") from None
        if not done:
            raise SystemExit(value)
        return value


def _serve(pipe: Any, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        loop = make(*arguments)
        while True:
            method, values = pipe.recv()
            pipe.send((True, getattr(loop, method)(*values)))
    except (EOFError, KeyboardInterrupt):
        pass  # there is nothing more to do, or nobody to do it for
    except Exception:
        pipe.send((False, traceback.format_exc()))


def write_images(folder: Path, data: MadeUp) -> ImageSet:
    """A JPEG of 64 x 128 pixels for each row: blurred colours of its identity, and noise."""
    folder.mkdir()
    names, digests = [], []
    rng = np.random.default_rng(0)
    looks = rng.integers(256, size=(int(data.pids.max()) + 1, 8, 4, 3))
    for number, pid in enumerate(data.pids):
        look = np.clip(looks[pid] + rng.normal(scale=20, size=(8, 4, 3)), 0, 255).astype(np.uint8)
        path = folder / f"{number:06d}.jpg"
        Image.fromarray(look).resize((64, 128), Image.Resampling.BICUBIC).save(path, quality=90)
        names.append(path.name)
        digests.append(content_digest(path.read_bytes()))
    return ImageSet(folder, tuple(names), data.pids, data.camids, tuple(digests))


def operations(arch: str, height: int, width: int) -> int:
    """Floating-point operations of one image's way forwards; backwards are twice as many.

    Backwards they are not counted: torch's counter overrates the gradients of depthwise convolutions.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(arch, height, width).eval()(torch.zeros(1, 3, height, width))
    return int(counter.get_total_flops())


def tf32() -> str:
    """What torch's defaults make of fp32 on a GPU."""
    on = {True: "on", False: "off"}
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    return f"TF32 as torch leaves it: {on[convolutions]} in convolutions, {on[products]} in matrix products"


# --- images per second ---


def rate_rows(
    loops: dict[str, Process],
    scale: Scale,
    labels: IntArray,
    centroids: FloatArray,
    batches: IntArray,
    exact: bool,
) -> list[dict[str, Any]]:
    features = {name: loop("extract", 2 * scale.batch_size)[1] for name, loop in loops.items()}
    for loop in loops.values():
        loop("train", labels, centroids, batches[:2])
    rates: dict[tuple[str, str], list[float]] = {}
    for _ in range(scale.turns):
        for name, loop in loops.items():
            rates.setdefault(("extraction", name), []).append(loop("extract", scale.extracted)[0].rate)
        for name, loop in loops.items():
            timing = loop("train", labels, centroids, batches[: scale.steps])
            rates.setdefault(("training step", name), []).append(timing.rate)
    plain = next(iter(loops))
    rows = []
    for step in ("extraction", "training step"):
        for name in loops:
            found = float(np.median(rates[step, name]))
            row: dict[str, Any] = {"step": step, "loop": name, "images/s": found, "turns": rates[step, name]}
            if name != plain:
                row["ratio"] = found / float(np.median(rates[step, plain]))
            if name != plain and step == "extraction":
                difference = 1 - float((features[name] * features[plain]).sum(axis=1).min())
                row["1 - cosine"] = f"{difference:.1e}"
                if exact and name.endswith("fp32") and difference > EXACT:
                    raise SystemExit(f"{name} gives other features than {plain}: 1 - cosine {difference:.1e}")
            rows.append(row)
    return rows


def add_shares(rows: list[dict[str, Any]], scale: Scale, peak: float) -> None:
    forwards = operations(scale.arch, scale.height, scale.width)
    for row in rows:
        row["of peak"] = row["images/s"] * forwards * (1 if row["step"] == "extraction" else 3) / peak


# --- an epoch ---


def epoch_rows(
    loops: dict[str, Process],
    images: int,
    labelling: float,
    labels: IntArray,
    centroids: FloatArray,
    batches: IntArray,
) -> list[dict[str, Any]]:
    rows = []
    for name, loop in loops.items():
        extraction: Timing = loop("extract", images)[0]
        training: Timing = loop("train", labels, centroids, batches)
        waited = extraction.waited + training.waited
        phases = {
            "extraction": extraction.seconds - extraction.waited,
            "labels": labelling,
            "training": training.seconds - training.waited,
            "data wait": waited,
        }
        total = sum(phases.values())
        rows += [
            {"loop": name, "phase": phase, "seconds": seconds, "share": seconds / total}
            for phase, seconds in phases.items()
        ]
        rows.append({"loop": name, "phase": "whole epoch", "seconds": total})
    return rows


# --- the command ---


def run(options: argparse.Namespace, scale: Scale, folder: Path) -> dict[str, Any]:
    device = torch.device(options.device)
    size = SIZES["market"]
    ids = max(10, size.train_ids * scale.images // size.train)
    feature_dim = network(scale.arch, scale.height, scale.width).feature_dim
    data = made_up(scale.images, ids, size.cameras, feature_dim, seed=1)
    images = write_images(folder / "images", data)
    work = Work(
        images,
        size.cameras,
        scale.arch,
        scale.height,
        scale.width,
        scale.batch_size,
        options.device,
        options.workers,
        options.threads,
    )
    precisions = options.precision or (["fp32", "bf16"] if has_bf16(device) else ["fp32"])
    with ExitStack() as until_done:
        loops = {"plain, fp32": until_done.enter_context(Process(PlainLoop, work))}
        for precision in precisions:
            loops[f"calr, {precision}"] = until_done.enter_context(Process(OurLoop, work, precision))
        ours = list(loops)[1:]
        decoding, *_ = [loops[name]("decode") for name in ours]  # the others find what the first made
        fastest = loops[ours[-1]]
        local_labels = np.unique(data.pids * size.cameras + data.camids, return_inverse=True)[1]
        labelling, labels, centroids = fastest("label", data.features, local_labels)
        batches = cluster_batches(
            labels,
            data.camids,
            batch_size=scale.batch_size,
            num_instances=max(2, scale.batch_size // 16),
            iterations=max(scale.steps, scale.iterations),
            rng=np.random.default_rng(0),
        )
        exact = device.type == "cpu"
        rates = rate_rows(loops, scale, labels, centroids, batches, exact)
        in_epoch = {name: loops[name] for name in ("plain, fp32", ours[-1])}
        epoch = epoch_rows(in_epoch, scale.images, labelling, labels, centroids, batches[: scale.iterations])
        peak, kind = fastest("peak")
    add_shares(rates, scale, peak)
    return {
        "scale": vars(scale),
        "clusters": len(centroids),
        "batch": batches.shape[1],
        "decoding seconds": decoding,
        "peak": {"operations per second": peak, "type": kind},
        "rates": rates,
        "epoch": epoch,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SCALES, help="cpu or cuda by the device")
    for name in ("height", "width", "batch-size", "images"):
        parser.add_argument(f"--{name}", type=int, help="instead of the size's")
    parser.add_argument("--arch", help="instead of the size's")
    parser.add_argument("--epoch", choices=["market"], help="an epoch of Market-1501's size: hours on a CPU")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", nargs="+", choices=["fp32", "bf16"], help="all that the device has")
    parser.add_argument("--workers", type=int, default=4, help="processes of the plain loop, threads of ours")
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if torch.device(options.device).type == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device here")
    scale = SCALES[options.size or torch.device(options.device).type]
    if options.epoch:
        images = SIZES["market"].train
        scale = replace(scale, images=images, batch_size=MARKET_BATCH, iterations=MARKET_ITERATIONS)
    given = {key: vars(options)[key] for key in vars(scale) if vars(options).get(key) is not None}
    scale = replace(scale, **given)
    scale = replace(scale, extracted=min(scale.extracted, scale.images))
    with tempfile.TemporaryDirectory() as name:
        os.environ["CALR_HOME"] = name  # the store of decoded images goes with it
        result = run(options, scale, Path(name))
    title = f"{scale.arch} {scale.height} x {scale.width}, batch {result['batch']}, {options.workers} workers"
    where = options.device
    if torch.device(options.device).type == "cuda":
        where = f"{torch.cuda.get_device_name(options.device)}; {tf32()}"
    peak = result["peak"]
    print(f"{machine()}; {options.threads or torch.get_num_threads()} threads; {where}")
    print(f"Peak: {peak['operations per second'] / 1e12:.3g} TFLOP/s of a {peak['type']} matrix product\n")
    columns = ["step", "loop", "images/s", "ratio", "of peak", "1 - cosine"]
    print(table(title, result["rates"], columns))
    heading = (
        f"An epoch: {scale.images:,} images decoded once in {result['decoding seconds']:.2g} s, "
        f"{result['clusters']} clusters, {scale.iterations} batches"
    )
    print(table(heading, result["epoch"], ["loop", "phase", "seconds", "share"]))
    write_json(options.json, {"title": title, "device": where, **result})


if __name__ == "__main__":
    main()
