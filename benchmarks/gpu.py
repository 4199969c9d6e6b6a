"""Everything that is to be measured on a GPU, in one command and ten minutes.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --parts step epoch --minutes 5 --output FOLDER
    python benchmarks/gpu.py --dry-run

Runs the other benchmarks one after another, the most valuable first, each in processes of its own and with a
time limit. After each it writes gpu.json and gpu.md into the output folder: whatever ends it, what it has
measured is there. calr need not be installed, only what it depends on. The real images and weights are looked
for in --shared. With --dry-run the same parts run on the CPU with tiny sizes, to see whether they run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

BENCHMARKS = Path(__file__).resolve().parent
REPOSITORY = BENCHMARKS.parent
NOT_YET = "not yet measured"
SEEDS = (1, 2, 3)
FILES = {"market1501": "data/market1501", "weights": "weights/mobilenet_v2_imagenet.pth"}
"""What is looked for in the shared folder."""

Row = dict[str, Any]
"""A line of the table: figure, found, and where there are such, share of the card's peak, target."""


@dataclass(frozen=True)
class Part:
    """Something to measure.

    Attributes:
        lanes: Run at the same time; the commands of a lane one after another.
        rows: Lines of the table, of what the commands have written: file name -> content.
        limit: Seconds after which it is ended.
        without: Why it cannot be measured here; empty if it can.
    """

    lanes: Sequence[Sequence[Sequence[str]]]
    rows: Callable[[dict[str, Any]], list[Row]]
    limit: float
    without: str = ""


@dataclass
class Figures:
    """What is known so far, and the files it is kept in."""

    folder: Path
    card: dict[str, Any]
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def write(self) -> None:
        """Keep it; a reader never sees half a file."""
        content = {"card": self.card, "parts": self.parts}
        for name, text in (("gpu.json", json.dumps(content, indent=1)), ("gpu.md", self.table())):
            new = self.folder / f"{name}.new"
            new.write_text(text + "\n")
            new.replace(self.folder / name)

    def table(self) -> str:
        """The rows of all parts as Markdown."""
        lines = [
            f"Measured on {self.card['name']}. {self.peak()}",
            "",
            "| part | figure | found | of the peak | target |",
            "| --- | --- | --- | --- | --- |",
        ]
        for name, part in self.parts.items():
            for row in part["rows"] or [{"figure": "", "found": f"{NOT_YET}: {part['state']}"}]:
                share = f"{100 * row['of peak']:.0f} %" if "of peak" in row else ""
                found = f"{row['found']:.3g}" if isinstance(row["found"], float) else str(row["found"])
                lines.append(f"| {name} | {row['figure']} | {found} | {share} | {row.get('target', '')} |")
        return "\n".join(lines)

    def peak(self) -> str:
        """What the card reached in a large matrix product; "" before that was measured."""
        content = self.parts.get("step", {}).get("figures", {}).get("step", {}).get("peak")
        if content is None:
            return "Its peak is not yet measured."
        return f"Its peak: {content['operations per second'] / 1e12:.3g} TFLOP/s in {content['type']}."


# --- the rows of the parts ---


def rates(figures: dict[str, Any]) -> list[Row]:
    """Images per second of both loops."""
    targets = {"extraction": "9,000 on an H100", "training step": "4,000 and 3 x plain on an H100"}
    rows = []
    for row in figures["step"]["rates"]:
        found: Row = {"figure": f"{row['step']}, {row['loop']}, images/s", "found": float(row["images/s"])}
        if row["loop"].startswith("calr"):
            ratio = f" ({row['ratio']:.2f} x plain)"
            found |= {"found": f"{row['images/s']:.0f}{ratio}", "target": targets[row["step"]]}
        rows.append(found | {"of peak": row["of peak"]})
    return rows


def epochs(figures: dict[str, Any]) -> list[Row]:
    """Seconds of an epoch and of its phases."""
    target = {"target": "20 s on an H100"}
    return [
        {"figure": f"{row['phase']}, {row['loop']}, s", "found": float(row["seconds"])}
        | (target if row["phase"] == "whole epoch" and row["loop"].startswith("calr") else {})
        for row in figures["epoch"]["epoch"]
    ]


def seconds_of(key: str) -> Callable[[dict[str, Any]], list[Row]]:
    """Seconds of each step of a benchmark whose file has them under ``key``."""

    def rows(figures: dict[str, Any]) -> list[Row]:
        (content,) = figures.values()
        found = [(row["step"], row.get("seconds", row.get("all but the products"))) for row in content[key]]
        return [{"figure": f"{step}, s", "found": float(value)} for step, value in found]

    return rows


