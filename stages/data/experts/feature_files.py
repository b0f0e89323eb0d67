"""Files of features as others write them: pickles, HDF5, npz, Zarr, a matrix with ids, W2VV++'s folders.

In every one of them a name stands for an array: a video for an expert's (D) or (time, D), `VIDEO#k` or `VIDEO/k` for
the words (words, D) of caption k, from 0. Pickles are dicts from videos to arrays, or to lists of arrays, one a
caption. Two arrays `ids` and `features`, and perhaps `lengths`, are read as a table: row v of `features` belongs to
video ids[v], of which only the first lengths[v] rows count. Nothing is read but what is asked for.
"""

import hashlib
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import DataError
from ....plurals import counted
from ....remedies import ReadPage, Remedy
from ..readers.text_files import text_of
from .pickled_arrays import PickledArray, unpickled_arrays

PICKLES = (".pkl", ".pickle", ".p")
HDF5 = (".h5", ".hdf5", ".hdf")
SUFFIXES = (*PICKLES, *HDF5, ".npz", ".npy", ".zarr")
_TABLE = {"ids", "features"}
_CAPTION = re.compile(r"(?P<video>.+)[#/](?P<caption>\d{1,6})", re.DOTALL)
_BLOCK = 2**20
_FAULTS = (OSError, ValueError, KeyError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error)
type Array = NDArray[Any]
type Read = Callable[[], Any]
type Named = dict[str, Read]


@dataclass(frozen=True)
class FeatureFile:
    """Features by video, each read when it is asked for.

    Attributes:
        path: where they lie; values: of each video: reads an array, a number (NaN: missing), or a list of arrays.
    """

    path: Path
    values: Mapping[str, Read]

    def read(self, video: str) -> Any:
        """What the file holds for a video.

        Raises:
            DataError: it cannot be read.
        """
        try:
            return self.values[video]()
        except _FAULTS as error:
            raise DataError(f"{video!r} cannot be read: {error}", where=str(self.path)) from None


@contextmanager
def open_features(path: Path, captions: bool = False) -> Iterator[FeatureFile]:
    """The features in `path`.

    Args:
        captions: they are words of captions: a list of arrays a video.

    Raises:
        DataError: it is not there, of no kind that is known, or damaged.
    """
    if not path.exists():
        raise DataError("no such file of features", where=str(path))
    try:
        with _opener(path)(path) as named:
            yield FeatureFile(path, _grouped(named, path) if captions else named)
    except _FAULTS as error:
        told = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(f"not a file of features that can be read: {told}", where=str(path)) from None


def feature_digest(path: Path) -> str:
    """32 hexadecimal digits that stand for a file of features, or for a folder with all that is in it.

    Raises:
        DataError: it cannot be read.
    """
    total = hashlib.blake2b(digest_size=16)
    try:
        for part in _parts(path):
            total.update(
                f"{os.path.relpath(part, path.parent)}\0{part.stat().st_size}\0".encode(errors="surrogateescape")
            )
            with part.open("rb") as file:
                while block := file.read(_BLOCK):
                    total.update(block)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from None
    return total.hexdigest()


def feature_bytes(path: Path) -> int:
    """Bytes of a file or folder of features; 0 when there is none."""
    try:
        return sum(part.stat().st_size for part in _parts(path))
    except OSError:
        return 0


def _parts(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path, *filter(Path.exists, [ids_beside(path)] if path.suffix == ".npy" else [])]
    return sorted(Path(folder, name) for folder, _, names in os.walk(path) for name in names)


def ids_beside(path: Path) -> Path:
    """The text file with the videos of a matrix, one a line: `name.ids.txt` beside `name.npy`."""
    return path.with_suffix(".ids.txt")


def _opener(path: Path) -> Callable[[Path], Any]:
    suffix = path.suffix.lower()
    if path.is_dir():
        if (path / "feature.bin").exists():
            return _w2vv
        return _zarr
    if suffix in PICKLES:
        return _pickle
    openers = {**dict.fromkeys(HDF5, _hdf5), ".npz": _npz, ".npy": _npy}
    if suffix not in openers:
        raise DataError(
            f"a file of features ends in {', '.join(SUFFIXES)}, and not in {suffix or 'nothing'}",
            where=str(path),
            hint=Remedy("what each holds", ReadPage("guide/experts")),
        )
    return openers[suffix]


@contextmanager
def _pickle(path: Path) -> Iterator[Named]:
    document = unpickled_arrays(path)
    if not isinstance(document, dict):
        raise DataError("the pickle holds no dict from videos to arrays", where=str(path))
    yield {video: _pickled(value) for video, value in document.items()}


