"""What is said of a process that has failed."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch.distributed import DistBackendError

from calr_cli.distributed.worker import describe, watchdog_report

NCCL = "NCCL error in: /torch/NCCLUtils.cpp:94, {kind} (run with NCCL_DEBUG=INFO), NCCL version 2.27.3\n"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 10000ms for recv"),
        RuntimeError("[/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:41513"),
        RuntimeError("[/gloo/transport/tcp/pair.cc:553] Read error [10.0.0.2]:9: Connection reset by peer"),
        RuntimeError(
            "[1] is setting up NCCL communicator and retrieving ncclUniqueId from [0] via c10d key-value "
            "store by key '0', but got error: wait timeout after 1800000ms"
        ),
        DistBackendError(
            NCCL.format(kind="remote process exited or there was a network error")
            + "ncclRemoteError: A call failed possibly due to a network error.\nLast error:\nNET/IB: recv"
        ),
    ],
)
def test_silence_of_the_others(error: Exception) -> None:
    assert describe(error).startswith(f"the other processes do not answer: {str(error).splitlines()[0]}")


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (
            DistBackendError(
                NCCL.format(kind="invalid usage")
                + "ncclInvalidUsage: This usually reflects invalid usage of NCCL library.\nLast error:\n"
                "Duplicate GPU detected : rank 0 and rank 1 both on CUDA device 1b000"
            ),
            "Duplicate GPU detected : rank 0 and rank 1 both on CUDA device 1b000",
        ),
        (
            DistBackendError(
                NCCL.format(kind="unhandled system error")
                + "ncclSystemError: System call (e.g. socket, malloc) failed.\nLast error:\n"
                "Error while creating shared memory segment /dev/shm/nccl-x (size 9637888)"
            ),
            "Error while creating shared memory segment /dev/shm/nccl-x (size 9637888)",
        ),
        (ValueError("ProcessGroupNCCL is only supported with GPUs, no GPUs found!"), "no GPUs found!"),
        (RuntimeError("[enforce fail at gloo/transport/tcp/device.cc:84] unable to find address"), "address"),
    ],
)
def test_what_cannot_begin_is_no_silence(error: Exception, end: str) -> None:
    """Everything with NCCL in it was once said to be the fault of the others."""
    said = describe(error)
    assert said.startswith(f"{type(error).__name__}: {str(error).splitlines()[0]}")
    assert said.endswith(end)


def test_a_log_without_the_watchdog(tmp_path: Path) -> None:
    assert watchdog_report(tmp_path / "process-0.log") is None
    (tmp_path / "process-0.log").write_text("Aborted\n")
    assert watchdog_report(tmp_path / "process-0.log") is None