def several(figures: dict[str, Any]) -> list[Row]:
    """Images per second of one and of several processes, and whether they agree."""
    content = figures["processes"]
    rows = []
    for row in content["rows"]:
        for name in [name for name in row if name.startswith("images/s")]:
            figure = f"training step, {row['processes']} process(es), {name}"
            rows.append({"figure": figure, "found": float(row[name])})
    last = content["rows"][-1]
    rows.append(
        {"figure": f"{last['processes']} against 1 ({content['how']})", "found": float(last["ratio"])}
        | ({"target": "3.5 with 4 GPUs"} if content["how"].startswith("NCCL") else {})
    )
    rows.append({"figure": "features: 1 - cosine to one process, fp32", "found": last["1 - cosine to one"]})
    return rows


def learned(dataset: str) -> Callable[[dict[str, Any]], list[Row]]:
    """Retrieval of each recipe over the seeds, beside that of the CPU (benchmarks/results)."""

    def spread(results: Sequence[dict[str, Any]], kind: str) -> str:
        found = [run["last"]["all"]["mAP"] for result in results for run in result.get(kind, {}).values()]
        if not found:
            return NOT_YET
        deviation = f" ± {np.std(found, ddof=1):.1f}" if len(found) > 1 else ""
        return f"{np.mean(found):.1f}{deviation} ({len(found)} seeds)"

    def rows(figures: dict[str, Any]) -> list[Row]:
        before = json.loads((BENCHMARKS / "results" / f"{dataset}-bf16.json").read_text())
        return [
            {
                "figure": f"mAP of {kind}, last",
                "found": spread(list(figures.values()), kind),
                "target": f"CPU: {spread([before], kind)}",
            }
            for kind in ("calr", "plus")
        ]

    return rows


def passed(figures: dict[str, Any]) -> list[Row]:
    """The tests that need a GPU have no figures: that the part is done says it."""
    return [{"figure": "pytest -m gpu", "found": "passed"}]


# --- the parts ---


