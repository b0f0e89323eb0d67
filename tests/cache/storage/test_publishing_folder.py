"""A folder that is complete or absent."""

from contextlib import suppress
from pathlib import Path

import pytest
from teachclip.cache.storage.publish import publishing_folder


def test_a_folder_comes_whole(tmp_path: Path) -> None:
    with publishing_folder(tmp_path / "deep" / "out") as making:
        (making / "file").write_text("new")
        assert not (tmp_path / "deep" / "out").exists()
    assert (tmp_path / "deep/out/file").read_text() == "new"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


def test_it_takes_the_place_of_another(tmp_path: Path) -> None:
    (tmp_path / "out/inner").mkdir(parents=True)
    with publishing_folder(tmp_path / "out") as making:
        (making / "file").write_text("new")
        assert (tmp_path / "out/inner").is_dir()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "file"]


@pytest.mark.parametrize("there", [True, False])
def test_a_failure_leaves_what_was_there(tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "out").mkdir()
    with suppress(ValueError), publishing_folder(tmp_path / "out") as making:
        (making / "file").write_text("half")
        raise ValueError
    assert [path.name for path in tmp_path.rglob("*")] == ["out"] * there
