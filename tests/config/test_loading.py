from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from calr_cli.config.loading import dump_settings, load_settings_file, print_config, resolve_settings
from calr_cli.config.schema import Settings
from calr_cli.config.wording import LEAVES
from calr_cli.errors import ConfigError


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("my.yaml")


def problems(**given: Any) -> list[str]:
    arguments: dict[str, Any] = {"dataset": None, "config_file": None, "assignments": (), "flags": None}
    with pytest.raises(ConfigError) as caught:
        resolve_settings(**arguments | given)
    lines = caught.value.lines()
    assert all("\n" not in line for line in lines)
    return lines


def test_each_source_wins_over_the_one_before(config: Path) -> None:
    config.write_text("inter: {iters: 7, epochs: 7, batch_size: 64, num_instances: 8}\n")
    resolved = resolve_settings(
        "market1501",
        config,
        ["inter.epochs=8", "inter.batch_size=96", "inter.epochs=9"],
        {"inter.batch_size": ("-b/--batch-size", 128), "inter.iters": ("--iters", None)},
    )
    inter = resolved.settings.inter
    assert (inter.iters, inter.epochs, inter.batch_size, inter.num_instances) == (7, 9, 128, 8)
    # The file replaces the preset: nothing of Market-1501's is left.
    assert resolved.settings.intra.clustering.num_clusters is None
    origins = {key: origin for key, origin in resolved.origins.items() if origin != "default"}
    assert origins == {
        "data.dataset": "-d/--dataset",
        "inter.iters": "--config my.yaml",
        "inter.epochs": "--set",
        "inter.batch_size": "-b/--batch-size",
        "inter.num_instances": "--config my.yaml",
    }


@pytest.mark.parametrize(
    ("dataset", "assignments", "height"),
    [("veri", [], 224), (None, ["data.dataset=veri"], 224), (None, [], 64), ("own", [], 256)],
)
def test_the_dataset_chooses_the_preset(dataset: str | None, assignments: list[str], height: int) -> None:
    assert resolve_settings(dataset, None, assignments).settings.data.height == height


def test_print_config_shows_every_origin_and_is_yaml(config: Path) -> None:
    resolved = resolve_settings(
        "veri", None, ["inter.optimiser.lr=1e-4"], {"inter.batch_size": ("-b/--batch-size", 128)}
    )
    lines = print_config(resolved).splitlines()
    for line in (
        "seed: 1  # default",
        "  dataset: veri  # -d/--dataset",
        "  height: 224  # preset veri",
        "  batch_size: 128  # -b/--batch-size",
        "    lr: 0.0001  # --set",
    ):
        assert line in lines
    assert sum(" # " in line for line in lines) == len(LEAVES)
    config.write_text(print_config(resolved))
    assert load_settings_file(config) == resolved.settings


def test_yaml_means_what_the_setting_makes_of_it(config: Path) -> None:
    # YAML 1.1 makes text of 1e-4, false of off, 8 of 010, seconds of 1:30.
    config.write_text(
        "seed: 010\ndata: {dataset: 1:30}\nmodel:\ninter:\n  optimiser: {lr: 1e-4}\n"
        "  weights: {mode: off}\n  refinement: {enabled: off}\n  camera: {weight: null}\n"
        "intra: {clustering: {num_clusters: }}\n"
    )
    settings = load_settings_file(config)
    assert (settings.seed, settings.data.dataset) == (10, "1:30")
    assert (settings.inter.optimiser.lr, settings.inter.weights.mode) == (1e-4, "off")
    assert settings.inter.refinement.enabled is False
    assert settings.inter.camera.weight is None
    assert settings.intra.clustering.num_clusters is None


def test_set_reads_numbers_nulls_words_and_values_with_equals_signs() -> None:
    settings = resolve_settings(
        "market1501",
        None,
        [
            "inter.optimiser.lr=1e-4",
            "intra.clustering.num_clusters=null",
            "inter.weights.mode=off",
            "inter.camera.enabled=false",
            "model.pretrained=/a b/c=d #1.pth",
        ],
    ).settings
    assert settings.inter.optimiser.lr == 1e-4
    assert settings.intra.clustering.num_clusters is None
    assert settings.inter.weights.mode == "off"
    assert settings.inter.camera.enabled is False
    assert settings.model.pretrained == "/a b/c=d #1.pth"


