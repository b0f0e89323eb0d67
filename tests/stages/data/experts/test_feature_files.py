"""Features in every form in which others write them."""

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from teachclip.errors import DataError
from teachclip.stages.data.experts.feature_files import feature_digest, open_features

RNG = np.random.default_rng(5)
EXPERT: dict[str, NDArray[Any]] = {
    "video1": RNG.random((3, 8)).astype(np.float32),
    "folder/video2": RNG.random((1, 8)).astype(np.float32),
    "video3": RNG.random((5, 8)).astype(np.float32),
}
WORDS = {video: [array[:2], array[:1]] for video, array in EXPERT.items()}


def named(words: bool) -> dict[str, NDArray[Any]]:
    if not words:
        return EXPERT
    return {f"{video}/{k}": array for video, arrays in WORDS.items() for k, array in enumerate(arrays)}


def write_pickle(path: Path, words: bool) -> None:
    path.write_bytes(pickle.dumps(WORDS if words else EXPERT))


def write_hdf5(path: Path, words: bool) -> None:
    with h5py.File(path, "w") as file:
        for name, array in named(words).items():
            file.create_dataset(name, data=array, chunks=True)


def write_npz(path: Path, words: bool) -> None:
    arrays: dict[str, Any] = {name.replace("/0", "#0").replace("/1", "#1"): each for name, each in named(words).items()}
    np.savez_compressed(path, **arrays)


def write_zarr(path: Path, words: bool) -> None:
    group = zarr.open_group(path, mode="w")
    for name, array in named(words).items():
        group.create_array(name, data=array)


FORMS = {"f.pkl": write_pickle, "f.h5": write_hdf5, "f.npz": write_npz, "f.zarr": write_zarr}


@pytest.mark.parametrize("name", FORMS)
def test_experts_by_video(tmp_path: Path, name: str) -> None:
    FORMS[name](tmp_path / name, False)
    with open_features(tmp_path / name) as file:
        assert set(file.values) == set(EXPERT)
        for video, array in EXPERT.items():
            np.testing.assert_array_equal(file.read(video), array)


@pytest.mark.parametrize("name", FORMS)
def test_words_by_video_and_caption(tmp_path: Path, name: str) -> None:
    FORMS[name](tmp_path / name, True)
    with open_features(tmp_path / name, captions=True) as file:
        assert set(file.values) == set(WORDS)
        for video, arrays in WORDS.items():
            found = file.read(video)
            assert len(found) == len(arrays)
            for one, other in zip(found, arrays, strict=True):
                np.testing.assert_array_equal(one, other)


def test_tables_with_ids_and_lengths(tmp_path: Path) -> None:
    ids, features = ["b", "a"], RNG.random((2, 4, 3)).astype(np.float32)
    lengths = np.array([4, 2])
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["ids"], file["features"], file["lengths"] = ids, features, lengths
    np.savez(tmp_path / "t.npz", ids=np.array(ids), features=features, lengths=lengths)
    group = zarr.open_group(tmp_path / "t.zarr", mode="w")
    for name, array in (("ids", np.array(["0001", "a"])), ("features", features), ("lengths", lengths)):
        group.create_array(name, data=array)
    for name in ("t.h5", "t.npz"):
        with open_features(tmp_path / name) as found:
            assert list(found.values) == ids
            np.testing.assert_array_equal(found.read("a"), features[1, :2])
    with open_features(tmp_path / "t.zarr") as found:
        np.testing.assert_array_equal(found.read("0001"), features[0])


def test_a_matrix_with_ids_beside_it_and_a_w2vv_folder(tmp_path: Path) -> None:
    matrix = RNG.random((3, 6)).astype(np.float32)
    np.save(tmp_path / "m.npy", matrix)
    (tmp_path / "m.ids.txt").write_text("x y\nb\r\nc\n")
    with open_features(tmp_path / "m.npy") as file:
        assert list(file.values) == ["x y", "b", "c"]
        np.testing.assert_array_equal(file.read("b"), matrix[1])
    folder = tmp_path / "mean_resnet152"
    folder.mkdir()
    matrix.tofile(folder / "feature.bin")
    (folder / "id.txt").write_text("a b c")
    (folder / "shape.txt").write_text("3 6")
    with open_features(folder) as file:
        np.testing.assert_array_equal(file.read("c"), matrix[2])
    (folder / "shape.txt").write_text("4 6")
    with pytest.raises(DataError, match="not a file of features"), open_features(folder):
        pass


def test_what_cannot_be_read_is_told_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "cut.h5").write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    (tmp_path / "list.pkl").write_bytes(pickle.dumps([1, 2]))
    (tmp_path / "features.tsv").write_text("a 1 2")
    np.save(tmp_path / "alone.npy", np.zeros((2, 2)))
    np.savez(tmp_path / "objects.npz", a=np.array([{"a": 1}], dtype=object))
    for name, why in (
        ("none.h5", "no such file"), ("cut.npz", "not a file of features"), ("cut.h5", "not a file of features"),
        ("list.pkl", "no dict"), ("features.tsv", "ends in .pkl"), ("alone.npy", "alone.ids.txt"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=why) as told, open_features(tmp_path / name):
            pass
        assert told.value.where == str(tmp_path / name)
    with open_features(tmp_path / "objects.npz") as file, pytest.raises(DataError, match="allow_pickle=False"):
        file.read("a")


def test_a_cut_hdf5_of_real_features_is_refused(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "f.h5", False)
    data = (tmp_path / "f.h5").read_bytes()
    (tmp_path / "f.h5").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="not a file of features"), open_features(tmp_path / "f.h5"):
        pass


def test_captions_need_their_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", video=np.zeros((2, 3)))
    with pytest.raises(DataError, match="neither #0 nor /0"), open_features(tmp_path / "a.npz", captions=True):
        pass
    np.savez(tmp_path / "b.npz", **{"video#0": np.zeros((2, 3)), "video#2": np.zeros((2, 3))})
    with open_features(tmp_path / "b.npz", captions=True) as file, pytest.raises(DataError, match=r"\[0, 2\]"):
        file.read("video")


@pytest.mark.parametrize("name", FORMS)
def test_a_digest_stands_for_every_byte(tmp_path: Path, name: str) -> None:
    FORMS[name](tmp_path / name, False)
    before = feature_digest(tmp_path / name)
    assert feature_digest(tmp_path / name) == before
    files = [path for path in (tmp_path / name).rglob("*") if path.is_file()] or [tmp_path / name]
    data = bytearray(files[-1].read_bytes())
    data[-1] ^= 1
    files[-1].write_bytes(data)
    assert feature_digest(tmp_path / name) != before
