"""A gallery that lives: who was seen, in one SQLite file that survives kill -9 and several writers.

The rollback journal is used, not the write-ahead log: a gallery at rest is one file. What is forgotten is
overwritten (``secure_delete``). Copies of rows that SQLite moved may be left; so the file is written
again (`shrink`). A writer that is killed before that leaves it to the next one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calr_cli.errors import DataError
from calr_cli.files import atomic_write
from calr_cli.types import FloatArray

FORMAT = 1
"""Of the tables; another number is another version of calr."""

SUFFIX = ".gallery"

PATIENCE = 30.0
"""Seconds for which a command waits for another one that writes."""

_APPLICATION = 0x63616C72  # "calr"
_MAPPED = 2**36  # bytes of a file that are read without a copy
_PAGE = 32_768  # bytes; features of usual lengths lie in one page
_TRACES = "traces"
_TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE identities (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE);
CREATE TABLE images (
    id INTEGER PRIMARY KEY, identity INTEGER NOT NULL REFERENCES identities (id), path TEXT NOT NULL,
    digest TEXT NOT NULL UNIQUE, camera TEXT NOT NULL
);
CREATE INDEX images_of ON images (identity);
CREATE TABLE features (image INTEGER PRIMARY KEY REFERENCES images (id), row BLOB NOT NULL);
CREATE TABLE thumbnails (image INTEGER PRIMARY KEY REFERENCES images (id), jpeg BLOB NOT NULL);
"""


@dataclass(frozen=True)
class Maker:
    """The model that makes a gallery's features.

    Attributes:
        key: `Embedder.key`, a digest of its weights and input size.
        precision: What it computes in.
        dim: D.
        path: Where its file was last.
    """

    key: str
    precision: str
    dim: int
    path: str


@dataclass(frozen=True)
class Known:
    """An identity of a gallery.

    Attributes:
        number: Its number, which no other identity gets.
        name: As a user calls it; None: it has no name.
        images: How many it has.
        cameras: The cameras that saw it, as far as they are known.
    """

    number: int
    name: str | None
    images: int
    cameras: tuple[str, ...]


@dataclass(frozen=True)
class Seen:
    """An image to be kept.

    Attributes:
        path: Of the file.
        digest: Of its content: the same content is kept once.
        camera: Its name; "" where it is not known.
        feature: (D,) unit row.
        jpeg: A small picture.
    """

    path: str
    digest: str
    camera: str
    feature: FloatArray
    jpeg: bytes


def is_gallery(path: Path) -> bool:
    """Whether a file is an SQLite database, of calr or not."""
    try:
        with path.open("rb") as file:
            return file.read(16) == b"SQLite format 3\0"
    except OSError:
        return False


def create_gallery(path: Path, maker: Maker) -> None:
    """Write an empty gallery, whole or not at all.

    Raises:
        DataError: There is a file of that name.
        OSError: The folder cannot be written or the disk is full.
    """
    if path.exists():
        raise DataError(f"{path} is there already", "Give another name, or add to it: calr gallery add")
    with atomic_write(path) as temporary, closing(sqlite3.connect(temporary)) as connection:
        connection.execute(f"PRAGMA page_size = {_PAGE}")
        connection.executescript(_TABLES)
        facts = [(name, str(value)) for name, value in vars(maker).items()]
        connection.executemany("INSERT INTO facts VALUES (?, ?)", facts)
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.commit()


