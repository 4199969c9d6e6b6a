"""The runs of docs/results.md: baseline, CALR as published and --recipe plus, on one dataset, over seeds.

    python benchmarks/recipes.py --pretrained mobilenet_v2_imagenet.pth --seeds 1 2 3 --output FOLDER

Runs the `calr` commands it prints, goes on where it was interrupted, and writes benchmarks/results/NAME.json
with mAP and Rank-1/5/10 of the last and the selected model (on all test identities, on those with an even
number, for development, and on those with an odd number, held out; even and odd restrict the queries and
keep the whole gallery), pair F of the local labels, and seconds of each stage. Needs `calr prepare-data` to
have been run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from calr_cli.allocation import keep_freed_memory
from calr_cli.clustering import label_quality
from calr_cli.config.schema import Settings
from calr_cli.data.local_labels import read_local_labels
from calr_cli.data.prepared import load_dataset
from calr_cli.data.store import open_pixels
from calr_cli.evaluation import retrieval_metrics
from calr_cli.events import SilentReporter
from calr_cli.extraction import extract_features
from calr_cli.models.encoder import Encoder
from calr_cli.pipelines.run_dir import RunFolder
from calr_cli.training.checkpoint import load_model
from calr_cli.types import Dataset

CONFIG = Path(__file__).with_name("small_budget.yaml")
RESULTS = Path(__file__).with_name("results")

NO_REFINEMENT = "inter.refinement.enabled=false"
STAGE_1 = {"calr": [], "plus": ["--recipe", "plus"]}
"""Recipe -> flags of both stages."""
KINDS: dict[str, tuple[str | None, list[str]]] = {
    "baseline": (None, [NO_REFINEMENT, "inter.camera.enabled=false", "inter.weights.mode=off"]),
    "calr": ("calr", []),
    "plus": ("plus", []),
    # The recipe without one of its parts, on the same local labels.
    "plus-imagenet-start": ("plus", ["inter.start=pretrained"]),
    "plus-published-clusters": (
        "plus",
        ["inter.clustering.method=infomap", "inter.clustering.standardise=false"],
    ),
    "plus-not-standardised": ("plus", ["inter.clustering.standardise=false"]),
    "plus-no-proxies": ("plus", ["inter.proxies.weight=0"]),
    "plus-no-average": ("plus", ["inter.average=0"]),
    "plus-no-refinement": ("plus", [NO_REFINEMENT]),
    "plus-no-camera-classifier": ("plus", ["inter.camera.enabled=false"]),
    "plus-no-class-weights": ("plus", ["inter.weights.mode=off"]),
}
"""Kind of run -> whose stage 1 it uses, and settings of stage 2."""


def train(stage: str, folder: Path, common: list[str], *more: str) -> RunFolder:
    """Train in ``folder`` what is not trained there yet."""
    run = RunFolder(folder)
    if not (run.local_labels if stage == "train-intra" else run.model).exists():
        begun = run.config.exists()
        flags = ["--resume", str(folder)] if begun else [*common, *more, "--output", str(folder)]
        command = ["-m", "calr_cli", stage, *flags]
        print("calr", *command[2:], flush=True)
        subprocess.run([sys.executable, *command], check=True)
    return run


def scores(encoder: Encoder, settings: Settings, dataset: Dataset) -> dict[str, dict[str, float]]:
    query, gallery = dataset.query, dataset.gallery
    size = {"height": settings.data.height, "width": settings.data.width}
    quiet = SilentReporter()
    q_features, g_features = (
        extract_features(
            encoder,
            open_pixels(images, **size, workers=4, cache="disk", reporter=quiet),
            batch_size=256,
            reporter=quiet,
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
        ranks = {f"Rank-{r}": round(100 * metrics.rank(r), 2) for r in (1, 5, 10)}
        result[name] = {"mAP": round(100 * metrics.mAP, 2), **ranks}
    return result


def seconds(run: RunFolder) -> float:
    """All that the epochs of a run took, without looks at the test set."""
    return round(sum(sum(row["seconds"].values()) for row in run.read_metrics()), 1)


def figures(intra: RunFolder | None, inter: RunFolder, dataset: Dataset) -> dict[str, object]:
    """What is kept of a pair of runs."""
    found: dict[str, object] = {"seconds": {"inter": seconds(inter)}}
    if intra is not None:
        labels = read_local_labels(intra.local_labels, dataset.train)
        quality = label_quality(labels, dataset.train.pids, dataset.train.camids)
        found["local_labels"] = {"pair_f": round(quality.pair_f, 3), "bcubed_f": round(quality.bcubed_f, 3)}
        found["seconds"] = {"intra": seconds(intra), "inter": seconds(inter)}
    for choice in ("last", "selected"):
        encoder, card = load_model(inter.path / f"{choice}.pth")
        found[choice] = {"epoch": card.epoch, **scores(encoder, inter.settings, dataset)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-d", "--dataset", default="market1501")
    parser.add_argument(
        "--preset", action="store_true", help="the dataset's own settings, not the small budget"
    )
    parser.add_argument("--pretrained", help="weights to start from")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, help="of stage 2")
    parser.add_argument("--only", choices=[*KINDS], nargs="+", default=["baseline", "calr", "plus"])
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of all runs")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--name", help="of the file of results; default: what it shows")
    options = parser.parse_args()
    dataset = load_dataset(options.dataset, None, SilentReporter())
    keep_freed_memory()

    common = ["-d", options.dataset, "--set", f"precision={options.precision}"]
    common += [] if options.preset else ["--config", str(CONFIG)]
    common += ["--pretrained", options.pretrained] if options.pretrained else []
    for assignment in options.set:
        common += ["--set", assignment]
    epochs = ["--set", "evaluation.monitor_every=4"]
    epochs += ["--epochs", str(options.epochs)] if options.epochs else []
    length = f"-{options.epochs}-epochs" if options.epochs else ""
    name = options.name or f"{options.dataset}{length}-{options.precision}"
    file = RESULTS / f"{name}.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for seed in options.seeds:
        for kind in options.only:
            recipe, assignments = KINDS[kind]
            place, of_seed = options.output / f"seed{seed}", [*common, "--seed", str(seed)]
            second, intra = [flag for assignment in assignments for flag in ("--set", assignment)], None
            if recipe is not None:
                folder = place / f"{recipe}-intra-{options.precision}"
                intra = train("train-intra", folder, of_seed, *STAGE_1[recipe])
                second += [*STAGE_1[recipe], "--local-labels", str(intra.local_labels)]
            folder = place / f"{kind}{length}-{options.precision}"
            inter = train("train-inter", folder, of_seed, *second, *epochs)
            results.setdefault(kind, {})[str(seed)] = figures(intra, inter, dataset)
            RESULTS.mkdir(exist_ok=True)
            file.write_text(json.dumps(results, indent=1) + "\n")
    for kind, of_seeds in results.items():
        for choice in ("last", "selected"):
            maps = [found[choice]["all"]["mAP"] for found in of_seeds.values()]
            spread = f"{np.mean(maps):.1f} +- {np.std(maps, ddof=1):.1f}" if len(maps) > 1 else ""
            print(f"{kind:10} {choice:10} mAP", *maps, " ", spread)


if __name__ == "__main__":
    main()
