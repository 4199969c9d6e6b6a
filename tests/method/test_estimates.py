"""How long training takes: counted steps by hand, timed batches by a made-up clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from calr_cli.method import epochs as epochs_module
from calr_cli.method import estimates
from calr_cli.method.estimates import Paced, duration, smaller_networks, stage_steps, training_seconds
from calr_cli.method.intra import train_intra
from calr_cli.runs.find import create_run
from tests.support.heard import Heard
from tests.support.image_sets import make_image_set
from tests.support.small import small_dataset, small_settings
from tests.support.stages import CPU, Notebook


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time as the test sets it."""
    now = [0.0]
    monkeypatch.setattr(estimates, "perf_counter", lambda: now[0])
    return now


def paced(clock: list[float], seconds: list[float], count: int = 1) -> list[tuple[float, int]]:
    """What is told of batches that take so long."""
    told: list[tuple[float, int]] = []
    reporter = Paced(Heard(), lambda batch, timed: told.append((batch, timed)))
    with reporter.progress("epoch 1/2", len(seconds), "iterations") as progress:
        for one in seconds:
            clock[0] += one
            progress.advance(count, loss=1.0)
    return told


def test_the_first_batch_is_not_timed_and_the_next_ten_are(clock: list[float]) -> None:
    assert paced(clock, [100.0, *[2.0] * 10, *[500.0] * 5]) == [(2.0, 10)]


def test_slow_batches_are_told_after_some_seconds(clock: list[float]) -> None:
    assert paced(clock, [100.0, 15.0, 15.0, 1.0]) == [(15.0, 2)]


def test_a_short_epoch_is_told_at_its_end(clock: list[float]) -> None:
    assert paced(clock, [9.0, 1.0, 3.0]) == [(2.0, 2)]
    assert paced(clock, [9.0]) == paced(clock, []) == []


def test_several_batches_at_a_time(clock: list[float]) -> None:
    assert paced(clock, [9.0, 5.0, 5.0], count=10) == [(0.5, 10)]


def test_steps_by_hand() -> None:
    settings = small_settings()  # stage 1: 2 epochs, 2 batches of 8 in each camera; stage 2: 3 epochs
    assert stage_steps(settings, "intra", cameras=3, images=48) == 2 * (3 * 2 * 8 + 16)
    assert stage_steps(settings, "inter", cameras=3, images=48) == 3 * (2 * 8 + 16)


def test_time_is_in_proportion_to_steps_and_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(1000))
    monkeypatch.setattr(estimates, "perf_counter", lambda: float(next(ticks)))  # a second passes between two
    settings, images = small_settings(), make_image_set(tmp_path, 48)
    both = training_seconds(settings, images, [CPU])
    parts = [training_seconds(settings, images, [CPU], [stage]) for stage in ("intra", "inter")]
    assert both == pytest.approx(sum(parts))
    assert parts[1] == pytest.approx(stage_steps(settings, "inter", 2, 48) / 8)  # a second for 8 images
    assert training_seconds(settings, images, [CPU, CPU]) == pytest.approx(both / 2)


def test_smaller_networks_are_told_where_they_help(tmp_path: Path) -> None:
    images = make_image_set(tmp_path, 48)
    assert smaller_networks(small_settings(), images, [CPU]) is None  # resnet18 already
    text = smaller_networks(small_settings(model={"arch": "resnet34"}), images, [CPU])
    assert text is not None
    assert text.startswith("on this CPU both stages would take about ")


@pytest.mark.parametrize("network", ["per-camera", "shared"])
def test_a_stage_says_once_how_long_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: str
) -> None:
    monkeypatch.setattr(epochs_module, "_SHORT_SECONDS", 0)
    told: list[float] = []
    monkeypatch.setattr(epochs_module, "duration", lambda seconds: told.append(seconds) or duration(seconds))
    dataset = small_dataset(tmp_path / "data")
    settings = small_settings(intra={"network": network, "epochs": 2, "iters": 3})
    heard = Notebook()
    train_intra(settings, dataset, create_run(settings, "intra", [CPU], tmp_path / "intra"), CPU, heard)
    (line,) = [note for note in heard.notes if "takes about" in note]
    stage_1, stage_2 = map(duration, told[:2])  # later epochs say nothing
    timed = 2 if network == "per-camera" else 8  # of 3 batches, or 9
    said = f"stage 1 takes about {stage_1}, stage 2 after it about {stage_2}"
    assert line == f"{said} (from the first {timed} batches)"