def test_all_problems_are_told_at_once_in_plain_words(config: Path) -> None:
    config.write_text(
        "seed: -1\ninter:\n  memmory: {temperature: 1}\n  epochs: [3]\n  memory: 5\nfoo: 1\n"
        "model: {arch: resnet_ibn50}\nevaluation: {rerank: {k1: 4}}\n"
    )
    assert problems(
        config_file=config,
        assignments=["lr=1e-4", "inter.epochs", "data.height=", "inter.batchsize=3", "data.width=wide"],
        flags={"intra.batch_size": ("-b/--batch-size", 2), "inter.camera.weight": ("--weight", -0.5)},
    ) == [
        "unknown setting lr (--set); did you mean intra.optimiser.lr or inter.optimiser.lr?",
        "--set inter.epochs: must be KEY=VALUE (VALUE null for none)",
        "--set data.height=: must be KEY=VALUE (VALUE null for none)",
        "unknown setting inter.batchsize (--set); did you mean inter.batch_size?",
        "unknown setting inter.memmory (--config my.yaml); did you mean inter.memory?",
        "inter.memory = 5 (--config my.yaml) is a section; give its settings, inter.memory.NAME",
        "unknown setting foo (--config my.yaml); --print-config lists all",
        "seed = -1 (--config my.yaml) must be a whole number from 0 to 4294967295",
        "data.width = wide (--set) must be a whole number from 32",
        "model.arch = resnet_ibn50 (--config my.yaml) must be one of resnet18, resnet34, resnet50, "
        "resnet101, resnet152, resnet_ibn50a, resnet_ibn101a, mobilenet_v2, resnet_tiny, vit_small, "
        "vit_base, vit_small_ics; did you mean resnet_ibn50a?",
        "intra.num_instances = 4 (default) must not be above intra.batch_size = 2 (-b/--batch-size)",
        'inter.epochs = ["3"] (--config my.yaml) must be a whole number from 1',
        "inter.camera.weight = -0.5 (--weight) must be a number from 0, or null",
        "evaluation.rerank.k2 = 6 (default) must not be above evaluation.rerank.k1 = 4 (--config my.yaml)",
    ]


