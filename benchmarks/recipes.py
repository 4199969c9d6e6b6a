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
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from calr_cli.allocation import keep_freed_memory
from calr_cli.clustering import label_quality
from calr_cli.config.schema import Settings
from calr_cli.data.local_labels import read_local_labels, write_local_labels
from calr_cli.data.store import open_pixels
from calr_cli.evaluation import retrieval_metrics
from calr_cli.events import SilentReporter
from calr_cli.extraction import extract_features
from calr_cli.models.encoder import Encoder
from calr_cli.prepare.prepared import load_dataset
from calr_cli.runs.folder import RunFolder
from calr_cli.training.checkpoint import load_model, load_state
from calr_cli.types import Dataset

CONFIG = Path(__file__).with_name("small_budget.yaml")
RESULTS = Path(__file__).with_name("results")

NO_REFINEMENT = "inter.refinement.enabled=false"
RECIPES = {"calr": [], "plus": ["--recipe", "plus"]}
"""Recipe -> flags of both stages."""
PARTS = {
    "no-refinement": [NO_REFINEMENT],
    "no-camera-classifier": ["inter.camera.enabled=false"],
    "no-class-weights": ["inter.weights.mode=off"],
    "cosine-schedule": ["inter.refinement.schedule=cosine"],
    "last-pivot": ["inter.refinement.pivot=last"],
    "batch-norm-32": ["batch_norm_group_size=32"],
    "16-instances": ["inter.num_instances=16"],
    "standardised": ["inter.clustering.standardise=true"],
}
"""Parts of the published method, left out or changed: name -> settings of stage 2."""
PARTS_OF_PLUS = {
    "imagenet-start": ["inter.start=pretrained"],
    "published-clusters": ["inter.clustering.method=infomap", "inter.clustering.standardise=false"],
    "not-standardised": ["inter.clustering.standardise=false"],
    "no-proxies": ["inter.proxies.weight=0"],
    "hard-memory": ["inter.memory.mode=hard"],
    "map-equation": ["inter.clustering.method=map-equation"],
}
"""Parts of the recipe plus, left out or changed. Runs with the average are measured without it as well."""
KINDS: dict[str, tuple[str | None, list[str]]] = {
    "baseline": (None, [NO_REFINEMENT, "inter.camera.enabled=false", "inter.weights.mode=off"]),
    "calr": ("calr", []),
    "plus": ("plus", []),
    "oracle": ("oracle", []),  # the published method with the identities as local labels: a ceiling
    "calr-blind-sampler": ("calr", []),
    "plus-soft-weights": ("plus", []),
    **{f"calr-{part}": ("calr", settings) for part, settings in PARTS.items()},
    "calr-no-refinement": (None, [NO_REFINEMENT]),  # has no use for local labels
    **{f"plus-{part}": ("plus", settings) for part, settings in PARTS_OF_PLUS.items()},
    **{f"plus-{part}": ("plus", PARTS[part]) for part in list(PARTS)[:3]},
}
"""Kind of run -> whose local labels it uses, and settings of stage 2."""
PROGRAMS = {
    "calr-blind-sampler": [str(Path(__file__).with_name("blind_sampler.py"))],
    "plus-soft-weights": [str(Path(__file__).with_name("soft_weights.py"))],
}
"""Kind of run -> the program that trains stage 2, where it is not calr itself."""


def call(arguments: list[str], kind: str = "") -> None:
    program = PROGRAMS.get(kind, ["-m", "calr_cli"])
    print("calr" if program[0] == "-m" else f"python {program[0]}", *arguments, flush=True)
    subprocess.run([sys.executable, *program, *arguments], check=True)


def train(stage: str, folder: Path, common: list[str], *more: str, kind: str = "") -> RunFolder:
    """Train in ``folder`` what is not trained there yet."""
    run = RunFolder(folder)
    if not (run.local_labels if stage == "train-intra" else run.model).exists():
        begun = run.config.exists()
        flags = ["--resume", str(folder)] if begun else [*common, *more, "--output", str(folder)]
        call([stage, *flags], kind)
    return run