def parts(folder: Path, shared: Path | None, dry: bool) -> dict[str, Part]:
    """All parts, the most valuable first."""
    python = [sys.executable]

    def script(name: str, *words: str, to: str) -> list[str]:
        return [*python, str(BENCHMARKS / name), *words, "--json", str(folder / f"{to}.json")]

    def recipes(dataset: str, *words: str, before: Sequence[list[str]] = ()) -> list[list[list[str]]]:
        of_all = [*python, str(BENCHMARKS / "recipes.py"), "-d", dataset, "--precision", "bf16", *words]
        of_all += ["--only", *kinds, "--output", str(folder / "runs" / dataset)]
        return [
            [*before, [*of_all, "--seeds", str(seed), "--name", str(folder / f"{dataset}-{seed}")]]
            for seed in (SEEDS[:1] if dry else SEEDS)
        ]

    kinds = ["calr"] if dry else ["calr", "plus"]
    tiny = ["--size", "tiny", "--dim", "64"]
    loops = ["--size", "tiny", "--device", "cpu", "--precision", "fp32", "--workers", "1"]
    processes = loops[:6] if dry else []
    size = tiny if dry else ["--size", "market"]
    short = [
        word
        for setting in ("intra.epochs=1", "intra.iters=1", "inter.epochs=1", "inter.iters=2")
        for word in ("--set", setting)
    ]
    missing = [name for name in FILES.values() if shared is None or not (shared / name).exists()]
    absent = f"there is no {' and no '.join(missing)} in --shared" if missing else ""
    absent = "a dry run leaves it out" if dry else absent
    real = [] if shared is None else ["--pretrained", str(shared / FILES["weights"])]
    prepare = [*python, "-m", "calr_cli", "prepare-data", "--root", str((shared or Path()) / "data")]
    tests = [*python, "-m", "pytest", "-q", "-m", "gpu", "tests", *(["--collect-only"] if dry else [])]
    no_pytest = "" if importlib.util.find_spec("pytest") else "pytest is not installed"
    return {
        "step": Part([[script("training.py", *(loops if dry else []), to="step")]], rates, 150),
        "tests": Part([[tests]], passed, 90, no_pytest),
        "labels": Part(
            [[script("labels.py", *size, "--only", "labels", to="labels")]], seconds_of("labels"), 60
        ),
        "processes": Part([[script("several.py", *processes, to="processes")]], several, 90),
        "synthetic": Part(
            recipes("synthetic", "--preset", *(short if dry else [])), learned("synthetic"), 120
        ),
        "epoch": Part(
            [[script("training.py", *(loops if dry else ["--epoch", "market"]), to="epoch")]], epochs, 200
        ),
        "ranking": Part([[script("evaluation.py", *size, to="ranking")]], seconds_of("ranking"), 60),
        "re-ranking": Part([[script("reranking.py", *size, to="re-ranking")]], seconds_of("rows"), 100),
        "market1501": Part(
            recipes("market1501", *real, before=[prepare]), learned("market1501"), 300, absent
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = list(parts(Path(), None, dry=True))
    parser.add_argument("--parts", nargs="+", choices=names, default=names, help="in the order given here")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--shared", type=Path, default=REPOSITORY.parent / "shared", metavar="FOLDER")
    parser.add_argument("--output", type=Path, default=Path("gpu-figures"), metavar="FOLDER")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU with tiny sizes")
    options = parser.parse_args()
    if not options.dry_run and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; to see whether the parts run: --dry-run")
    end = time.monotonic() + 60 * options.minutes
    folder = options.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    shared = options.shared.resolve() if options.shared.is_dir() else None
    chosen = parts(folder, shared, options.dry_run)
    figures = Figures(folder, card(options.dry_run))
    figures.parts = {name: {"state": "its turn did not come", "rows": []} for name in options.parts}
    figures.write()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for name in options.parts:
        figures.parts[name]["state"] = "cut off"
        figures.write()
        figures.parts[name] = measured(name, chosen[name], folder, end - time.monotonic())
        figures.write()
        print(f"{name}: {figures.parts[name]['state']}", flush=True)
    print()
    print(figures.table())


def card(dry: bool) -> dict[str, Any]:
    """Which GPU the figures are of."""
    if dry:
        return {"name": "a CPU, with tiny sizes: nothing here is a figure", "torch": torch.__version__}
    properties, count = torch.cuda.get_device_properties(0), torch.cuda.device_count()
    return {
        "name": f"{count} x {properties.name}" if count > 1 else properties.name,
        "memory GB": round(properties.total_memory / 1e9, 1),
        "capability": f"{properties.major}.{properties.minor}",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }


def measured(name: str, part: Part, folder: Path, seconds_left: float) -> dict[str, Any]:
    """The state of a part after its turn, what it wrote and its rows of the table."""
    limit = min(part.limit, seconds_left)
    if part.without or limit < 1:
        return {"state": part.without or "no time was left", "rows": []}
    began, log = time.monotonic(), folder / f"{name}.log"
    files = [
        Path(command[command.index(flag) + 1]).with_suffix(".json")
        for lane in part.lanes
        for command in lane
        for flag in ("--json", "--name")
        if flag in command
    ]
    for file in files:
        file.unlink(missing_ok=True)  # of a run before
    state, figures = run(part.lanes, log, limit), {}
    try:
        figures = {file.stem: json.loads(file.read_text()) for file in files if file.exists()}
        rows = part.rows(figures) if figures or state == "done" else []
    except (KeyError, ValueError) as error:
        rows, state = [], f"{state}, and its figures cannot be read: {error!r}"
    seconds = round(time.monotonic() - began, 1)
    return {"state": state, "seconds": seconds, "rows": rows, "figures": figures}


def run(lanes: Sequence[Sequence[Sequence[str]]], log: Path, limit: float) -> str:
    """``done``, or why not; whatever the commands have started has ended."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "CALR_HOME": str(log.parent / "home")}
    with log.open("wb") as output:
        shells = [
            subprocess.Popen(
                ["/bin/sh", "-c", " && ".join(shlex.join(command) for command in lane)],
                cwd=REPOSITORY,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that all of it can be ended
            )
            for lane in lanes
        ]
    end = time.monotonic() + limit
    try:
        codes = [shell.wait(max(0.1, end - time.monotonic())) for shell in shells]
    except subprocess.TimeoutExpired:
        return f"ended after its {limit:.0f} s"
    finally:
        for shell in shells:
            with suppress(ProcessLookupError):  # it has ended, with all that it started
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
    if not any(codes):
        return "done"
    last = log.read_text(errors="replace").strip().splitlines()[-1:]
    return f"failed: {' '.join(last)}"


if __name__ == "__main__":
    main()
