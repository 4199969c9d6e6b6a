"""The example of docs/deploy.md embeds as calr does, in a process that has neither calr nor torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from calr_cli import load_embedder
from calr_cli.events import SilentReporter
from calr_cli.models.encoder import Encoder
from calr_cli.training.checkpoint import ModelCard, save_model
from calr_cli.use.exporting import export_onnx
from tests.cli.test_export import CALIBRATION
from tests.docs.pages import REPOSITORY, fenced_lines
from tests.support.made_up import write_image

AFTERWARDS = """
import sys
assert not {"calr_cli", "torch"} & sys.modules.keys()
np.save("features.npy", features)
"""


def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for pid in range(4):
        for n in range(10):  # more than one batch
            write_image(Path(f"photos/{pid + 1:04d}_c{n % 2 + 1}_{n}.jpg"), pid, seed=n)
    card = ModelCard("photos", "inter", 0, "resnet18", "gem", 64, 32, CALIBRATION.to_dict())
    torch.manual_seed(0)
    save_model(Path("model.pth"), Encoder("resnet18"), card)
    model = load_embedder("model.pth", device="cpu", settings={"precision": "fp32"})
    export_onnx(model, ["photos"], Path("model.onnx"), SilentReporter())
    expected, _ = model.embed(sorted(Path("photos").glob("*.jpg")))

    lines = fenced_lines(REPOSITORY / "docs" / "deploy.md")
    example = "\n".join(line.text for line in lines if line.language == "python")
    Path("example.py").write_text(example + AFTERWARDS, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "example.py"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load("features.npy"), expected.rows, atol=1e-5)

    compared, *ranked = done.stdout.splitlines()
    second = expected.paths.index(str(Path("photos/0001_c2_1.jpg")))
    similarity = float(expected.rows[0] @ expected.rows[second])
    probability = CALIBRATION.probability(similarity)
    verdict = "same" if probability >= 0.5 else "different"
    assert compared == f"similarity {similarity:.3f}, probability {probability:.2f}: {verdict}"
    assert ranked[0] == f"1.000  {Path('photos/0001_c1_0.jpg')}"
    assert len(ranked) == 5
