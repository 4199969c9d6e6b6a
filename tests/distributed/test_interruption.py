from __future__ import annotations

import signal
import threading

import pytest

from calr_cli.distributed.interruption import Interruption, deferred_interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_second_interrupts(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    steps = 0

    def work() -> None:
        nonlocal steps
        with deferred_interrupt() as interruption:
            assert not interruption.requested
            signal.raise_signal(number)
            assert interruption.requested
            steps += 1
            signal.raise_signal(number)
            steps += 1

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == 1
    assert signal.getsignal(number) == before


def test_a_signal_that_nobody_saw_interrupts_at_the_end() -> None:
    ended = []

    def work() -> None:
        with deferred_interrupt():
            signal.raise_signal(signal.SIGINT)
            ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert ended


def test_without_a_signal_nothing_happens() -> None:
    with deferred_interrupt() as interruption:
        pass
    assert not interruption.requested


def test_another_thread_cannot_defer_and_works_all_the_same() -> None:
    seen: list[Interruption] = []

    def work() -> None:
        with deferred_interrupt() as interruption:
            seen.append(interruption)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(seen) == 1
