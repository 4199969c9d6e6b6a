"""A run with `compile`: its files are those of any run, and it goes on as any run does."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from calr_cli.data.local_labels import read_local_labels
from calr_cli.errors import ConfigError
from calr_cli.events import SilentReporter
from calr_cli.method import build
from calr_cli.method.inter import train_inter
from calr_cli.models.compiling import compile_backbone
from calr_cli.models.encoder import Encoder
from calr_cli.runs.find import create_run, open_run
from tests.support.small import small_dataset, small_settings
from tests.support.stages import CPU, Notebook, assert_same_model, run_inter, run_intra, weights


def test_files_have_the_usual_names_and_a_resumed_run_the_bits_of_one_that_went_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.compiler.reset()
    monkeypatch.setattr(build, "compile_backbone", partial(compile_backbone, backend="aot_eager"))
    dataset, settings = small_dataset(tmp_path / "data"), small_settings(compile=True)
    labels = run_intra(settings, dataset, tmp_path / "intra").local_labels
    whole = run_inter(settings, dataset, labels, tmp_path / "whole")
    assert weights(whole.model).keys() == Encoder("resnet18").state_dict().keys()
    local = read_local_labels(labels, dataset.train)
    cut = create_run(settings, "inter", [CPU], tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        train_inter(settings, dataset, local, cut, CPU, Notebook(2))
    train_inter(settings, dataset, local, open_run(cut.path, "inter"), CPU, SilentReporter())
    assert_same_model(whole.model, cut.model)


def test_batch_norms_over_several_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.collectives, "world_size", lambda: 2)
    with pytest.raises(ConfigError) as caught:
        build.build_encoder(small_settings(compile=True, batch_norm_group_size=0), "inter", CPU)
    assert str(caught.value) == (
        "compile: batch norms over several devices cannot be compiled. Give --set compile=false, or a "
        "batch_norm_group_size above 0"
    )
