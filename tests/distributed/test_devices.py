"""Which devices flags mean, on machines with any number of GPUs and under torchrun."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from calr_cli.distributed.devices import (
    choose_devices,
    describe_device,
    make_deterministic,
    num_processes,
    working_on,
)
from calr_cli.distributed.launch import launch
from calr_cli.errors import ConfigError
from calr_cli.events import Reporter
from tests.support.heard import Heard
from tests.support.pretended_cuda import pretended_cuda

CPU = torch.device("cpu")


def cuda(*numbers: int) -> list[torch.device]:
    return [torch.device("cuda", number) for number in numbers]


def machine(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)


def torchrun(monkeypatch: pytest.MonkeyPatch, processes: int, machines: int = 1) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(processes * machines))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setenv("LOCAL_RANK", "0")


def chosen(
    gpus: str | None = None, device: str | None = None, processes: int | None = None
) -> list[torch.device]:
    return choose_devices(gpus, device, processes, Heard())


def refusal(gpus: str | None = None, device: str | None = None, processes: int | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        chosen(gpus, device, processes)
    return str(caught.value)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_RANK", "RANK"):
        monkeypatch.delenv(name, raising=False)


def test_the_list_of_gpus_is_taken_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 4)
    assert chosen("0,1,2,3") == cuda(0, 1, 2, 3)
    assert chosen(" 3 ,1", "cuda") == cuda(3, 1)


def test_without_flags_the_first_gpu_or_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 2)
    assert chosen() == chosen(device="cuda") == cuda(0)
    assert chosen(device="cpu") == [CPU]
    machine(monkeypatch, 0)
    heard = Heard()
    assert choose_devices(None, None, None, heard) == [CPU]
    assert heard.notes == [f"no CUDA device: using the CPU ({torch.get_num_threads()} threads)"]


def test_processes_on_the_cpu() -> None:
    assert chosen(device="cpu", processes=2) == [CPU, CPU]
    line = "--processes is for the CPU, several GPUs are --gpus 0,1. Write --device cpu --processes 2"
    assert refusal("0", None, 2) == refusal(None, None, 2) == refusal(None, "cuda", 2) == line
    assert refusal(None, "cpu", 0) == "--processes 0 must be from 1"


def test_what_cannot_be_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 2)
    assert refusal("0,2") == "--gpus 0,2: no device 2; CUDA devices here: 0, 1. Choose among these"
    assert refusal("0", "cpu") == "--gpus and --device cpu contradict each other. Give one of them"
    machine(monkeypatch, 0)
    assert refusal(device="cuda") == (
        "--device cuda: there is no CUDA device here. Leave --device out to use the CPU"
    )


def test_under_torchrun_a_device_for_each_of_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 4)
    torchrun(monkeypatch, 2, machines=3)
    assert chosen() == cuda(0, 1)
    assert chosen("2,3") == cuda(2, 3)
    assert chosen(device="cpu") == [CPU, CPU]
    assert num_processes(chosen()) == 6
    monkeypatch.delenv("LOCAL_WORLD_SIZE")  # a launcher that does not say how many
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert chosen() == cuda(0, 1, 2)


@pytest.mark.parametrize(
    "gpus", ["1,01", "1,1", "0, 0", "00,0,1", "+1", "-1", "1_0", "\u0661", "0,", "", "0 1", "cuda:1", "0x1"]
)
def test_a_gpu_is_named_once_and_by_its_number(monkeypatch: pytest.MonkeyPatch, gpus: str) -> None:
    machine(monkeypatch, 12)
    line = f"--gpus {gpus!r} is not a list of different device numbers. Write for instance --gpus 0"
    assert refusal(gpus) == line


def test_leading_zeros_name_the_same_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 2)
    assert chosen("01,00") == cuda(1, 0)
    assert refusal("0,007") == "--gpus 0,007: no device 7; CUDA devices here: 0, 1. Choose among these"


@pytest.mark.parametrize("says_how_many", [True, False])
@pytest.mark.parametrize("gpus", [None, "0"])
def test_a_launcher_may_show_each_process_its_own_gpu(
    monkeypatch: pytest.MonkeyPatch, says_how_many: bool, gpus: str | None
) -> None:
    """As srun --gpus-per-task=1 does: GPU 0 of each process is another."""
    machine(monkeypatch, 1)
    torchrun(monkeypatch, 4, machines=2)
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    if not says_how_many:
        monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert chosen(gpus)[3] == torch.device("cuda", 0)


def test_one_gpu_for_all_is_none_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 1)
    torchrun(monkeypatch, 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert refusal().startswith("torchrun started 4 processes on this machine for 1 devices")


def test_a_launcher_that_does_not_say_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 4)
    torchrun(monkeypatch, 8)
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert chosen("3,2,1,0") == cuda(3, 2, 1, 0)  # once refused to process 0: it counted itself only
    monkeypatch.setenv("LOCAL_RANK", "4")
    assert refusal() == (
        "process 4 of this machine is to work on one of 4 devices; CUDA devices here: 0, 1, 2, 3. "
        "Start 4 processes here, or give --gpus one for each"
    )


def test_the_device_that_is_worked_on_is_the_current_one(tmp_path: Path) -> None:
    """``--gpus 1`` alone left GPU 0 the current one, which FAISS and others then took."""

    def work(device: torch.device, reporter: Reporter) -> tuple[torch.device, int]:
        return device, torch.cuda.current_device()

    with pretended_cuda(2):
        devices = chosen("1")
        assert launch(work, [], devices=devices, reporter=Heard(), logs=tmp_path) == (devices[0], 1)
        assert torch.cuda.current_device() == 0  # of a program that uses calr
        with working_on(CPU):
            assert torch.cuda.current_device() == 0


def test_flags_that_contradict_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 2)
    torchrun(monkeypatch, 4)
    too_few = "torchrun started 4 processes on this machine for 2 devices; CUDA devices here: 0, 1. "
    assert refusal() == refusal("0,1") == f"{too_few}Give torchrun --nproc-per-node 2"
    assert refusal(None, "cpu", 3).startswith("torchrun started 4 processes on this machine for 3 devices; ")


def test_a_device_in_words() -> None:
    assert describe_device(CPU)["name"] == "cpu"


@pytest.fixture
def undeterministic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Torch as it was before."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    benchmark = torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = benchmark


def test_deterministic(undeterministic: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")  # a user's own choice is as good
    make_deterministic()
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    make_deterministic()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