def _pickled(value: Any) -> Read:
    def read() -> Any:
        if isinstance(value, list | tuple):
            return [each.read() if isinstance(each, PickledArray) else each for each in value]
        return value.read() if isinstance(value, PickledArray) else value

    return read


@contextmanager
def _hdf5(path: Path) -> Iterator[Named]:
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        found: Named = {}

        def visit(name: str, node: Any) -> None:
            if isinstance(node, h5py.Dataset):
                found[name] = lambda: node[()]

        file.visititems(visit)
        if found.keys() >= _TABLE and found.keys() <= {*_TABLE, "lengths"}:
            ids = [each.decode() if isinstance(each, bytes) else str(each) for each in file["ids"][()]]
            lengths = file["lengths"][()] if "lengths" in found else None
            yield _table(ids, file["features"], lengths, path)
        else:
            yield found


@contextmanager
def _npz(path: Path) -> Iterator[Named]:
    with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
        if set(file.files) >= _TABLE and set(file.files) <= {*_TABLE, "lengths"}:
            lengths = file["lengths"] if "lengths" in file.files else None
            yield _table([str(each) for each in file["ids"]], file["features"], lengths, path)
        else:
            yield {name: partial(file.__getitem__, name) for name in file.files}


@contextmanager
def _npy(path: Path) -> Iterator[Named]:
    ids = ids_beside(path)
    if not ids.exists():
        raise DataError(f"the rows of a matrix are named in {ids.name} beside it, one video a line", where=str(path))
    yield _table(text_of(ids).split("\n"), np.load(path, mmap_mode="r", allow_pickle=False), None, path)


@contextmanager
def _w2vv(path: Path) -> Iterator[Named]:
    """feature.bin: float32 (V, D); shape.txt: V and D; id.txt: V ids, blanks or line ends between."""
    shape = [int(size) for size in text_of(path / "shape.txt").split()]
    matrix = np.memmap(path / "feature.bin", "<f4", "r", shape=tuple(shape))
    yield _table(text_of(path / "id.txt").split(), matrix, None, path)


@contextmanager
def _zarr(path: Path) -> Iterator[Named]:
    import zarr

    group = zarr.open_group(str(path), mode="r")
    arrays = {name: node for name, node in group.members(max_depth=None) if isinstance(node, zarr.Array)}
    if arrays.keys() >= _TABLE and arrays.keys() <= {*_TABLE, "lengths"}:
        lengths = np.asarray(arrays["lengths"][...]) if "lengths" in arrays else None
        yield _table([str(each) for each in np.asarray(arrays["ids"][...])], arrays["features"], lengths, path)
    else:
        yield {name: partial(_values, node) for name, node in arrays.items()}


def _values(node: Any) -> Array:
    return np.asarray(node[...])


def _table(ids: Iterable[str], features: Any, lengths: Array | None, path: Path) -> Named:
    names = [id.rstrip("\r") for id in ids]
    while names and not names[-1]:
        names.pop()
    if len(names) != features.shape[0] or (lengths is not None and lengths.shape != (len(names),)):
        more = "" if lengths is None else f" and {counted(len(lengths), 'length')}"
        told = f"{counted(features.shape[0], 'row')} for {counted(len(names), 'id')}{more}"
        raise DataError(told, where=str(path))

    def row(k: int) -> Read:
        return lambda: np.asarray(features[k] if lengths is None else features[k, : int(lengths[k])])

    found = {name: row(k) for k, name in enumerate(names)}
    if len(found) != len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise DataError(f"id {repeated!r} is there twice", where=str(path))
    return found


def _grouped(named: Named, path: Path) -> Named:
    """Words by video: those of pickles come so, others have a name for every caption."""
    if path.suffix.lower() in PICKLES:
        return named
    captions: dict[str, dict[int, Read]] = {}
    for name, read in named.items():
        if (found := _CAPTION.fullmatch(name)) is None:
            raise DataError(
                f"{name!r} is no caption: its name ends in neither #0 nor /0, the caption's number", where=str(path)
            )
        captions.setdefault(found["video"], {})[int(found["caption"])] = read
    return {video: _listed(video, each) for video, each in captions.items()}


def _listed(video: str, captions: dict[int, Read]) -> Read:
    def read() -> list[Any]:
        if sorted(captions) != list(range(len(captions))):
            raise ValueError(f"its captions are numbered {sorted(captions)[:5]}, not from 0 on")
        return [captions[k]() for k in range(len(captions))]

    return read
