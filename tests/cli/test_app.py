from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer

import calr_cli
from calr_cli import __version__
from calr_cli.cli.app import guarded
from calr_cli.errors import ConfigError
from tests.cli.conftest import Calr

COMMANDS = (
    *("prepare-data", "fetch-pretrained", "train-intra", "train-inter", "train", "evaluate", "demo"),
    *("embed", "search", "compare", "export", "report", "runs"),
)


def raises(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return guarded(command)


def ends(error: BaseException) -> int:
    with pytest.raises(typer.Exit) as caught:
        raises(error)()
    return caught.value.exit_code


def test_no_help_imports_torch() -> None:
    # One interpreter for all of them: importing torch takes seconds, and so does starting nine of them.
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom calr_cli.cli.app import app\n"
        "for words in sys.argv[1:]:\n"
        "    result = CliRunner().invoke(app, [*words.split(), '--help'])\n"
        "    assert result.exit_code == 0 and 'Usage: calr' in result.stdout, words\n"
        "heavy = ('torch', 'torchvision', 'sklearn', 'PIL', 'matplotlib', 'jinja2')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    labels = ["labels", "labels import", "labels score", "labels diff"]
    words = ["", *COMMANDS, *labels, "presets", "presets list", "presets show"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_version(calr: Calr) -> None:
    assert calr("--version").stdout == f"calr {__version__}\n"


@pytest.mark.parametrize(
    "arguments", [["train-inter", "--epoch-count", "3"], ["fetch-pretrained"], ["trian"]]
)
def test_unknown_options_and_missing_arguments_exit_2(calr: Calr, arguments: list[str]) -> None:
    answer = calr(*arguments)
    assert answer.exit_code == 2
    assert answer.stdout == ""
    assert "Usage: calr" in answer.stderr


def test_every_problem_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(ConfigError(["first is wrong", "second is wrong"], "Mend them")) == 1
    assert capsys.readouterr() == ("", "error: first is wrong\nerror: second is wrong. Mend them\n")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/x/model.pth"),
            "runs/x/model.pth: No space left on device",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError("cannot write runs/x/model.pth"), "cannot write runs/x/model.pth"),
    ],
)
def test_operating_system_errors_are_one_line(
    error: OSError, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(error) == 1
    assert capsys.readouterr().err == f"error: {line}\n"


def test_full_gpu_memory_names_the_setting(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    hint = "Lower batch_norm_group_size (training) or evaluation.batch_size (extraction)"
    assert ends(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 MiB. GPU 3 has")) == 1
    assert capsys.readouterr().err == f"error: the memory of GPU 3 is full. {hint}\n"
    assert ends(torch.OutOfMemoryError("CUDA out of memory")) == 1
    assert capsys.readouterr().err == f"error: the memory of the GPU is full. {hint}\n"
    assert ends(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")) == 1  # once a traceback
    assert capsys.readouterr().err == f"error: the memory of the GPU is full. {hint}\n"


def test_a_later_process_of_torchrun_says_who_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "2")
    assert ends(ConfigError("something is wrong")) == 1
    assert capsys.readouterr().err == "rank 2: error: something is wrong\n"


def test_an_exit_stays_an_exit() -> None:
    # How the later processes of torchrun end when the first one has said why; it is a RuntimeError too.
    assert ends(typer.Exit(1)) == 1


def test_our_own_mistakes_keep_their_traceback() -> None:
    with pytest.raises(RuntimeError, match="a mistake"):
        raises(RuntimeError("a mistake"))()


@pytest.fixture
def interrupts() -> Iterator[None]:
    """The handlers of Ctrl-C and SIGTERM as they were before."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_interrupted_exits_130_and_says_how_to_resume(
    capsys: pytest.CaptureFixture[str], interrupts: None
) -> None:
    error = KeyboardInterrupt()
    error.add_note("resume with: calr train-inter --resume runs/x")
    assert ends(error) == 130
    assert capsys.readouterr() == ("", "interrupted\nresume with: calr train-inter --resume runs/x\n")
    # A cluster sends SIGTERM to the process and to its group: the second one found a traceback to interrupt.
    assert signal.getsignal(signal.SIGINT) == signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_closed_pipe_is_quiet() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "calr_cli", "presets", "show", "veri"],
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert done.stderr == b""


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
@pytest.mark.parametrize("command", ["presets show veri", "presets list --json", "presets show no"])
def test_closed_streams_are_quiet(closed: str, command: str, tmp_path: Path) -> None:
    """What would be said goes nowhere: no traceback, and not into the next file that is opened."""
    done = subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m calr_cli {command} {closed}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(calr_cli.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    failed = command.endswith(" no")
    assert done.returncode == failed
    assert (not done.stdout) == (failed or ">&-" in closed.replace("2>&-", ""))
    assert done.stderr.count("\n") == (failed and "2>&-" not in closed)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_a_full_disk_behind_stdout_is_one_line() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "calr_cli", "presets", "list", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "error: No space left on device"
    assert "Traceback" not in done.stderr