class GalleryFile:
    """An open gallery; a context manager that ends with everything kept, or with nothing changed.

    Args:
        path: Of the file.
        write: Whether it will be changed: then other writers wait.

    Raises:
        DataError: Not a gallery, one of another version, damaged, or being written for too long.
    """

    def __init__(self, path: Path, write: bool = False) -> None:
        self.path, self.write = path, write

    def __enter__(self) -> GalleryFile:
        if not self.path.is_file():
            raise DataError(f"no gallery {self.path}", f"Make one: calr gallery create {self.path}")
        if not is_gallery(self.path):
            raise DataError(f"{self.path} is not a gallery of calr", "Give a file of `calr gallery create`")
        # A reader, too, has to undo what a killed writer left; where it may not write, SQLite only reads.
        address = f"{self.path.absolute().as_uri()}?mode=rw"
        with _explained(self.path):
            self._connection = sqlite3.connect(
                address, uri=True, timeout=PATIENCE, isolation_level=None, check_same_thread=False
            )
        try:
            with _explained(self.path):
                if self.write and _has_traces(self._connection):
                    _rewrite(self._connection)
                self._connection.execute("PRAGMA secure_delete = ON")
                self._connection.execute("PRAGMA foreign_keys = ON")
                self._connection.execute(f"PRAGMA mmap_size = {_MAPPED}")
                self._connection.execute("BEGIN IMMEDIATE" if self.write else "BEGIN")
                application, version = (
                    self._one(f"PRAGMA {name}") for name in ("application_id", "user_version")
                )
            if application != _APPLICATION:
                raise DataError(
                    f"{self.path} is not a gallery of calr", "Give a file of `calr gallery create`"
                )
            if version != FORMAT:
                raise DataError(
                    f"{self.path} is a gallery of another version of calr ({version}, not {FORMAT})",
                    "Take that version, or make the gallery again",
                )
            with _explained(self.path):
                facts = dict(self._connection.execute("SELECT name, value FROM facts").fetchall())
            self.maker = Maker(facts["key"], facts["precision"], int(facts["dim"]), facts["path"])
        except BaseException:
            self._connection.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is None:
                with _explained(self.path):
                    self._connection.execute("COMMIT")
        finally:
            self._connection.close()  # what is not committed is undone

    def _one(self, query: str, *values: object) -> int:
        return int(self._connection.execute(query, values).fetchone()[0])

    def __len__(self) -> int:
        return self._one("SELECT COUNT(*) FROM images")

    def identities(self) -> list[Known]:
        """All identities by number."""
        with _explained(self.path):
            found = self._connection.execute(
                "SELECT identities.id, name, camera, COUNT(images.id) FROM identities "
                "LEFT JOIN images ON images.identity = identities.id GROUP BY identities.id, camera "
                "ORDER BY identities.id, camera"
            ).fetchall()
        known: dict[int, Known] = {}
        for number, name, camera, count in found:
            before = known.get(number, Known(number, name, 0, ()))
            cameras = (*before.cameras, camera) if camera else before.cameras
            known[number] = Known(number, name, before.images + count, cameras)
        return list(known.values())

    def find(self, who: str) -> int:
        """The number of the identity that ``who``, a number or a name, means.

        Raises:
            DataError: There is none.
        """
        column = "id" if who.isdecimal() else "name"
        with _explained(self.path):
            row = self._connection.execute(f"SELECT id FROM identities WHERE {column} = ?", (who,)).fetchone()
        if row is None:
            raise DataError(
                f"{self.path} has no identity {who}", f"calr gallery list {self.path} shows all of them"
            )
        return int(row[0])

    def new_identity(self, name: str | None = None) -> int:
        """The number of a new identity.

        Raises:
            DataError: The name is another identity's, or is a number.
        """
        with _explained(self.path):
            number = self._connection.execute("INSERT INTO identities (name) VALUES (NULL)").lastrowid
        assert number is not None
        if name is not None:
            self.rename(number, name)
        return number

    def rename(self, number: int, name: str) -> None:
        """Call an identity something else.

        Raises:
            DataError: The name is another identity's, or is a number.
        """
        if name.isdecimal() or not name.isprintable() or not name.strip():
            raise DataError(f"'{name}' cannot be a name: it is a number, or blank", "Give a word")
        with _explained(self.path):
            other = self._connection.execute("SELECT id FROM identities WHERE name = ?", (name,)).fetchone()
            if other is not None and other[0] != number:
                raise DataError(
                    f"{name} is the name of identity {other[0]} already",
                    "Give another name, or make them one: "
                    f"calr gallery merge {self.path} {other[0]} {number}",
                )
            self._connection.execute("UPDATE identities SET name = ? WHERE id = ?", (name, number))

    def keep(self, number: int, images: Iterable[Seen]) -> int:
        """Add images to an identity; those of a content that is there already stay where they are.

        Returns:
            How many were added.
        """
        added = 0
        with _explained(self.path):
            for image in images:
                cursor = self._connection.execute(
                    "INSERT OR IGNORE INTO images (identity, path, digest, camera) VALUES (?, ?, ?, ?)",
                    (number, image.path, image.digest, image.camera),
                )
                if not cursor.rowcount:
                    continue
                place, row = cursor.lastrowid, image.feature.astype(np.float32).tobytes()
                self._connection.execute("INSERT INTO features VALUES (?, ?)", (place, row))
                self._connection.execute("INSERT INTO thumbnails VALUES (?, ?)", (place, image.jpeg))
                added += 1
        return added

    def images(self) -> tuple[list[str], list[int]]:
        """Paths and identities of all images, in the order of `blocks`."""
        with _explained(self.path):
            rows = self._connection.execute("SELECT path, identity FROM images ORDER BY id").fetchall()
        return [path for path, _ in rows], [number for _, number in rows]

    def cameras(self) -> list[str]:
        """Camera of each image, in the order of `blocks`."""
        with _explained(self.path):
            return [camera for (camera,) in self._connection.execute("SELECT camera FROM images ORDER BY id")]

    def images_of(self, number: int) -> list[tuple[int, str, str, bytes]]:
        """Place, path, camera and small picture of each image of an identity."""
        with _explained(self.path):
            return self._connection.execute(
                "SELECT images.id, path, camera, jpeg FROM images JOIN thumbnails ON image = images.id "
                "WHERE identity = ? ORDER BY images.id",
                (number,),
            ).fetchall()

    def features_of(self, number: int) -> FloatArray:
        """(N, D) unit rows of the images of an identity, in the order of `images_of`."""
        query = "SELECT row FROM features JOIN images ON id = image WHERE identity = ? ORDER BY image"
        with _explained(self.path):
            return self._rows(self._connection.execute(query, (number,)).fetchall())

    def blocks(self, rows: int) -> Iterator[FloatArray]:
        """All features, at most ``rows`` of them at a time, (B, D) float32 unit rows."""
        with _explained(self.path):
            cursor = self._connection.execute("SELECT row FROM features ORDER BY image")
            while found := cursor.fetchmany(rows):
                yield self._rows(found)

    def _rows(self, found: Sequence[tuple[bytes]]) -> FloatArray:
        stored: FloatArray = np.frombuffer(bytearray().join([row for (row,) in found]), np.float32)
        return stored.reshape(len(found), self.maker.dim)

    def move(self, places: Sequence[int], number: int) -> None:
        """Give images to another identity."""
        with _explained(self.path):
            self._connection.executemany(
                "UPDATE images SET identity = ? WHERE id = ?", [(number, place) for place in places]
            )

    def merge(self, into: int, others: Sequence[int]) -> None:
        """Give all images of other identities to one, which takes the first name if it has none."""
        with _explained(self.path):
            names = [known.name for known in self.identities() if known.number in (into, *others)]
            for other in others:
                self._connection.execute("UPDATE images SET identity = ? WHERE identity = ?", (into, other))
                self._connection.execute("DELETE FROM identities WHERE id = ?", (other,))
            named = next((known.name for known in self.identities() if known.number == into), None)
            if named is None and (name := next((name for name in names if name), None)):
                self.rename(into, name)

    def forget(self, number: int) -> int:
        """Delete an identity with its name, images, features and pictures; how many images it had."""
        with _explained(self.path):
            count = self._one("SELECT COUNT(*) FROM images WHERE identity = ?", number)
            for table in ("features", "thumbnails"):
                self._connection.execute(
                    f"DELETE FROM {table} WHERE image IN (SELECT id FROM images WHERE identity = ?)",
                    (number,),
                )
            self._connection.execute("DELETE FROM images WHERE identity = ?", (number,))
            self._connection.execute("DELETE FROM identities WHERE id = ?", (number,))
            self._connection.execute(f"INSERT OR REPLACE INTO facts VALUES ('{_TRACES}', '')")
        return count


