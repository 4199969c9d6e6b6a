"""What the training commands begin, keep and go on with; the training itself is tested in its own room."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from calr_cli.cli.next_steps import resumable
from calr_cli.cli.seeds import mean_and_spread
from calr_cli.config.schema import Settings
from calr_cli.data.local_labels import read_local_labels, write_local_labels
from calr_cli.errors import DataError, TrainingError
from calr_cli.events import Reporter
from calr_cli.method import both, processes
from calr_cli.method.build import model_card
from calr_cli.models.encoder import Encoder
from calr_cli.runs.folder import RunFolder
from calr_cli.training.checkpoint import save_model
from calr_cli.types import Dataset, IntArray
from calr_cli.use import evaluating
from tests.cli.conftest import Answer, Calr
from tests.support.epoch_figures import inter_epoch

pytestmark = pytest.mark.usefixtures("narrow")

SHORT = ["--pretrained", "none", "-a", "resnet18", "--height", "32", "--width", "32", "--device", "cpu"]
FIGURES = {1: 10.0, 2: 12.0, 3: 17.0}


@dataclass
class Trainer:
    """Stands in for training: writes what a run leaves, notes what it was given, stops where told to."""

    stop: tuple[str, BaseException] | None = None
    done: list[str] = field(default_factory=list)
    devices: list[Sequence[torch.device]] = field(default_factory=list)

    def note(self, what: str, devices: Sequence[torch.device]) -> None:
        self.devices.append(devices)
        if self.stop is not None and self.stop[0] == what:
            error, self.stop = self.stop[1], None
            raise error
        self.done.append(what)

    def intra(
        self,
        settings: Settings,
        dataset: Dataset,
        run: RunFolder,
        devices: Sequence[torch.device],
        reporter: Reporter,
    ) -> dict[str, Any]:
        self.note(f"intra {settings.seed}", devices)
        images = dataset.train
        if settings.intra.network == "shared":
            network = Encoder(settings.model.arch, settings.model.pooling)
            save_model(run.model, network, model_card(settings, network, "intra", 1, images))
        write_local_labels(run.local_labels, images, torch.arange(len(images)).numpy() // 2)
        counts = {"images": len(images), "cameras": 3, "clusters": len(images) // 2}
        cameras = [
            {"camera": 0, "images": 1, "clusters": 1},  # too small to be trained
            {"camera": 1, "images": 17, "clusters": 8, "silhouette": 0.125, "quality": {"pair_f": 0.5}},
        ]
        labels = str(run.local_labels)
        return {"dataset": dataset.name, **counts, "local_labels": labels, "per_camera": cameras}

    def inter(
        self,
        settings: Settings,
        dataset: Dataset,
        local_labels: IntArray | None,
        run: RunFolder,
        devices: Sequence[torch.device],
        reporter: Reporter,
    ) -> dict[str, Any]:
        assert local_labels is not None
        assert read_local_labels(run.local_labels, dataset.train).tolist() == local_labels.tolist()
        assert run.start.exists() == (settings.inter.start == "intra")
        self.note(f"inter {settings.seed} epochs {settings.inter.epochs}", devices)
        run.append_metrics(inter_epoch(settings.inter.epochs - 1))
        run.model.touch()
        counts = {"images": 1, "epochs": settings.inter.epochs, "clusters": 1, "outliers": 0, "discarded": 0}
        return {"dataset": dataset.name, **counts, "model": str(run.model)}

    def evaluation(
        self,
        settings: Settings,
        model: Path | None,
        dataset: Dataset,
        rerank: bool,
        devices: Sequence[torch.device],
        logs: Path,
        reporter: Reporter,
    ) -> dict[str, Any]:
        self.note(f"evaluation {settings.seed}", devices)
        return {"mAP": FIGURES[settings.seed], "Rank-1": 50.0, "Rank-5": 60.0, "Rank-10": 70.0}


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Trainer]:
    trainer = Trainer()
    monkeypatch.setattr(processes, "run_intra", trainer.intra)
    monkeypatch.setattr(processes, "run_inter", trainer.inter)
    monkeypatch.setattr(evaluating, "run_evaluation", trainer.evaluation)
    yield trainer
    assert trainer.stop is None


def done(answer: Answer) -> Answer:
    assert answer.exit_code == 0, answer.stderr
    return answer


def resume_line(answer: Answer) -> str:
    return answer.stderr.splitlines()[-1].removeprefix("resume with: ")


def test_three_seeds(calr: Calr, veri: str, folder: Path, trainer: Trainer) -> None:
    answer = done(calr("train", "-d", veri, *SHORT, "--seeds", "3", "--output", "out", "--json"))
    assert [place.name for place in sorted((folder / "out").iterdir())] == ["seed1", "seed2", "seed3"]
    epochs = RunFolder(folder / "out/seed1/inter").settings.inter.epochs
    assert trainer.done == [
        step
        for seed in (1, 2, 3)
        for step in (f"intra {seed}", f"inter {seed} epochs {epochs}", f"evaluation {seed}")
    ]
    assert RunFolder(folder / "out/seed3/intra").settings.seed == 3
    result = answer.json
    assert [(row["seed"], row["mAP"]) for row in result["seeds"]] == list(FIGURES.items())
    assert result["seeds"][1]["model"] == "out/seed2/inter/model.pth"
    assert result["mean"] == {"mAP": 13.0, "Rank-1": 50.0, "Rank-5": 60.0, "Rank-10": 70.0}
    assert result["std"]["mAP"] == pytest.approx(math.sqrt((9 + 1 + 16) / 2))
    assert result["std"]["Rank-1"] == 0


def test_seeds_in_a_table(calr: Calr, veri: str, folder: Path, trainer: Trainer) -> None:
    answer = done(calr("train", "-d", veri, *SHORT, "--seeds", "2", "--seed", "2", "--quiet"))
    rows = [line.split() for line in answer.stdout.splitlines() if line]
    assert rows[:5] == [
        ["seed", "mAP", "Rank-1", "Rank-5", "Rank-10"],
        ["2", "12.0", "50.0", "60.0", "70.0"],
        ["3", "17.0", "50.0", "60.0", "70.0"],
        ["mean", "14.5", "50.0", "60.0", "70.0"],
        ["std", "3.5", "0.0", "0.0", "0.0"],
    ]
    (place,) = folder.glob("runs/veri/seeds/*")
    assert rows[5] == ["seed", "2", str(place.relative_to(folder) / "seed2/inter/model.pth")]


def test_one_seed_has_no_spread() -> None:
    row = {"mAP": 1.0, "Rank-1": 2.0, "Rank-5": 3.0, "Rank-10": 4.0}
    assert mean_and_spread([row]) == {"mean": row, "std": dict.fromkeys(row)}


@pytest.mark.parametrize("where", ["intra 2", "inter 2 epochs 50", "evaluation 2"])
def test_what_several_seeds_left_to_do(calr: Calr, veri: str, trainer: Trainer, where: str) -> None:
    trainer.stop = (where, KeyboardInterrupt())
    stopped = calr("train", "-d", veri, *SHORT, "--seeds", "3", "--output", "out", "--processes", "2")
    assert (stopped.exit_code, stopped.stdout) == (130, "")
    assert resume_line(stopped) == "calr train --resume out --device cpu --processes 2"
    before = list(trainer.done)
    resumed = done(calr("train", "--resume", "out", "--device", "cpu", "--json"))
    everything = [
        step
        for seed in (1, 2, 3)
        for step in (f"intra {seed}", f"inter {seed} epochs 50", f"evaluation {seed}")
    ]
    assert before + trainer.done[len(before) :] == everything
    assert before == everything[: everything.index(where)]
    assert resumed.json["mean"]["mAP"] == 13.0
    # Nothing is left: what was found is told again, and nothing is done.
    again = done(calr("train", "--resume", "out", "--device", "cpu", "--json"))
    assert (again.json, trainer.done) == (resumed.json, everything)


def test_several_seeds_for_longer(calr: Calr, veri: str, trainer: Trainer) -> None:
    done(calr("train", "-d", veri, *SHORT, "--seeds", "2", "--output", "out"))
    trainer.done.clear()
    done(calr("train", "--resume", "out", "--device", "cpu", "--set", "inter.epochs=60"))
    assert trainer.done == [
        step for seed in (1, 2) for step in (f"inter {seed} epochs 60", f"evaluation {seed}")
    ]


def test_seeds_without_test_identities(calr: Calr, veri_root: Path, trainer: Trainer) -> None:
    images = veri_root / "veri/VeRi/image_train"
    done(calr("prepare-data", "--images", images, "--name", "gate", "--pattern", r"_c(?P<camid>\d+)_"))
    answer = done(calr("train", "-d", "gate", *SHORT, "--seeds", "2", "--json"))
    assert "gate has no test images with identities: there are no figures to compare" in answer.stderr
    assert set(answer.json) == {"dataset", "seeds"}
    assert [step.split()[0] for step in trainer.done] == ["intra", "inter"] * 2


def test_both_stages_go_on(calr: Calr, veri: str, folder: Path, trainer: Trainer) -> None:
    trainer.stop = ("intra 1", DataError("an image is gone"))
    stopped = calr("train", "-d", veri, *SHORT, "--output", "both")
    assert (stopped.exit_code, stopped.errors) == (1, ["error: an image is gone"])
    assert resume_line(stopped) == "calr train --resume both --device cpu"
    trainer.stop = ("inter 1 epochs 50", KeyboardInterrupt())
    assert calr("train", "--resume", "both", "--device", "cpu").exit_code == 130
    resumed = done(calr("train", "--resume", "both", "--device", "cpu", "--json"))
    assert list(resumed.json) == ["inter"]
    assert "finished before: both/intra/local_labels.csv" in resumed.stderr
    assert trainer.done == ["intra 1", "inter 1 epochs 50"]
    record = json.loads((folder / "both/inter/environment.json").read_text(encoding="utf-8"))
    assert len(record["resumed"]) == 2

    finished = calr("train", "--resume", "both", "--device", "cpu")
    assert finished.errors == [
        "error: the run in both/inter is finished: there is nothing to resume. "
        "To train it for longer: --set inter.epochs=N"
    ]
    longer = done(calr("train", "--resume", "both", "--device", "cpu", "--set", "inter.epochs=60"))
    assert "changed on purpose: inter.epochs 50 -> 60" in longer.stderr
    assert trainer.done[-1] == "inter 1 epochs 60"


def test_runs_that_have_no_folder_in_common_go_on_one_by_one(
    calr: Calr, veri: str, folder: Path, trainer: Trainer
) -> None:
    trainer.stop = ("intra 1", KeyboardInterrupt())
    line = resume_line(calr("train", "-d", veri, *SHORT))
    intra, inter = (next(folder.glob(f"runs/veri/{stage}/*")) for stage in ("intra", "inter"))
    stage1, stage2 = intra.relative_to(folder), inter.relative_to(folder)
    assert line == (
        f"calr train-intra --resume {stage1} --device cpu && calr train-inter --resume {stage2} "
        f"--local-labels {stage1}/local_labels.csv --device cpu"
    )
    for command in line.split(" && "):
        done(calr(*command.split()[1:]))
    assert trainer.done == ["intra 1", "inter 1 epochs 50"]


def test_what_was_handed_over_is_not_asked_for_again(
    calr: Calr, veri: str, folder: Path, trainer: Trainer
) -> None:
    trainer.stop = ("inter 1 epochs 50", KeyboardInterrupt())
    line = resume_line(calr("train", "-d", veri, *SHORT))
    inter = next(folder.glob("runs/veri/inter/*")).relative_to(folder)
    assert line == f"calr train-inter --resume {inter} --device cpu"
    done(calr(*line.split()[1:]))
    assert trainer.done == ["intra 1", "inter 1 epochs 50"]


def test_labels_that_could_not_be_handed_over_are_asked_for_again(
    calr: Calr, veri: str, folder: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    done(calr("train-intra", "-d", veri, *SHORT, "--output", "first"))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "run/local_labels.csv")

    monkeypatch.setattr(both, "write_local_labels", full)
    given = ["--local-labels", "first/local_labels.csv", "--output", "run"]
    stopped = calr("train-inter", "-d", veri, *SHORT, *given)
    assert stopped.errors == ["error: run/local_labels.csv: No space left on device"]
    assert resume_line(stopped) == (
        "calr train-inter --resume run --local-labels first/local_labels.csv --device cpu"
    )


def test_only_the_first_process_knows_how_to_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    for rank, notes in (("0", ["resume with: calr train --resume x"]), ("1", [])):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(DataError) as caught, resumable(lambda: ["calr train --resume x"]):
            raise DataError("gone")
        assert getattr(caught.value, "__notes__", []) == notes


@pytest.mark.parametrize("command", ["train-intra", "train-inter", "train"])
def test_every_stage_gets_all_devices(calr: Calr, veri: str, trainer: Trainer, command: str) -> None:
    done(calr(command, "-d", veri, *SHORT, "--processes", "3"))
    assert trainer.devices
    assert all(devices == [torch.device("cpu")] * 3 for devices in trainer.devices)


def test_the_deterministic_flag_is_a_setting(calr: Calr, veri: str, folder: Path, trainer: Trainer) -> None:
    done(calr("train-intra", "-d", veri, *SHORT, "--deterministic", "--output", "run"))
    assert RunFolder(folder / "run").settings.deterministic is True
    shown = calr("train-intra", "-d", veri, "--deterministic", "--print-config").stdout
    assert "deterministic: true  # --deterministic" in shown.splitlines()


def test_a_run_resumed_with_other_settings(calr: Calr, veri: str, folder: Path, trainer: Trainer) -> None:
    trainer.stop = ("intra 1", KeyboardInterrupt())
    calr("train-intra", "-d", veri, *SHORT, "--output", "run")
    config = folder / "run/config.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace("iters: 100\n", "iters: 50\n"), "utf-8")
    refused = calr("train-intra", "--resume", "run", "--device", "cpu")
    assert refused.errors == [
        "error: run/config.yaml was changed since the run was begun: intra.iters 100 -> 50. "
        "Give --set KEY=VALUE to change it on purpose, or put the file back"
    ]
    resumed = done(
        calr(
            "train-intra", "--resume", "run", "--device", "cpu", "--set", "intra.iters=50", "--processes", "2"
        )
    )
    assert "changed on purpose: intra.iters 100 -> 50" in resumed.stderr
    assert "not as the run was begun: processes 2, not 1" in resumed.stderr


def test_two_commands_do_not_train_in_one_run(calr: Calr, veri: str, folder: Path, trainer: Trainer) -> None:
    """Both once ended well, and had written every epoch twice."""
    trainer.stop = ("inter 1 epochs 50", KeyboardInterrupt())
    calr("train", "-d", veri, *SHORT, "--output", "both")
    with (folder / "both/inter/.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write("process 7 on elsewhere since noon\n")
        other.flush()
        for command, given in (("train", "both"), ("train-inter", "both/inter")):
            refused = calr(command, "--resume", given, "--device", "cpu")
            assert refused.errors == [
                "error: both/inter is being trained by another command, process 7 on elsewhere since noon. "
                "Wait until it has ended, or stop it first"
            ]
    done(calr("train", "--resume", "both", "--device", "cpu"))
    assert list(folder.rglob(".lock")) == []


def test_a_training_that_went_wrong_goes_on_with_a_change(calr: Calr, veri: str, trainer: Trainer) -> None:
    trainer.stop = ("intra 1", TrainingError("the loss is not a number"))
    stopped = calr("train-intra", "-d", veri, *SHORT, "--output", "run")
    assert resume_line(stopped) == "calr train-intra --resume run --device cpu --set KEY=VALUE"
    done(calr("train-intra", "--resume", "run", "--device", "cpu", "--set", "intra.optimiser.lr=1e-5"))


def test_the_oracle_is_asked_for_by_name(calr: Calr) -> None:
    shown = calr("train-inter", "-d", "veri", "--oracle", "--print-config").stdout
    assert "oracle: true  # --oracle" in [line.strip() for line in shown.splitlines()]


def test_stage_1_shows_every_camera(calr: Calr, veri: str, trainer: Trainer) -> None:
    answer = done(calr("train-intra", "-d", veri, *SHORT, "--output", "run"))
    rows = [line.split() for line in answer.stdout.splitlines()]
    assert rows[0] == ["camera", "images", "local", "labels", "silhouette", "pair", "F"]
    assert rows[1:3] == [["0", "1", "1", "-", "-"], ["1", "17", "8", "0.1250", "0.500"]]
    assert rows[-1] == ["local", "labels", "run/local_labels.csv"]


def test_tensorboard_follows_every_run(calr: Calr, veri: str, folder: Path, trainer: Trainer) -> None:
    trainer.stop = ("inter 2 epochs 50", DataError("gone"))
    command = ("train", "-d", veri, *SHORT, "--seeds", "2", "--output", "out")
    assert calr(*command).exit_code == 1
    assert not list(folder.rglob("tensorboard"))
    done(calr("train", "--resume", "out", "--device", "cpu", "--tensorboard"))  # from here on
    followed = {path.parent.relative_to(folder / "out").as_posix() for path in folder.rglob("tensorboard")}
    stages = ("inter", *(f"intra/cam{camid}" for camid in range(3)))
    assert followed == {f"seed{seed}/{stage}" for seed in (1, 2) for stage in stages}
    for seed in (1, 2):  # finished before, and trained now
        (file,) = (folder / f"out/seed{seed}/inter/tensorboard").iterdir()
        assert [event.step for event in EventFileLoader(str(file)).Load()] == [0, 0, 50]


def test_without_infomap_the_published_method_is_not_begun(
    calr: Calr, veri: str, folder: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer.stop = ("intra 1", KeyboardInterrupt())
    assert calr("train", "-d", veri, *SHORT, "--output", "begun").exit_code == 130
    before = sorted(folder.rglob("*"))
    monkeypatch.setattr("calr_cli.clustering.infomap.HAS_INFOMAP", False)
    monkeypatch.setattr("calr_cli.method.clusters.HAS_INFOMAP", False)
    for command in (
        ["train", "-d", veri, *SHORT],
        ["train", "-d", veri, *SHORT, "--seeds", "2"],
        ["train", "--resume", "begun"],
        ["train-inter", "-d", veri, *SHORT],
        ["train-inter", "-d", veri, *SHORT, "--set", "inter.refinement.enabled=false"],
        ["demo", "--device", "cpu"],
    ):
        answer = calr(*command)
        assert (answer.exit_code, answer.stdout) == (1, ""), command
        [error] = answer.errors
        assert error.startswith("error: inter.clustering.method = infomap: Infomap is not installed. Install")
        assert (sorted(folder.rglob("*")), trainer.done) == (before, []), command
    done(calr("train-intra", "-d", veri, *SHORT))  # has no use for it
    done(calr("train", "-d", veri, *SHORT, "--recipe", "plus"))
    assert trainer.done == ["intra 1", "intra 1", "inter 1 epochs 50"]


def test_without_the_package_tensorboard_nothing_begins(
    calr: Calr, veri: str, folder: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    for command in ("train", "train-intra", "train-inter"):
        answer = calr(command, "-d", veri, *SHORT, "--tensorboard")
        assert (answer.exit_code, len(answer.errors)) == (1, 1)
        assert answer.errors[0].startswith(
            "error: the package tensorboard, which writes what TensorBoard shows, "
        )
    assert not (folder / "runs").exists()
    assert not trainer.done


@pytest.mark.parametrize(
    ("more", "epochs", "iters"),
    [
        ([], 25, 100),  # the preset's
        (["--epochs", "2", "--iters", "4"], 2, 4),
        (["--epochs", "60"], 25, 100),  # a bound, not a wish for more
        (["--epochs", "2", "--iters", "4", "--set", "intra.epochs=3"], 3, 4),
    ],
    ids=["preset", "short", "long", "own"],
)
def test_a_stage_1_on_the_way_is_bounded_and_announced_also_if_quiet(
    calr: Calr, veri: str, folder: Path, trainer: Trainer, more: list[str], epochs: int, iters: int
) -> None:
    answer = done(calr("train-inter", "-d", veri, *SHORT, *more, "--quiet"))
    (line,) = [line for line in answer.stderr.splitlines() if line.startswith("warning: stage 1 runs first")]
    assert line.startswith(
        f"warning: stage 1 runs first: 3 cameras, {epochs} epochs of {iters} batches each, about "
    )
    assert line.endswith(
        " and the clustering. To shorten it: --set intra.epochs=N --set intra.iters=N; to do without: "
        "--local-labels FILE"
    )
    (intra,) = folder.glob("runs/veri/intra/*")
    settings = RunFolder(intra).settings.intra
    assert (settings.epochs, settings.iters) == (epochs, iters)
    # The labels are there now, and the next command takes them without a word about stage 1.
    assert "stage 1 runs first" not in done(calr("train-inter", "-d", veri, *SHORT, *more)).stderr


def test_local_labels_of_a_run_with_a_folder_of_its_own_are_found(
    calr: Calr, veri: str, folder: Path, trainer: Trainer
) -> None:
    done(calr("train-intra", "-d", veri, *SHORT, "--output", "mine"))
    answer = done(calr("train-inter", "-d", veri, *SHORT))
    assert f"local labels: {folder / 'mine/local_labels.csv'} (the newest of veri)" in answer.stderr
    assert trainer.done == ["intra 1", "inter 1 epochs 50"]
