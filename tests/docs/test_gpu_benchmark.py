"""The one command for a GPU: its parts run on a CPU, and whatever ends it leaves what was measured."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("gpu")


def part(module: ModuleType, program: str, file: Path, limit: float = 60, **options: Any) -> Any:
    """A part that is a program of one line; ``sys.argv[2]`` is the file that it may write."""
    return module.Part(
        [[[sys.executable, "-c", program, "--json", str(file)]]],
        lambda figures: [{"figure": "seconds", "found": figures[file.stem]["seconds"]}],
        limit,
        **options,
    )


WRITES = "import pathlib, sys; pathlib.Path(sys.argv[2]).write_text('{\"seconds\": 1.5}')"


def test_a_part_and_what_may_become_of_it(gpu: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "x.json"

    def state(program: str, seconds_left: float = 100, **options: Any) -> tuple[str, list[Any]]:
        found = gpu.measured("x", part(gpu, program, file, **options), tmp_path, seconds_left)
        return found["state"], found["rows"]

    rows = [{"figure": "seconds", "found": 1.5}]
    assert state(WRITES) == ("done", rows)
    assert state("raise SystemExit('no such card')") == ("failed: no such card", [])  # nothing of before
    assert state(f"{WRITES}; import time; time.sleep(60)", limit=3) == ("ended after its 3 s", rows)
    assert state(WRITES, seconds_left=0.5) == ("no time was left", [])
    assert state(WRITES, without="there is no card") == ("there is no card", [])
    half = "done, and its figures cannot be read: JSONDecodeError("
    assert state(WRITES.replace("1.5}", ""))[0].startswith(half)
    assert state(WRITES.replace("seconds", "hours"))[0] == (
        "done, and its figures cannot be read: KeyError('seconds')"
    )


def test_whatever_a_part_started_ends_with_it(gpu: ModuleType, tmp_path: Path) -> None:
    spawns = (
        "import pathlib, subprocess, sys; p = subprocess.Popen(['sleep', '100']); "
        "pathlib.Path(sys.argv[2]).write_text('{\"seconds\": %d}' % p.pid); p.wait()"
    )
    found = gpu.measured("x", part(gpu, spawns, tmp_path / "x.json", limit=2), tmp_path, 100)
    begun = time.monotonic()
    while Path(f"/proc/{found['rows'][0]['found']}/stat").exists() and time.monotonic() - begun < 10:
        if Path(f"/proc/{found['rows'][0]['found']}/stat").read_text().split()[2] == "Z":
            break  # ended; nobody has looked yet
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{found['rows'][0]['found']}").exists()


def test_the_table_names_the_card_its_peak_and_what_is_missing(gpu: ModuleType, tmp_path: Path) -> None:
    figures = gpu.Figures(tmp_path, {"name": "NVIDIA X"})
    peak = {"operations per second": 8e14, "type": "bfloat16"}
    rates = [
        {"step": "extraction", "loop": "plain, fp32", "images/s": 1000.4, "of peak": 0.1},
        {"step": "extraction", "loop": "calr, bf16", "images/s": 9000.4, "of peak": 0.4, "ratio": 9.0},
    ]
    content = {"peak": peak, "rates": rates}
    figures.parts = {
        "step": {"state": "done", "rows": gpu.rates({"step": content}), "figures": {"step": content}},
        "epoch": {"state": "cut off", "rows": []},
    }
    figures.write()
    assert (tmp_path / "gpu.md").read_text().splitlines() == [
        "Measured on NVIDIA X. Its peak: 800 TFLOP/s in bfloat16.",
        "",
        "| part | figure | found | of the peak | target |",
        "| --- | --- | --- | --- | --- |",
        "| step | extraction, plain, fp32, images/s | 1e+03 | 10 % |  |",
        "| step | extraction, calr, bf16, images/s | 9000 (9.00 x plain) | 40 % | 9,000 on an H100 |",
        "| epoch |  | not yet measured: cut off |  |  |",
    ]
    assert json.loads((tmp_path / "gpu.json").read_text())["card"] == {"name": "NVIDIA X"}


def test_seeds_side_by_side_are_compared_with_the_cpu(gpu: ModuleType) -> None:
    def run(value: float) -> dict[str, Any]:
        return {"last": {"all": {"mAP": value}}}

    figures = {"market1501-1": {"calr": {"1": run(46)}}, "market1501-2": {"calr": {"2": run(48)}}}
    calr, plus = gpu.learned("market1501")(figures)
    assert calr["found"] == "47.0 ± 1.4 (2 seeds)"
    assert calr["target"].startswith("CPU: 47.1 ± ")
    assert plus["found"] == "not yet measured"
    lanes = gpu.parts(Path("out"), None, dry=False)["market1501"].lanes
    assert [command[command.index("--seeds") + 1] for _, command in lanes] == ["1", "2", "3"]


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killed_midway(tmp_path: Path, number: int) -> None:
    words = ["--dry-run", "--parts", "tests", "labels", "--output", str(tmp_path)]
    with subprocess.Popen(
        [sys.executable, BENCHMARKS / "gpu.py", *words], stderr=subprocess.DEVNULL
    ) as command:
        log, begun = tmp_path / "tests.log", time.monotonic()
        while not log.exists() and time.monotonic() - begun < 60:
            time.sleep(0.05)
        os.kill(command.pid, number)
        command.wait()
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert {name: found["state"] for name, found in parts.items()} == {
        "tests": "cut off",
        "labels": "its turn did not come",
    }
    assert "| labels |  | not yet measured: its turn did not come |" in (tmp_path / "gpu.md").read_text()


@pytest.mark.e2e
@pytest.mark.timeout(280)
def test_a_dry_run(tmp_path: Path) -> None:
    words = ["--dry-run", "--parts", "processes", "market1501", "--output", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "gpu.py", *words], capture_output=True, text=True, timeout=270
    )
    assert done.returncode == 0, done.stderr
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert {name: found["state"] for name, found in parts.items()} == {
        "processes": "done",
        "market1501": "a dry run leaves it out",
    }
    *_, alike = parts["processes"]["rows"]
    assert float(alike["found"]) < 1e-5  # two processes give what one gives