def shrink(path: Path) -> None:
    """Write the file again, so that no trace of what was forgotten is left.

    Raises:
        DataError: The disk has no room for a second file meanwhile, or another command writes. The next
            command that writes does it then.
    """
    with (
        _explained(path),
        closing(sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)) as connection,
    ):
        _rewrite(connection)


def _rewrite(connection: sqlite3.Connection) -> None:
    connection.execute("VACUUM")
    connection.execute("DELETE FROM facts WHERE name = ?", (_TRACES,))


def _has_traces(connection: sqlite3.Connection) -> bool:
    """Whether there is a gallery, and something was forgotten without writing the file again."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    query = "SELECT 1 FROM facts WHERE name = ?"
    return bool(application == _APPLICATION and connection.execute(query, (_TRACES,)).fetchone())


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what SQLite says into one line.

    Raises:
        DataError: The file is damaged, cannot be written, or another command writes.
    """
    try:
        yield
    except sqlite3.Error as error:
        lines = {
            "locked": ("is being written by another command", "Try again when that has ended"),
            "full": ("cannot be written: the disk is full. Nothing was changed", "Make room there"),
            "readonly": ("cannot be written: it is read-only", "Change its permissions, or copy it"),
            "unable to open": ("cannot be opened", "Look at the permissions of its folder"),
            "disk I/O": ("cannot be read or written: the disk reports an error", "Nothing was changed"),
        }
        what, hint = next(
            (line for word, line in lines.items() if word in str(error)),
            (f"is damaged ({error})", "Take a copy of it from before"),
        )
        raise DataError(f"{path} {what}", hint) from error
