"""What each part gives: mAP of a whole recipe less mAP without the part, from results of recipes.py.

python benchmarks/parts.py benchmarks/results/market1501-bf16.json

A difference is taken between runs of one seed, which share their local labels if they were made on one
machine; the spread is the standard deviation of the differences. A kind such as calr-last-pivot is a part
changed, not left out: what the method's own way gives over the other.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from measuring import table

RECIPES = ("calr", "plus")
SPLITS = ("all", "even", "odd")
Runs = dict[str, dict[str, Any]]
"""Seed -> figures."""


def gains(whole: Runs, without: Runs, split: str, figures: str = "last") -> dict[str, float]:
    """Seed -> difference, of the seeds that both have."""
    return {
        seed: whole[seed]["last"][split]["mAP"] - without[seed][figures][split]["mAP"]
        for seed in sorted(whole)
        if seed in without and figures in without[seed]
    }


def words(differences: dict[str, float]) -> str:
    """``+2.0 ± 0.6 (+1.9, +1.5, +2.6)``, without a spread if there is one seed."""
    values = [*differences.values()]
    mean = f"{np.mean(values):+.1f}"
    if len(values) == 1:
        return f"{mean} (seed {next(iter(differences))})"
    return f"{mean} ± {np.std(values, ddof=1):.1f} ({', '.join(f'{value:+.1f}' for value in values)})"


def rows(results: dict[str, Runs]) -> list[dict[str, Any]]:
    found = []
    for recipe in RECIPES:
        whole = results.get(recipe, {})
        compared = [(kind, results[kind], "last") for kind in results if kind.startswith(f"{recipe}-")]
        for kind, without, figures in [*compared, (f"{recipe}, not averaged", whole, "not averaged")]:
            if gains(whole, without, "all", figures):
                found.append(
                    {"run": kind} | {split: words(gains(whole, without, split, figures)) for split in SPLITS}
                )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="+")
    for file in parser.parse_args().results:
        print(table(f"mAP, {file.stem}", rows(json.loads(file.read_text())), ["run", *SPLITS]))


if __name__ == "__main__":
    main()
