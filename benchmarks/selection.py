"""How well the label-free criterion finds the better model of a run: correlation with mAP, and regret.

    calr train-inter ... --set evaluation.monitor_every=1 --output FOLDER
    python benchmarks/selection.py FOLDER [FOLDER ...]

Reads `metrics.jsonl` and `selection.json` of stage-2 runs, or any file of lines like the former. A line's
"criterion" is of the model that its epoch began with, its "monitoring" of the model that it ended with.
Printed for every run, and for all together: Spearman's correlation of criterion and figure, and that of
their changes from one model to the next (both rise while a network learns: only the changes tell whether
the criterion knows more than the number of epochs). Regret is how far the model with the best criterion, or
the last one, is below the best.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from measuring import table, write_json
from scipy.stats import spearmanr

COLUMNS = [
    "run",
    "figure",
    "models",
    "Spearman",
    "of changes",
    "best",
    "selected",
    "regret",
    "regret of last",
]


def judged_models(lines: list[dict[str, Any]], figure: str) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Epochs, criterion and figure of the models of which both are known."""
    criterion = {line["epoch"]: line["criterion"] for line in lines if "criterion" in line}
    seen = {
        line["epoch"] + 1: line["monitoring"][figure]
        for line in lines
        if figure in line.get("monitoring", {})
    }
    epochs = sorted(criterion.keys() & seen.keys())
    return epochs, np.array([criterion[e] for e in epochs]), np.array([seen[e] for e in epochs])


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's, not a number where one of the two never changes."""
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return math.nan
    return float(spearmanr(first, second).statistic)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="folders of stage 2, or files of JSON lines")
    parser.add_argument("--figures", nargs="+", default=["mAP"], help="names under monitoring")
    parser.add_argument("--json", type=Path, help="write the rows here")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for figure in options.figures:
        runs = []
        for run in options.runs:
            file = run / "metrics.jsonl" if run.is_dir() else run
            lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
            if (last := run / "selection.json").exists():  # the last model began no epoch
                criteria = json.loads(last.read_text(encoding="utf-8"))["criteria"]
                lines += [{"epoch": int(e), "criterion": value} for e, value in criteria.items()]
            epochs, criterion, values = judged_models(lines, figure)
            if len(epochs) < 2:
                parser.error(f"{file} holds criterion and {figure} of {len(epochs)} models: two are needed")
            chosen = int(criterion.argmax())  # the first of equal ones, as training does
            runs.append((criterion, values))
            rows.append(
                {
                    "run": str(run),
                    "figure": figure,
                    "models": len(epochs),
                    "Spearman": correlation(criterion, values),
                    "of changes": correlation(np.diff(criterion), np.diff(values)),
                    "best": epochs[int(values.argmax())],
                    "selected": epochs[chosen],
                    "regret": float(values.max() - values[chosen]),
                    "regret of last": float(values.max() - values[-1]),
                }
            )
        if len(runs) > 1:
            criteria, all_values = (list(part) for part in zip(*runs, strict=True))
            rows.append(
                {
                    "run": "all",
                    "figure": figure,
                    "models": sum(map(len, all_values)),
                    "Spearman": correlation(np.concatenate(criteria), np.concatenate(all_values)),
                    "of changes": correlation(
                        np.concatenate([np.diff(part) for part in criteria]),
                        np.concatenate([np.diff(part) for part in all_values]),
                    ),
                }
            )
    print(table("Selection without identities", rows, COLUMNS))
    write_json(options.json, {"rows": rows})


if __name__ == "__main__":
    main()
