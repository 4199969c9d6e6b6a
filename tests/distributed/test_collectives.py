from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from calr_cli.distributed import collectives
from calr_cli.distributed.launch import launch
from calr_cli.distributed.place import REMEDY
from calr_cli.errors import ConfigError
from calr_cli.events import SilentReporter
from tests.support.ranks import CPU, use_collectives


def test_one_process_is_rank_0_of_1() -> None:
    assert (collectives.rank(), collectives.world_size()) == (0, 1)
    assert collectives.is_main()


@pytest.mark.parametrize(
    "collective",
    [
        collectives.broadcast,
        lambda value: collectives.gather(value)[0],
        lambda value: collectives.collect_rows(value, [2]),
        lambda value: collectives.gather_rows(torch.from_numpy(value)).numpy(),
        lambda value: collectives.sum_over_ranks(torch.from_numpy(value)).numpy(),
        lambda value: collectives.copy_from_main(torch.from_numpy(value)).numpy(),
    ],
)
def test_in_one_process_everything_is_the_identity(collective: Callable[[Any], Any]) -> None:
    rows = np.arange(6.0).reshape(2, 3)
    assert (collective(rows.copy()) == rows).all()
    collectives.barrier()


def test_an_environment_that_does_not_say_where_the_others_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(
        ConfigError, match=r"^WORLD_SIZE is 4, and MASTER_ADDR, MASTER_PORT not set.* torchrun"
    ):
        collectives.join()


@pytest.mark.parametrize("port", ["x", "-1", "65536", "\u0661"])
def test_a_port_that_cannot_be(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    told = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        collectives.join()
    line = f"MASTER_PORT is {port!r} in the environment, not the number of a port"
    assert caught.value.lines() == [f"{line}. {REMEDY}"]


@pytest.mark.distributed
@pytest.mark.timeout(180)
def test_every_rank_gets_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    both = launch(
        use_collectives, [tmp_path], devices=[CPU, CPU], reporter=SilentReporter(), logs=tmp_path / "logs"
    )
    assert len(both) == 2
    for got in both:
        assert got["broadcast"]["labels"].tolist() == [0, 1, 2]
        assert got["gather"] == ["", "x" * 1000]
        assert got["doubles"].dtype == torch.float64
        assert not got["doubles"].requires_grad
        assert got["doubles"].tolist() == [[0.5, 0.5], [1.5, 1.5], [1.5, 1.5]]
        assert got["halves"].tolist() == [[1.5] * 3] * 2
        assert got["nothing"].shape == (0, 3)
        assert got["rows"].tolist() == [[0, 0], [0, 0], [1, 1]]
        assert got["sum"].tolist() == [2.0, 1.0]
        assert got["copy"] == 7
        assert got["threads"] == (str(max(1, torch.get_num_threads() // 2)), got["threads"][1])
        assert int(got["threads"][0]) == got["threads"][1]
        assert not got["mapped"]  # large blocks are kept by every process, as by the command
    assert [got["alone"] for got in both] == [(0, 1, [0]), (0, 1, [1])]
    assert not (tmp_path / "logs").exists()  # nothing was said