@pytest.mark.parametrize(
    ("assignments", "line"),
    [
        (
            ["intra.clustering.k2=31"],
            "intra.clustering.k2 = 31 (--set) must not be above intra.clustering.k1 = 30 (default)",
        ),
        (
            ["inter.num_instances=300"],
            "inter.num_instances = 300 (--set) must not be above inter.batch_size = 256 (default)",
        ),
        (
            ["augment.erasing_area_max=0.01"],
            "augment.erasing_area_max = 0.01 (--set) must not be below "
            "augment.erasing_area_min = 0.02 (default)",
        ),
        (["data.height=16"], "data.height = 16 (--set) must be a whole number from 32"),
        (["inter.optimiser.lr=nan"], "inter.optimiser.lr = nan (--set) must be a number above 0"),
        (["inter.optimiser.lr=inf"], "inter.optimiser.lr = inf (--set) must be a number above 0"),
        (["inter.epochs=2.5"], "inter.epochs = 2.5 (--set) must be a whole number from 1"),
        (["inter.epochs=null"], "inter.epochs = null (--set) must be a whole number from 1"),
        (["model.pretrained=null"], "model.pretrained = null (--set) must be text"),
        (["inter.camera.enabled=perhaps"], "inter.camera.enabled = perhaps (--set) must be true or false"),
        (
            ["inter.refinement.pivot=bst"],
            "inter.refinement.pivot = bst (--set) must be one of best, last; did you mean best?",
        ),
    ],
)
def test_one_wrong_value(assignments: list[str], line: str) -> None:
    assert problems(dataset="own", assignments=assignments) == [line]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"inter: {epochs: 3", "--config my.yaml line 1, column 18: not valid YAML: expected ',' or '}', but got '<stream end>'"),  # noqa: E501
        (b"seed: 1\nseed: 2\n", "--config my.yaml line 2, column 1: not valid YAML: 'seed' given twice"),
        (b"seed: 1\x00", "--config my.yaml: not valid YAML: special characters are not allowed"),
        (b"a: &x [*x]", "--config my.yaml line 1, column 4: not valid YAML: found unconstructable recursive node"),  # noqa: E501
        (b"- seed\n- 1\n", '--config my.yaml: not \'key: value\' lines but ["seed", "1"]'),
        (b"hello", "--config my.yaml: not 'key: value' lines but hello"),
        (b"\xff\xd8\xff", "--config my.yaml: not a text file in UTF-8"),
        (None, "--config my.yaml: no such file"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_configuration(config: Path, content: bytes | None, line: str) -> None:
    if content is not None:
        config.write_bytes(content)
    # A problem elsewhere is told in the same go.
    second = "seed = x (--set) must be a whole number from 0 to 4294967295"
    assert sorted(problems(config_file=config, assignments=["seed=x"])) == sorted([line, second])
    with pytest.raises(ConfigError) as caught:
        load_settings_file(config)
    assert caught.value.lines() == [line.removeprefix("--config ")]


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    assert problems(config_file=tmp_path) == [f"--config {tmp_path}: cannot be read (Is a directory)"]


def test_an_empty_file_gives_the_defaults(config: Path) -> None:
    config.write_text("# nothing\n")
    assert load_settings_file(config) == Settings()


def test_a_long_value_is_cut_to_one_short_line() -> None:
    (line,) = problems(assignments=["inter.epochs=" + "a\nb" * 500])
    assert len(line) < 130
    assert line.endswith("... (--set) must be a whole number from 1")


@settings(max_examples=50)
@given(
    lr=st.floats(min_value=1e-300, max_value=1e300),
    momentum=st.floats(min_value=0, max_value=1),
    seed=st.integers(min_value=0, max_value=2**32 - 1),
    dataset=st.text(st.characters(codec="utf-8"), min_size=1),
)
def test_what_is_dumped_is_read_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, lr: float, momentum: float, seed: int, dataset: str
) -> None:
    # A resumed run must train with exactly the numbers it began with, whatever their notation.
    dumped = resolve_settings(
        dataset,
        None,
        flags={
            "seed": ("--seed", seed),
            "inter.optimiser.lr": ("--lr", lr),
            "inter.memory.momentum": ("--momentum", momentum),
            "inter.weights.mode": ("--weights", "off"),
        },
    ).settings
    file = tmp_path_factory.getbasetemp() / "dumped.yaml"
    file.write_text(dump_settings(dumped), encoding="utf-8", newline="")
    assert load_settings_file(file) == dumped
    # Ordinary YAML readers see the same numbers.
    assert float(yaml.safe_load(dump_settings(dumped))["inter"]["optimiser"]["lr"]) == lr


@settings(max_examples=50)
@given(st.floats(min_value=1e-12, max_value=1e6), st.sampled_from(["{!r}", "{:.17e}", "{:.17g}", " {!r} "]))
def test_every_notation_of_a_number_is_the_number(lr: float, notation: str) -> None:
    text = notation.format(lr)
    assert resolve_settings(None, None, [f"inter.optimiser.lr={text}"]).settings.inter.optimiser.lr == lr


@settings(max_examples=50)
@given(st.sampled_from([*LEAVES, "nonsense"]), st.text(max_size=12))
def test_any_text_ends_in_settings_or_in_one_plain_line(key: str, text: str) -> None:
    # Nothing typed may reach pydantic's or Python's own errors.
    try:
        resolve_settings("own", None, [f"{key}={text}"])
    except ConfigError as error:
        (line,) = error.lines()
        assert key in line
