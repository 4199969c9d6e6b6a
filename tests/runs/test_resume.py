"""What may change when a run goes on: on purpose, by an editor, and not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from calr_cli.config.loading import flat_settings
from calr_cli.errors import CalrError, CheckpointError, ConfigError
from calr_cli.runs.find import create_run
from calr_cli.runs.folder import RunFolder
from calr_cli.runs.resume import (
    begin_continuation,
    nothing_to_resume,
    plan_continuation,
    require_resumable,
)
from calr_cli.training.checkpoint import save_state
from tests.support.epoch_figures import inter_epoch
from tests.support.heard import Heard
from tests.support.image_sets import make_image_set
from tests.support.small import small_settings

CPU = torch.device("cpu")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run of stage 2 that stopped after two of its three epochs."""
    run = create_run(small_settings(), "inter", [CPU], tmp_path / "run")
    for epoch in range(2):
        run.append_metrics(inter_epoch(epoch))
    return run


def edit(run: RunFolder, before: str, after: str) -> None:
    text = run.config.read_text(encoding="utf-8")
    assert before in text
    run.config.write_text(text.replace(before, after), encoding="utf-8")


def refusal(run: RunFolder, *assignments: str) -> CalrError:
    with pytest.raises(ConfigError) as caught:
        plan_continuation(run.path, "inter", assignments)
    return caught.value


def test_a_run_goes_on_as_it_was_begun(run: RunFolder) -> None:
    plan = plan_continuation(run.path, "inter", [])
    assert (plan.settings, plan.changes, plan.finished) == (small_settings(), {}, False)
    heard = Heard()
    assert begin_continuation(plan, [CPU], heard) == run
    assert heard.notes == []
    entry = run.read_environment()["resumed"][0]
    assert set(entry) == {"time", "command", "devices", "processes", "threads", "torch", "changed"}


def test_a_change_on_purpose_is_written_down(run: RunFolder) -> None:
    plan = plan_continuation(run.path, "inter", ["inter.epochs=9", "memory_limit_gb=3"])
    assert plan.settings.inter.epochs == 9
    assert run.settings == small_settings()  # not yet
    heard = Heard()
    begin_continuation(plan, [CPU], heard)
    assert heard.notes == ["changed on purpose: memory_limit_gb null -> 3.0, inter.epochs 3 -> 9"]
    assert run.settings == plan.settings
    content = json.loads((run.path / "environment.json").read_text(encoding="utf-8"))
    assert content["settings"] == flat_settings(plan.settings)
    assert content["resumed"][0]["changed"]["inter.epochs"] == [3, 9]
    # The next time nothing is changed any more, also if training never came to save its state.
    assert plan_continuation(run.path, "inter", []).changes == {}
    begin_continuation(plan_continuation(run.path, "inter", []), [CPU], heard)
    assert len(run.read_environment()["resumed"]) == 2


def test_a_file_that_somebody_edited(run: RunFolder) -> None:
    edit(run, "k: 4\n", "k: 5\n")
    edit(run, "min_similarity: 0.3\n", "min_similarity: 0.4\n")
    error = refusal(run, "inter.epochs=9")
    assert error.problems == (
        f"{run.path}/config.yaml was changed since the run was begun: inter.clustering.k 4 -> 5",
        f"{run.path}/config.yaml was changed since the run was begun: "
        "inter.clustering.min_similarity 0.3 -> 0.4",
    )
    assert error.hint == "Give --set KEY=VALUE to change it on purpose, or put the file back"
    said = ["inter.clustering.k=5", "inter.clustering.min_similarity=0.4"]
    assert set(plan_continuation(run.path, "inter", said).changes) == {word.split("=")[0] for word in said}
    back = ["inter.clustering.k=4", "inter.clustering.min_similarity=0.3"]  # as good as putting it back
    assert plan_continuation(run.path, "inter", back).changes == {}


@pytest.mark.parametrize(
    ("assignment", "line"),
    [
        ("model.arch=resnet50", "model.arch resnet18 -> resnet50: model.arch cannot change in a run"),
        ("data.height=64", "data.height 32 -> 64: data.height cannot change in a run"),
        ("data.dataset=veri", "data.dataset market1501 -> veri: data.dataset cannot change in a run"),
        ("seed=2", "seed 1 -> 2: seed cannot change in a run"),
        # The state has a camera classifier, or it has none.
        ("inter.camera.enabled=false", "inter.camera.enabled true -> false: "),
        ("inter.camera.adversarial_epochs=0", "inter.camera.adversarial_epochs 3 -> 0: "),
        ("inter.average=0.9", "inter.average 0.0 -> 0.9: "),
        ("inter.start=intra", "inter.start pretrained -> intra: "),
        ("intra.network=shared", "intra.network per-camera -> shared: "),
    ],
)
def test_what_the_state_was_made_with_stays(run: RunFolder, assignment: str, line: str) -> None:
    error = refusal(run, assignment)
    assert error.problems[0].startswith(line)
    assert error.hint == "Start a new one"