def go_on(shorter: Path, folder: Path, epochs: int, kind: str) -> None:
    """Make ``folder`` a run that begins where ``shorter`` ended: the same as training it from the start.

    Not so with the cosine schedule of discards, which alone depends on the number of epochs.
    """
    shutil.copytree(shorter, folder)
    RunFolder(folder).model.unlink()
    call(["train-inter", "--resume", str(folder), "--set", f"inter.epochs={epochs}"], kind)


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


def figures(local: Path | None, inter: RunFolder, dataset: Dataset) -> dict[str, object]:
    """What is kept of a run of stage 2, and of the stage 1 before it."""
    found: dict[str, object] = {"seconds": {"inter": seconds(inter)}}
    if local is not None:
        labels = read_local_labels(local, dataset.train)
        quality = label_quality(labels, dataset.train.pids, dataset.train.camids)
        found["local_labels"] = {"pair_f": round(quality.pair_f, 3), "bcubed_f": round(quality.bcubed_f, 3)}
        if (intra := RunFolder(local.parent)).metrics.exists():
            found["seconds"] = {"intra": seconds(intra), "inter": seconds(inter)}
    for choice in ("last", "selected"):
        encoder, card = load_model(inter.path / f"{choice}.pth")
        found[choice] = {"epoch": card.epoch, **scores(encoder, inter.settings, dataset)}
    if inter.settings.inter.average:
        # Training does not see the average: the same run without it would have ended with this network.
        encoder.load_state_dict(load_state(inter.state)["networks"]["encoder"])
        found["not averaged"] = scores(encoder, inter.settings, dataset)
    return found


def local_labels(kind: str, place: Path, dataset: Dataset, precision: str, flags: list[str]) -> Path:
    """The file of local labels that a kind of run uses, made if it is not there yet."""
    if kind == "oracle":
        file = place / "identities.csv"
        place.mkdir(parents=True, exist_ok=True)
        write_local_labels(file, dataset.train, dataset.train.pids)
        return file
    return train("train-intra", place / f"{kind}-intra-{precision}", flags, *RECIPES[kind]).local_labels


def read(file: Path) -> dict[str, dict[str, Any]]:
    """Results so far: kind -> seed -> figures."""
    return json.loads(file.read_text()) if file.exists() else {}


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
    of_inter = ["--set", "evaluation.monitor_every=0"]
    of_inter += ["--epochs", str(options.epochs)] if options.epochs else []
    length = f"-{options.epochs}-epochs" if options.epochs else ""
    name = options.name or f"{options.dataset}{length}-{options.precision}"
    file = RESULTS / f"{name}.json"
    for seed in options.seeds:
        for kind in options.only:
            labels, assignments = KINDS[kind]
            place, of_seed = options.output / f"seed{seed}", [*common, "--seed", str(seed)]
            second, local = [flag for assignment in assignments for flag in ("--set", assignment)], None
            if labels is not None:
                local = local_labels(labels, place, dataset, options.precision, of_seed)
                second += [*RECIPES.get(labels, []), "--local-labels", str(local)]
            shorter, folder = (place / f"{kind}{words}-{options.precision}" for words in ("", length))
            if length and RunFolder(shorter).model.exists() and not folder.exists():
                go_on(shorter, folder, options.epochs, kind)
            inter = train("train-inter", folder, of_seed, *second, *of_inter, kind=kind)
            found = figures(local, inter, dataset)
            # Read only now: another process may have written its own runs since this one began.
            results = read(file)
            results.setdefault(kind, {})[str(seed)] = found
            RESULTS.mkdir(exist_ok=True)
            file.write_text(json.dumps(results, indent=1) + "\n")
    for kind, of_seeds in read(file).items():
        for choice in ("last", "selected"):
            maps = [found[choice]["all"]["mAP"] for found in of_seeds.values()]
            spread = f"{np.mean(maps):.1f} +- {np.std(maps, ddof=1):.1f}" if len(maps) > 1 else ""
            print(f"{kind:24} {choice:10} mAP", *maps, " ", spread)


if __name__ == "__main__":
    main()
