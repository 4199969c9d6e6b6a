"""What every test shares: its own state folder, the golden numbers, and a quiet reporter."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from calr_cli import downloads
from calr_cli.allocation import keep_freed_memory
from tests.support.narrow import use_narrow
from tests.support.site import Site, running_site

# A shared machine is slow now and then; how long a test takes is not what these tests are about.
settings.register_profile("calr", deadline=None, derandomize=True)
settings.load_profile("calr")

if "PYTEST_XDIST_WORKER" in os.environ:  # tests side by side: a thread each, in their commands too
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"

keep_freed_memory()  # as the command line does: trainings are a good part of the tests' time

GOLDEN = Path(__file__).parent / "golden"
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def calr_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees the state of another, nor the user's."""
    home = tmp_path / "calr-home"
    monkeypatch.setenv("CALR_HOME", str(home))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch-home"))
    monkeypatch.delenv("CALR_DATA", raising=False)
    return home


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test hears that the machine is busy, unless it says so."""
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))


@pytest.fixture(scope="module")
def narrow() -> Iterator[None]:
    """A small network in place of ResNet-18; for all of a module, because its tests share trained runs."""
    with pytest.MonkeyPatch.context() as patch:
        use_narrow(patch)
        yield


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A web server on this machine, which no proxy stands in front of."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with running_site() as site:
        yield site


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between two attempts to download, without the time they would take."""
    waits: list[float] = []
    monkeypatch.setattr(downloads, "sleep", waits.append)
    return waits


@pytest.fixture
def shared() -> Path:
    """The real images and weights beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("../shared is not there")
    return SHARED


@pytest.fixture(params=["a", "b"])
def golden(request: pytest.FixtureRequest) -> dict[str, np.ndarray]:
    """Numbers of the released functions on made-up data; both sets in turn."""
    return load_golden(request.param)


def load_golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"pipeline_{name}.npz") as archive:
        arrays = dict(archive)
    count = len(arrays["features"])
    for key in [key for key in arrays if key.startswith("jaccard_")]:
        full = np.zeros((count, count), np.float32)  # stored as one triangle to keep the file small
        full[np.triu_indices(count, 1)] = arrays[key]
        arrays[key] = full + full.T
    return arrays


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Side by side the long ones begin first: one that began last would be waited for.
    items.sort(key=lambda item: not any(item.get_closest_marker(name) for name in ("e2e", "distributed")))
    without_cuda = pytest.mark.skip(reason="needs CUDA")
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(without_cuda)
