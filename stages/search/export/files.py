"""Vectors in a file, complete or absent: Parquet, JSON lines, npy, and the folder that published code calls bigfile."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ....cache.storage.publish import publishing
from ....errors import ConfigError
from ...runtime.plugins import needs

FORMS = "NAME.parquet, NAME.jsonl, NAME.npy (with NAME.jsonl beside it), or NAME.bigfile, a folder"
_DIGITS = 9  # that tell every float32 from its neighbours

type Row = Mapping[str, Any]


@contextmanager
def vector_file(path: Path, width: int, about: Row) -> Iterator["VectorFile"]:
    """A file of vectors of `width` numbers, which is there once the block has ended well, and not at all otherwise.

    Args:
        path: its ending says the form (`FORMS`).
        about: what the vectors are, for forms that can say it.

    Raises:
        ConfigError: the ending is none of these; Parquet is wanted and not installed.
    """
    form = form_of(path)
    with ExitStack() as files:
        made = form(path, width, about, files)
        yield made
        made.close()


def form_of(path: Path) -> type["VectorFile"]:
    """What writes a file with this ending.

    Raises:
        ConfigError: as `vector_file`.
    """
    form = _FORMS.get(path.suffix)
    if form is None:
        raise ConfigError(f"vectors are not written as {path.suffix or 'a name without an ending'}", where=str(path),
                          hint=f"name one of {FORMS}")  # fmt: skip
    if form is _Parquet:
        needs("pyarrow", "parquet", str(path), "Parquet", instead="write NAME.npy")
    return form


class VectorFile(ABC):
    """A file in the making; what it consists of is opened in `files`, beside where it will lie."""

    def __init__(self, path: Path, width: int, about: Row, files: ExitStack) -> None:
        self.path, self.width, self.about, self.files = path, width, about, files
        self.count = 0
        self.begin()

    @abstractmethod
    def begin(self) -> None:
        """Open what is written to."""

    def add(self, rows: Sequence[Row], vectors: NDArray[np.floating]) -> None:
        """Write N rows, all with the same keys, and their vectors [N, D]."""
        assert vectors.shape == (len(rows), self.width)
        self.count += len(rows)
        self.write(rows, np.ascontiguousarray(vectors, np.float32))

    @abstractmethod
    def write(self, rows: Sequence[Row], vectors: NDArray[np.float32]) -> None:
        """Write rows and their vectors [N, D]."""

    def close(self) -> None:  # noqa: B027
        """Write what is known at the end only, and close; most forms have nothing of the kind."""

    def opened(self, path: Path) -> IO[bytes]:
        """A file to write to, which comes to lie at `path`; the one opened last does so first."""
        temporary = self.files.enter_context(publishing(path))
        return self.files.enter_context(temporary.open("w+b"))


class _Lines(VectorFile):
    """A JSON object a line, `vector` its last key."""

    def begin(self) -> None:
        self.file = self.opened(self.path)

    def write(self, rows: Sequence[Row], vectors: NDArray[np.float32]) -> None:
        for row, vector in zip(rows, vectors, strict=True):
            numbers = [float(f"{number:.{_DIGITS}g}") for number in vector.tolist()]
            self.file.write(_line({**row, "vector": numbers}))


class _Numpy(VectorFile):
    """A float32 matrix [N, D], and beside it the rows as JSON lines."""

    def begin(self) -> None:
        self.file = self.opened(self.path)
        self.lines = self.opened(self.path.with_suffix(".jsonl"))
        self._head()

    def write(self, rows: Sequence[Row], vectors: NDArray[np.float32]) -> None:
        self.lines.writelines(map(_line, rows))
        self.file.write(vectors.data)

    def close(self) -> None:
        self.file.seek(0)
        self._head()  # as long as the first: NumPy leaves room for the number of rows

    def _head(self) -> None:
        shape = {"descr": "<f4", "fortran_order": False, "shape": (self.count, self.width)}
        np.lib.format.write_array_header_1_0(self.file, shape)


class _Bigfile(VectorFile):
    """feature.bin float32 [N, D], id.txt, shape.txt, as TeachCLIP's code reads them, and the rows in rows.jsonl.

    Ids are the rows' numbers: in id.txt blanks part them, and paths may have some.
    """

    def begin(self) -> None:
        self.shape = self.opened(self.path / "shape.txt")
        self.ids = self.opened(self.path / "id.txt")
        self.lines = self.opened(self.path / "rows.jsonl")
        self.file = self.opened(self.path / "feature.bin")

    def write(self, rows: Sequence[Row], vectors: NDArray[np.float32]) -> None:
        first = self.count - len(rows)
        ids = (str(row.get("id", first + place)) for place, row in enumerate(rows))
        self.ids.write(((" " if first else "") + " ".join(ids)).encode())
        self.lines.writelines(map(_line, rows))
        self.file.write(vectors.astype("<f4").data)

    def close(self) -> None:
        self.shape.write(f"{self.count} {self.width}".encode())


class _Parquet(VectorFile):
    """A row group a batch; `vector` is a list of D float32; what the vectors are stands in the file's metadata."""

    def begin(self) -> None:
        self.file = self.opened(self.path)
        self.writer: Any = None

    def write(self, rows: Sequence[Row], vectors: NDArray[np.float32]) -> None:
        import pyarrow as arrow
        import pyarrow.parquet as parquet

        columns = {name: arrow.array([row[name] for row in rows], _arrow_type(arrow, name)) for name in rows[0]}
        columns["vector"] = arrow.FixedSizeListArray.from_arrays(arrow.array(vectors.ravel()), self.width)
        table = arrow.table(columns).replace_schema_metadata({"teachclip": json.dumps(dict(self.about))})
        if self.writer is None:
            self.writer = self.files.enter_context(parquet.ParquetWriter(self.file, table.schema))
        self.writer.write_table(table)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def _arrow_type(arrow: Any, name: str) -> Any:
    """The type of a column whose rows may all be empty lists."""
    return {"times": arrow.list_(arrow.float64()), "tags": arrow.list_(arrow.string())}.get(name)


def _line(row: Row) -> bytes:
    return json.dumps(dict(row), ensure_ascii=False).encode() + b"\n"


_FORMS = {".parquet": _Parquet, ".jsonl": _Lines, ".npy": _Numpy, ".bigfile": _Bigfile}