def test_a_wrong_assignment_is_told_as_at_the_start(run: RunFolder) -> None:
    assert "inter.epochs = 0 (--set) must be a whole number from 1" in str(refusal(run, "inter.epochs=0"))


def test_no_fewer_epochs_than_are_done(run: RunFolder) -> None:
    assert str(refusal(run, "inter.epochs=1")) == f"inter.epochs = 1: 2 are done in {run.path} already"
    assert plan_continuation(run.path, "inter", ["inter.epochs=2"]).settings.inter.epochs == 2


def test_a_finished_run_goes_on_with_more_epochs_only(run: RunFolder) -> None:
    run.append_metrics(inter_epoch(2))
    for result in (run.model, run.evaluation):
        result.touch()
    assert plan_continuation(run.path, "inter", []).finished
    assert plan_continuation(run.path, "inter", ["inter.epochs=3"]).finished
    assert plan_continuation(run.path, "inter", ["inter.clustering.k=9"]).finished
    plan = plan_continuation(run.path, "inter", ["inter.epochs=4"])
    assert not plan.finished
    assert run.model.exists()
    begin_continuation(plan, [CPU], Heard())
    # Not finished any more: should this be interrupted too, the run goes on without being told again.
    assert not run.model.exists()
    assert not run.evaluation.exists()
    assert not plan_continuation(run.path, "inter", []).finished


def test_a_run_that_stopped_early_is_finished(run: RunFolder) -> None:
    run.model.touch()  # after two epochs of three: training stopped by itself
    plan = plan_continuation(run.path, "inter", [])
    assert plan.finished
    assert str(nothing_to_resume(plan, "inter")) == (
        f"the run in {run.path} is finished: there is nothing to resume. "
        "To train it for longer: --set inter.epochs=N"
    )


def test_stage_1_is_finished_with_its_labels(tmp_path: Path) -> None:
    run = create_run(small_settings(), "intra", [CPU], tmp_path / "run")
    assert not plan_continuation(run.path, "intra", []).finished
    run.local_labels.touch()
    plan = plan_continuation(run.path, "intra", ["intra.epochs=9"])
    assert plan.finished
    assert str(nothing_to_resume(plan, "intra")).endswith("there is nothing to resume")


def test_another_machine_is_noted(run: RunFolder) -> None:
    heard = Heard()
    begin_continuation(plan_continuation(run.path, "inter", []), [CPU, CPU], heard)
    assert heard.notes == [
        "not as the run was begun: processes 2, not 1; the last bits of results depend on it"
    ]


def test_a_run_begun_before_settings_were_written_down(run: RunFolder) -> None:
    content: dict[str, Any] = run.read_environment()
    del content["settings"]
    run.write_environment(content)
    edit(run, "k: 4\n", "k: 5\n")
    assert plan_continuation(run.path, "inter", []).settings.inter.clustering.k == 5


def test_a_run_of_an_older_calr_had_fewer_settings(run: RunFolder) -> None:
    """What it did not know was as the default is: its state has no average."""
    content: dict[str, Any] = run.read_environment()
    del content["settings"]["inter.average"]
    run.write_environment(content)
    edit(run, "  average: 0.0\n", "")
    assert plan_continuation(run.path, "inter", []).changes == {}
    assert refusal(run, "inter.average=0.9").problems == (
        "inter.average 0.0 -> 0.9: inter.average cannot change in a run",
    )


def test_a_run_of_another_stage(run: RunFolder) -> None:
    with pytest.raises(CheckpointError, match="is a run of train-inter, not of train-intra"):
        plan_continuation(run.path, "intra", [])


def test_a_run_that_cannot_go_on_loses_nothing(run: RunFolder, tmp_path: Path) -> None:
    """A finished run is to be trained for longer: its model is not removed before that is known to work."""
    images = make_image_set(tmp_path / "images", 4)
    require_resumable(run, images)
    save_state(run.state, {"encoder": {}})
    with pytest.raises(CheckpointError, match=r"checkpoint\.pth was written by an older version of calr"):
        require_resumable(run, images)
    run.state.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pth"):
        require_resumable(run, images)
    run.state.unlink()
    with pytest.raises(CheckpointError, match="was begun on other training images"):
        require_resumable(run, images.subset(np.arange(3)))
