"""The real runs of docs/results.md: ImageNet start, baseline and CALR on Market-1501 (375/175 split).

    python benchmarks/market_split.py --pretrained mobilenet_v2_imagenet.pth --seeds 1 2 3 --output FOLDER

Runs the `calr` commands it prints, skips what is finished, and prints a table with mAP and Rank-1/5/10 of
the last and the selected model: on all test identities, on those with an even number (development) and on
those with an odd number (held out). The even and odd rows restrict the queries and keep the whole gallery.
Needs `calr prepare-data` to have been run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from calr_cli.allocation import keep_freed_memory
from calr_cli.data.prepared import load_dataset
from calr_cli.data.store import open_pixels
from calr_cli.evaluation import retrieval_metrics
from calr_cli.events import SilentReporter
from calr_cli.extraction import extract_features
from calr_cli.models.encoder import Encoder
from calr_cli.models.pretrained import load_pretrained
from calr_cli.training.checkpoint import load_model
from calr_cli.types import Dataset

CONFIG = Path(__file__).with_suffix(".yaml")
BASELINE = [
    *("--set", "inter.refinement.enabled=false"),
    *("--set", "inter.camera.enabled=false"),
    *("--set", "inter.weights.mode=off"),
]


def calr(*arguments: str) -> None:
    command = [sys.executable, "-m", "calr_cli", *arguments]
    print("calr", *arguments, flush=True)
    subprocess.run(command, check=True)


def train(stage: str, folder: Path, seed: int, pretrained: str, *more: str) -> None:
    if (folder / ("local_labels.csv" if stage == "train-intra" else "model.pth")).exists():
        return
    if folder.exists():
        calr(stage, "--resume", str(folder))
        return
    common = [
        "--config",
        str(CONFIG),
        "--pretrained",
        pretrained,
        "--seed",
        str(seed),
        "--output",
        str(folder),
    ]
    calr(stage, *common, *more)


def scores(encoder: Encoder, dataset: Dataset) -> dict[str, dict[str, float]]:
    query, gallery = dataset.query, dataset.gallery
    q_features, g_features = (
        extract_features(
            encoder,
            open_pixels(images, height=128, width=64, workers=4, cache="disk", reporter=SilentReporter()),
            batch_size=256,
            reporter=SilentReporter(),
        )
        for images in (query, gallery)
    )
    result = {}
    parts = {"all": query.pids >= 0, "even": query.pids % 2 == 0, "odd": query.pids % 2 == 1}
    for name, chosen in parts.items():
        part = query.subset(np.flatnonzero(chosen))
        metrics = retrieval_metrics(
            q_features[chosen], g_features, part.pids, gallery.pids, part.camids, gallery.camids
        )
        result[name] = {"mAP": 100 * metrics.mAP, **{f"Rank-{r}": 100 * metrics.rank(r) for r in (1, 5, 10)}}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pretrained", required=True, help="ImageNet weights of MobileNetV2")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=12, help="of stage 2")
    parser.add_argument("--only", choices=["baseline", "calr"], help="one of the two")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    dataset = load_dataset("market1501", None, SilentReporter())
    keep_freed_memory()

    start = Encoder("mobilenet_v2", "gem")
    load_pretrained(start, options.pretrained)
    results = {"ImageNet, no training": scores(start, dataset)}
    epochs = ["--epochs", str(options.epochs), "--set", "evaluation.monitor_every=1"]
    precision = ["--set", f"precision={options.precision}"]
    for seed in options.seeds:
        folder = options.output / f"seed{seed}"
        train("train-intra", folder / "intra", seed, options.pretrained, *precision)
        runs = {
            "baseline": BASELINE,
            "calr": ["--local-labels", str(folder / "intra" / "local_labels.csv")],
        }
        for name, more in runs.items():
            if options.only in (None, name):
                run = folder / f"{name}-{options.epochs}-{options.precision}"
                train("train-inter", run, seed, options.pretrained, *precision, *epochs, *more)
                for choice in ("last", "selected"):
                    encoder, card = load_model(run / f"{choice}.pth")
                    title = f"{name}, seed {seed}, {choice}: {card.epoch} of {options.epochs} epochs"
                    results[title] = scores(encoder, dataset)
    for name, parts in results.items():
        for part, figures in parts.items():
            print(f"{name:44} {part:5}", *(f"{key} {value:5.1f}" for key, value in figures.items()))
    file = options.output / f"results-{options.epochs}-{options.precision}-{options.only or 'both'}.json"
    file.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
