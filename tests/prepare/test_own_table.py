from __future__ import annotations

import unicodedata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from calr_cli.errors import DataError
from calr_cli.prepare.datasets.own import ONE_CAMERA
from calr_cli.prepare.datasets.own_table import TABLE_HELP, list_own_table
from calr_cli.prepare.own_images import prepare_own_table
from calr_cli.prepare.prepared import load_dataset
from calr_cli.types import UNKNOWN_PID, ImageSet
from tests.support.heard import Heard
from tests.support.made_up import write_image


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Eight identities, cameras 2 and 10, one image each."""
    folder = tmp_path / "shop"
    folder.mkdir()
    for pid in range(8):
        for camera in (2, 10):
            write_image(folder / f"{pid}_c{camera}.png", pid, seed=camera)
    return folder


def by_path(images: ImageSet) -> dict[str, tuple[int, int]]:
    return dict(
        zip(images.paths, zip(images.pids.tolist(), images.camids.tolist(), strict=True), strict=True)
    )


def listed(table: Path) -> list[tuple[str, int, int]]:
    return [(entry.path, entry.pid, entry.camid) for entry in list_own_table(table).entries]


def refusal(table: Path) -> list[str]:
    with pytest.raises(DataError) as error:
        list_own_table(table)
    return error.value.lines()


def test_a_table(shop: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text(
        "camid,split,path,note,pid\n"
        "gate,train,shop/5_c2.png,hello,\n"
        f"yard,query,{shop / '6_c2.png'},,anna\n"
        "gate,gallery,./shop/7_c2.png,,bo\n"
    )
    card = prepare_own_table(table, None, None, 1, Heard())
    assert (card.name, card.version, card.root, card.source) == ("table", "own table", tmp_path, table)
    dataset = load_dataset("table")
    assert by_path(dataset.train) == {"shop/5_c2.png": (UNKNOWN_PID, 0)}
    assert by_path(dataset.query) == {"shop/6_c2.png": (0, 1)}
    assert by_path(dataset.gallery) == {"shop/7_c2.png": (1, 0)}


def test_an_image_may_be_query_and_gallery_and_nothing_else_twice(shop: Path) -> None:
    table = shop / "t.csv"
    both = [f"{pid}_c{camera}.png,{camera},{pid}," for pid in (1, 2) for camera in (2, 10)]
    rows = ["0_c2.png,2,0,train", *(f"{row}{split}" for row in both for split in ("query", "gallery"))]
    table.write_text("\n".join(["path,camid,pid,split", *rows]))
    card = prepare_own_table(table, None, None, 1, Heard())
    assert [counts.images for counts in card.splits.values()] == [1, 4, 4]
    assert card.warnings == ()
    assert set(load_dataset("t").query.paths) == set(load_dataset("t").gallery.paths)
    table.write_text("\n".join(["path,camid,pid,split", *rows, "1_c2.png,2,1,query", "2_c2.png,2,2,train"]))
    assert [line.partition(", first")[0] for line in refusal(table)] == [
        f"{table}, line 11: path is listed twice",
        f"{table}, line 12: path is listed twice",
    ]


@pytest.mark.parametrize("junk", ["-1", "-1.0", "-01"])
def test_junk_in_a_table(shop: Path, junk: str) -> None:
    table = shop / "t.csv"
    table.write_text(
        "path,camid,pid,split\n0_c2.png,2,0,train\n1_c2.png,2,1,query\n1_c10.png,10,1,gallery\n"
        f"2_c2.png,2,{junk},gallery\n3_c2.png,2,{junk},train\n"
    )
    card = prepare_own_table(table, None, None, 1, Heard())
    assert (card.junk, card.warnings) == (1, ())
    assert by_path(load_dataset("t").gallery) == {"1_c10.png": (1, 1)}
    assert by_path(load_dataset("t").train) == {"0_c2.png": (0, 0), "3_c2.png": (UNKNOWN_PID, 0)}


def test_images_elsewhere(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    table = tmp_path / "lists/table.csv"
    table.write_text(f"path,camid\n{shop / '6_c2.png'},1\n../shop/7_c2.png,2\n")
    prepare_own_table(table, None, None, 1, Heard())
    train = load_dataset("table").train
    assert by_path(train) == {str(shop / "6_c2.png"): (-1, 0), "../shop/7_c2.png": (-1, 1)}
    assert all((train.root / path).is_file() for path in train.paths)


def test_a_linked_table_lists_what_is_beside_the_link(shop: Path, tmp_path: Path) -> None:
    """Programs that keep versions of data leave links to their own folders."""
    (tmp_path / "versions").mkdir()
    (tmp_path / "versions/0a1b").write_text("path,camid\n1_c2.png,2\n")
    (shop / "t.csv").symlink_to(tmp_path / "versions/0a1b")
    card = prepare_own_table(shop / "t.csv", None, None, 1, Heard())
    assert (card.name, card.root) == ("t", shop)


def test_a_table_with_a_share(shop: Path) -> None:
    lines = [f"{path.name},{path.stem.split('_c')[1]},{path.name[0]}" for path in sorted(shop.iterdir())]
    (shop / "t.csv").write_text("\n".join(["path,camid,pid", *lines]))
    card = prepare_own_table(shop / "t.csv", "t", 0.25, 1, Heard())
    assert [counts.ids for counts in card.splits.values()] == [2, 6, 6]


def test_without_a_camera_column_one_line_says_what_is_lost(shop: Path) -> None:
    table = shop / "t.csv"
    table.write_text("path,pid,camera\n1_c2.png,1,2\n1_c10.png,1,10\n")
    listing = list_own_table(table)
    assert listing.warnings == (
        f"{table}: no camid is given, so all images count as one camera's: {ONE_CAMERA}",
    )
    assert [(entry.pid, entry.camid) for entry in listing.entries] == [(1, 0), (1, 0)]


TABLE = "path{0}camid{0}pid\n1_c2.png{0}2{0}1\n1_c10.png{0}10{0}1\n"


@pytest.mark.parametrize(
    "content",
    [
        TABLE.format(",").encode(),
        TABLE.format(",").encode("utf-8-sig"),
        TABLE.format(";").encode("utf-8-sig"),  # as Excel writes it where a comma is the decimal point
        TABLE.format("\t").encode(),
        TABLE.format("\t").encode("utf-16"),  # Excel's "Unicode text"
        TABLE.format("\t").replace("\n", "\r\n").encode("utf-16-be").join([b"\xfe\xff", b""]),
        TABLE.format(",").replace("\n", "\r\n").encode(),
        TABLE.format(" , ").replace("\n", "\n\n").encode(),
        TABLE.format(",").replace("path,camid", '"Path","CamID"').encode(),
    ],
)
def test_tables_as_programs_write_them(shop: Path, content: bytes) -> None:
    (shop / "t.csv").write_bytes(content)
    assert listed(shop / "t.csv") == [("1_c2.png", 1, 0), ("1_c10.png", 1, 1)]


@pytest.mark.parametrize("here", ["NFC", "NFD"])
@pytest.mark.parametrize("there", ["NFC", "NFD"])
def test_paths_from_other_systems(
    tmp_path: Path, here: Literal["NFC", "NFD"], there: Literal["NFC", "NFD"]
) -> None:
    """With the backslashes of Windows, the decomposed accents of macOS, blanks where Excel leaves them."""
    name = "Büro 東/Zoë.png"
    file = tmp_path / unicodedata.normalize(here, name)
    file.parent.mkdir()
    file.touch()
    written = unicodedata.normalize(there, name)
    for path in (written, f"./{written}", f" .\\{written} ".replace("/", "\\")):
        (tmp_path / "t.csv").write_text(f"path,camid\n{path},1\n")
        assert listed(tmp_path / "t.csv") == [(unicodedata.normalize(here, name), UNKNOWN_PID, 0)]


@pytest.mark.parametrize("name", ["c\\d.png", " blank.png ", "a;b.png", "line\nbreak.png"])
def test_a_file_that_is_there_is_taken_at_its_word(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    (tmp_path / "t.csv").write_text(f'path\n"{name}"\n')
    assert listed(tmp_path / "t.csv") == [(name, UNKNOWN_PID, 0)]


def test_nonsense_is_named_line_by_line(shop: Path) -> None:
    table = shop / "t.csv"
    table.write_text(
        f"path,camid,split\n5_c2.png,,train\n,1,train\n{shop}/5_c2.png,1,train\nC:\\no.png,1,train\n"
        "7_c2.png,1,test\n"
    )
    assert refusal(table) == [
        f"{table}, line 2: camid is blank",
        f"{table}, line 3: path is blank",
        f"{table}, line 4: path is listed twice, first in line 2: '{shop}/5_c2.png'",
        f"{table}, line 5: there is no file 'C:\\no.png'",
        f"{table}, line 6: split is none of train, query, gallery: 'test'. {TABLE_HELP}",
    ]


def test_a_table_in_another_encoding(shop: Path) -> None:
    write_image(shop / "Tür.png", 1)
    (shop / "t.csv").write_bytes("path\nTür.png\n".encode("cp1252"))
    (line,) = refusal(shop / "t.csv")
    assert "there is no file 'T\udcfcr.png'; save the table as UTF-8. " in line


def test_a_name_in_another_encoding(shop: Path) -> None:
    write_image(shop / "T\udcfcr.png", 1)
    (shop / "t.csv").write_bytes("path\nTür.png\n".encode("cp1252"))
    assert listed(shop / "t.csv") == [("T\udcfcr.png", UNKNOWN_PID, 0)]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("image,pid\na.jpg,1\n", "{path} has no column path in its first line; it has image, pid"),
        ("path,camid\n", "{path} lists no image"),
        ("", "{path} has no column path in its first line"),
        (None, "{path} cannot be read: No such file or directory"),
    ],
)
def test_tables_that_cannot_be_used(content: str | None, problem: str, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    if content is not None:
        table.write_text(content)
    assert refusal(table) == [f"{problem.replace('{path}', str(table))}. {TABLE_HELP}"]


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    assert refusal(tmp_path) == [f"{tmp_path} cannot be read: Is a directory. {TABLE_HELP}"]


cells = st.text(st.characters(exclude_categories=[]), max_size=8) | st.sampled_from(
    ["1_c2.png", "path", "camid", "pid", "split", "train", "query", "", "-1", "0", "2", "\0", "x" * 5000]
)
headers = st.just(["path"]) | st.just(["path", "camid", "pid"]) | st.lists(cells, max_size=5)


@given(
    headers,
    st.lists(st.lists(cells, min_size=1, max_size=3), max_size=6),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["utf-8", "utf-16", "utf-8-sig"]),
)
@example(["path", "camid", "pid"], [["1_c2.png", "2", "1"]], ",", "\n", "utf-8")
@example(["path"], [["x" * 5000]], ",", "\n", "utf-8")
@example(["path"], [["a\0b"]], ",", "\n", "utf-8")
def test_any_text_is_a_listing_or_an_error_in_lines(
    header: list[str], rows: list[list[str]], delimiter: str, end: str, encoding: str
) -> None:
    text = end.join(delimiter.join(row) for row in [header, *rows])
    check_any_content(text.encode(encoding, errors="surrogatepass"))


@given(st.binary(max_size=60) | st.binary(max_size=40).map(lambda tail: b"path,camid\n" + tail))
@example(b"\xff\xfe\x00")
@example(b"\xff\xfep\x00a\x00t\x00h\x00\n\x00\x00\xdc")
@example(b'path\n"')
def test_any_bytes_are_a_listing_or_an_error_in_lines(content: bytes) -> None:
    check_any_content(content)


def check_any_content(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        (Path(folder) / "1_c2.png").touch()
        table = Path(folder) / "t.csv"
        table.write_bytes(content)
        try:
            found = len(list_own_table(table).entries)
        except DataError as error:
            found = len(error.lines())
        assert 1 <= found <= 6
