"""The folder of the index: complete or absent, and never read when damaged."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from teachclip.cache.storage import publish as files
from teachclip.cache.vectors import Vectors, publish_vectors, read_vectors
from teachclip.errors import CacheError
from teachclip.remedies import DeleteFolder


def some(count: int = 5, network: str = "n1") -> Vectors:
    matrix = np.random.default_rng(count).normal(size=(count, 8)).astype(np.float16)
    return Vectors({"network": network}, {f"clips/{k} é\n.mp4": f"{k:032x}" for k in range(count)}, matrix)


def test_reads_back_what_was_published(tmp_path: Path) -> None:
    publish_vectors(tmp_path / "index", some())
    read = read_vectors(tmp_path / "index")
    assert read is not None
    assert read.videos == some().videos
    assert read.digests == some().digests
    assert read.identity == some().identity
    np.testing.assert_array_equal(read.matrix, some().matrix)


def test_absent_is_none(tmp_path: Path) -> None:
    assert read_vectors(tmp_path / "index") is None


def test_replacing_leaves_one_file_of_vectors(tmp_path: Path) -> None:
    publish_vectors(tmp_path, some(5))
    publish_vectors(tmp_path, some(7))
    read = read_vectors(tmp_path)
    assert read is not None
    assert len(read.videos) == 7
    assert len(list(tmp_path.iterdir())) == 2


def test_no_videos(tmp_path: Path) -> None:
    publish_vectors(tmp_path, some(0))
    read = read_vectors(tmp_path)
    assert read is not None
    assert read.matrix.shape == (0, 8)


@pytest.mark.parametrize("writes", [0, 1])
def test_killed_while_replacing_leaves_the_old_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    publish_vectors(tmp_path, some(5))
    done = 0

    def killed(folder: Path) -> None:
        nonlocal done
        done += 1
        if done > writes:
            raise KeyboardInterrupt

    def replace(self: Path, target: Path) -> Path:
        killed(target)
        return original(self, target)

    original = files.Path.replace
    monkeypatch.setattr(files.Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        publish_vectors(tmp_path, some(7))
    monkeypatch.undo()
    read = read_vectors(tmp_path)
    assert read is not None
    assert len(read.videos) == 5


def damage_bytes(folder: Path) -> None:
    (path,) = folder.glob("*.npy")
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)


def truncate(folder: Path) -> None:
    (path,) = folder.glob("*.npy")
    path.write_bytes(path.read_bytes()[:-10])


def delete(folder: Path) -> None:
    next(folder.glob("*.npy")).unlink()


def cut_identity(folder: Path) -> None:
    (folder / "identity.json").write_bytes((folder / "identity.json").read_bytes()[:40])


def other_format(folder: Path) -> None:
    content = json.loads((folder / "identity.json").read_text())
    (folder / "identity.json").write_text(json.dumps(content | {"format": 99}))


def empty_identity(folder: Path) -> None:
    (folder / "identity.json").write_text("[]")


def drop_video(folder: Path) -> None:
    content = json.loads((folder / "identity.json").read_text())
    content["videos"].popitem()
    (folder / "identity.json").write_text(json.dumps(content))


def pickled(folder: Path) -> None:
    (path,) = folder.glob("*.npy")
    np.save(path, np.array([object()], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    "damage", [damage_bytes, truncate, delete, cut_identity, other_format, empty_identity, drop_video, pickled]
)
def test_damage_is_refused_with_the_way_out(tmp_path: Path, damage: object) -> None:
    publish_vectors(tmp_path, some())
    damage(tmp_path)  # type: ignore[operator]
    with pytest.raises(CacheError) as caught:
        read_vectors(tmp_path)
    assert caught.value.hint.action == DeleteFolder(str(tmp_path))


def test_the_file_is_named_by_shape_and_values(tmp_path: Path) -> None:
    publish_vectors(tmp_path, some())
    content = b"(5, 8)" + some().matrix.tobytes()
    digest = hashlib.blake2b(content, digest_size=8).hexdigest()
    assert [path.name for path in tmp_path.glob("*.npy")] == [f"vectors-{digest}.npy"]


def test_damage_is_told_with_the_folder(tmp_path: Path) -> None:
    publish_vectors(tmp_path, some())
    other_format(tmp_path)
    with pytest.raises(CacheError, match="of format 99, this version reads 1") as caught:
        read_vectors(tmp_path)
    assert caught.value.where == str(tmp_path)


def test_a_folder_of_something_else_is_no_index(tmp_path: Path) -> None:
    (tmp_path / "vectors-of-mine.npy").touch()
    with pytest.raises(CacheError, match="something else than an index: vectors-of-mine"):
        read_vectors(tmp_path)
    publish_vectors(tmp_path / "index", some())
    (tmp_path / "index/identity.json").write_text("{")
    (tmp_path / "index/dog.mp4").touch()
    with pytest.raises(CacheError, match="damaged") as told:
        read_vectors(tmp_path / "index")
    assert "delete" not in str(told.value.hint)
