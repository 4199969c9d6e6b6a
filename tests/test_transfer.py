"""Blocks of pixels on their way to a GPU, pretended or real."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from calr_cli.data.loaders import StoredPixels
from calr_cli.transfer import copied_ahead, to_device
from tests.support.pretended_cuda import PretendedTensor, pretended_cuda

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def blocks(count: int, taken: list[int] | None = None, size: int = 4) -> Iterator[Tensor]:
    for n in range(count):
        if taken is not None:
            taken.append(n)
        yield torch.full((size,), n, dtype=torch.uint8, pin_memory=torch.cuda.is_available())


def test_on_the_cpu_they_are_the_same_tensors_and_none_is_taken_early() -> None:
    given, taken = list(blocks(3)), list[int]()
    assert all(a is b for a, b in zip(copied_ahead(given, CPU), given, strict=True))
    for n, _ in enumerate(copied_ahead(blocks(3, taken), CPU), start=1):
        assert len(taken) == n


def test_a_gpu_has_the_next_one_while_the_host_waits_for_none() -> None:
    taken: list[int] = []
    with pretended_cuda() as record:
        for n, block in enumerate(copied_ahead(blocks(4, taken), GPU)):
            assert isinstance(block, PretendedTensor)
            assert record.copied == 4 * min(n + 2, 4) == 4 * len(taken)
            assert block.device == GPU
            doubled = block * 2  # refused unless this stream has waited, and torch knows that it is used here
            assert doubled.held.tolist() == [2 * n] * 4
        assert taken == [0, 1, 2, 3]
        assert list(copied_ahead([], GPU)) == []
        assert record.waits == []


def test_what_forgets_the_event_or_the_memory_is_found() -> None:
    """A control: the pretended device refuses both."""
    with pretended_cuda():
        ours, theirs = torch.cuda.current_stream(), torch.cuda.Stream()
        with torch.cuda.stream(theirs):
            first = to_device(np.ones(3), GPU)
            copied = theirs.record_event()
            second = to_device(np.ones(3), GPU)
        with pytest.raises(RuntimeError, match="read before it is copied"):
            first + 1
        ours.wait_event(copied)
        with pytest.raises(RuntimeError, match="may be reused while it is read"):
            first + 1
        first.record_stream(ours)
        first + 1
        with pytest.raises(RuntimeError, match="read before it is copied"):
            second + 1


@pytest.mark.parametrize("device", [CPU, GPU])
def test_who_stops_early_or_meets_an_error_leaves_no_threads(device: torch.device) -> None:
    pixels = StoredPixels(np.zeros((4, 8, 8, 3), np.uint8))
    with pretended_cuda():
        for block in copied_ahead(pixels.batches([np.arange(4)] * 20, pin=True), device):
            assert block.shape == (4, 8, 8, 3)
            break
        with pytest.raises(IndexError):
            list(copied_ahead(pixels.batches([np.arange(4), np.array([9])], pin=True), device))
    assert [thread for thread in threading.enumerate() if thread.name.startswith("pixels")] == []


@pytest.mark.gpu
def test_a_real_gpu_gets_every_byte_without_a_wait() -> None:
    """Blocks are read late, behind a long kernel, and dropped at once: memory reused early would be seen."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = []
        for block in copied_ahead(blocks(40, size=1 << 22), GPU):
            torch.cuda._sleep(5_000_000)
            found.append(torch.stack([block.min(), block.max()]))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.stack(found).tolist() == [[n, n] for n in range(40)]
