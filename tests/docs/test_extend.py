"""The files that docs/extend.md shows do what it says."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from calr_cli.config.schema import Settings
from calr_cli.method.plugin import load_plugin
from calr_cli.runs.folder import RunFolder
from tests.docs.pages import REPOSITORY, files_of
from tests.method.test_presets import SMALL
from tests.support.small import small_dataset

PAGE = REPOSITORY / "docs" / "extend.md"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in files_of(PAGE).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_the_page_shows_a_clustering_a_loss_and_ten_lines_of_python(files: Path) -> None:
    assert {path.name for path in files.iterdir()} == {"clustering.py", "margin.py", "train_margin.py"}
    assert load_plugin(str(files / "clustering.py")).names == ["cluster"]
    assert load_plugin(str(files / "margin.py")).names == ["loss"]
    assert Settings(plugin="margin.py").plugin == str(files / "margin.py")


def test_training_from_python(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_dataset(files / "data")
    script = files / "train_margin.py"
    assignments = ", ".join(map(repr, [*SMALL, "data.height=32", "data.width=32", "data.workers=1"]))
    text = script.read_text(encoding="utf-8")
    assert text.count('["plugin=margin.py"]') == 1
    script.write_text(text.replace('["plugin=margin.py"]', f'["plugin=margin.py", {assignments}]'))
    runpy.run_path(str(script))
    model = Path(capsys.readouterr().out.strip())
    assert model == Path("python/inter/model.pth")
    assert model.is_file()
    assert RunFolder(Path("python/inter")).settings.plugin == str(files / "margin.py")
