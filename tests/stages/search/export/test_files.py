"""An index in a file: every form holds the same, whole, and can be read by what people read it with."""

import json
from pathlib import Path

import numpy as np
import pytest
from teachclip.cache.library.library import Library
from teachclip.errors import ConfigError, DataError
from teachclip.stages.search.export.files import vector_file
from teachclip.stages.search.export.stage import export_index

from .conftest import MODEL, WIDTH, Fill


def rows_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture
def matrix(index: Path) -> np.ndarray:
    with Library.open(index) as library:
        library.add_tag(index.parent / "clips/a.mp4", "sea")
        return library.matrix().astype(np.float32)


def test_json_lines_hold_windows_and_vectors(index: Path, matrix: np.ndarray, tmp_path: Path) -> None:
    done = export_index(index, str(tmp_path / "v.jsonl"))
    assert (done.windows, done.written, done.width, done.model) == (5, 5, WIDTH, MODEL.name)
    rows = rows_of(tmp_path / "v.jsonl")
    np.testing.assert_array_equal(np.array([row.pop("vector") for row in rows], np.float32), matrix)
    clip = str(tmp_path / "clips/a.mp4")
    assert rows[1] == {
        "id": 2, "path": clip, "start": 15.0, "stop": 45.0, "times": [15.0, 16.0, 17.0], "tags": ["sea"]
    }  # fmt: skip
    assert rows[2]["path"] == str(tmp_path / "clips/b ü.mp4")
    assert rows[2]["tags"] == []


def test_npy_is_a_matrix_with_its_rows_beside_it(index: Path, matrix: np.ndarray, tmp_path: Path) -> None:
    export_index(index, str(tmp_path / "v.npy"))
    read = np.load(tmp_path / "v.npy", mmap_mode="r")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, matrix)
    assert [row["id"] for row in rows_of(tmp_path / "v.jsonl")] == [1, 2, 3, 4, 5]


def test_bigfile_is_as_published_code_reads_it(index: Path, matrix: np.ndarray, tmp_path: Path) -> None:
    folder = tmp_path / "v.bigfile"
    export_index(index, str(folder))
    assert (folder / "shape.txt").read_text() == f"5 {WIDTH}"
    assert (folder / "id.txt").read_text() == "1 2 3 4 5"
    np.testing.assert_array_equal(np.fromfile(folder / "feature.bin", np.float32).reshape(5, WIDTH), matrix)
    assert len(rows_of(folder / "rows.jsonl")) == 5


def test_parquet_is_a_table(index: Path, matrix: np.ndarray, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: the extra parquet")
    export_index(index, str(tmp_path / "v.parquet"))
    table = parquet.read_table(tmp_path / "v.parquet")
    assert table.column_names == ["id", "path", "start", "stop", "times", "tags", "vector"]
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), np.float32), matrix)
    assert table["tags"].to_pylist()[0] == ["sea"]
    about = json.loads(table.schema.metadata[b"teachclip"])
    assert (about["model"], about["digest"], about["width"]) == (MODEL.name, MODEL.digest, WIDTH)


def test_vectors_are_cut_to_a_width_and_named_so(index: Path, matrix: np.ndarray, tmp_path: Path) -> None:
    done = export_index(index, str(tmp_path / "v.npy"), width=3)
    assert (done.width, done.model) == (3, f"{MODEL.name}@3")
    first = matrix[:, :3]
    expected = first / np.linalg.norm(first, axis=1, keepdims=True)
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), expected, rtol=1e-6)
    for width in (0, WIDTH + 1):
        with pytest.raises(ConfigError, match=f"have {WIDTH} numbers, and cannot be cut to {width}"):
            export_index(index, str(tmp_path / "wrong.npy"), width=width)
    assert not (tmp_path / "wrong.npy").exists()


@pytest.mark.parametrize("name", ["v.jsonl", "v.npy", "v.bigfile", "v.parquet"])
def test_a_file_is_whole_or_not_there(name: str, tmp_path: Path) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow", reason="pyarrow is not installed: the extra parquet")

    def write() -> None:
        with vector_file(tmp_path / name, 2, {}) as file:
            file.add([{"id": 1}], np.ones((1, 2), np.float16))
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_several_parts_make_one_file(tmp_path: Path) -> None:
    with vector_file(tmp_path / "v.bigfile", 2, {}) as file:
        for start in (0, 3):
            file.add([{"text": f"{start + k}"} for k in range(3)], np.full((3, 2), start, np.float32))
    assert (tmp_path / "v.bigfile/id.txt").read_text() == "0 1 2 3 4 5"
    assert np.fromfile(tmp_path / "v.bigfile/feature.bin", np.float32).tolist() == [0] * 6 + [3] * 6


@pytest.mark.parametrize(
    ("to", "message", "named"),
    [
        ("v.csv", "not written as .csv", ("NAME.npy",)),
        ("vectors", "neither a file nor a database", ("NAME.npy", "qdrant:URL")),
        ("milvus:somewhere", "not written to milvus", ("qdrant:URL",)),
    ],
)
def test_what_is_no_form_is_refused_with_those_that_are(
    index: Path, to: str, message: str, named: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        export_index(index, to)
    hint = str(refused.value.hint)
    assert tuple(form for form in ("NAME.npy", "qdrant:URL") if form in hint) == named


def test_a_table_is_of_a_database(index: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no tables"):
        export_index(index, str(tmp_path / "v.npy"), table="clips")


def test_a_model_is_chosen_by_its_name(fill: Fill, index: Path, tmp_path: Path) -> None:
    assert export_index(index, str(tmp_path / "v.npy"), model="/runs/student").windows == 5
    with pytest.raises(DataError, match="no vectors of a model of this name") as refused:
        export_index(index, str(tmp_path / "v.npy"), model="/runs/other")
    assert refused.value.details == (MODEL.name,)
