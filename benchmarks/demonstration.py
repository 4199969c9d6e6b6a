"""The demonstration over seeds: the table of docs/results.md, and whether the order of its rows holds.

    python benchmarks/demonstration.py --seeds 1 2 3 4 5 6 7 8 9 10

Each seed runs in a process of its own on one thread. Writes benchmarks/results/demonstration.json after each
seed and leaves out the seeds that are in it already.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

RESULTS = Path(__file__).with_name("results") / "demonstration.json"


def demonstrate(seed: int, flags: list[str]) -> dict[str, Any]:
    """The rows of the table, and the seconds of the whole command."""
    began = time.monotonic()
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "calr_cli", "demo", "--json", "--quiet", "--seed", str(seed)]
        command += [*flags, "--output", f"{folder}/demo"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    rows = {
        row["model"]: {measure: round(row[measure], 2) for measure in ("mAP", "Rank-1", "Rank-5", "Rank-10")}
        for row in json.loads(done.stdout)["rows"]
    }
    return {"rows": rows, "seconds": round(time.monotonic() - began, 1)}


def read(file: Path) -> dict[str, Any]:
    """Results so far: seed -> figures."""
    return json.loads(file.read_text()) if file.exists() else {}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 11)))
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of calr demo")
    parser.add_argument("--json", type=Path, default=RESULTS, metavar="FILE", help="of the figures")
    options = parser.parse_args()
    flags = ["--device", "cpu", "--set", f"precision={options.precision}"]
    flags += [word for assignment in options.set for word in ("--set", assignment)]
    for seed in options.seeds:
        if str(seed) not in read(options.json):
            figures = demonstrate(seed, flags)
            # Read only now: another process may have written other seeds in the meantime.
            found = read(options.json) | {str(seed): figures}
            found = {name: found[name] for name in sorted(found, key=int)}
            options.json.write_text(json.dumps(found, indent=1) + "\n")
    found = read(options.json)
    models = list(next(iter(found.values()))["rows"])
    print("| seed |", " | ".join(models), "|")
    print("|", " | ".join(["---"] * (len(models) + 1)), "|")
    tables = [[row["mAP"] for row in of_seed["rows"].values()] for of_seed in found.values()]
    for seed_name, maps in zip(found, tables, strict=True):
        print(f"| {seed_name} |", " | ".join(f"{value:.1f}" for value in maps), "|")
    if len(tables) > 1:
        means = [f"{np.mean(maps):.1f} ± {np.std(maps, ddof=1):.1f}" for maps in zip(*tables, strict=True)]
        print("| mean |", " | ".join(means), "|")
    ordered = sum(maps == sorted(set(maps)) for maps in tables)
    print(f"\nEach row is better than the row before it in {ordered} of {len(tables)} seeds.")


if __name__ == "__main__":
    main()
