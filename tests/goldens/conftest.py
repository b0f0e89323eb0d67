"""Finds the golden numbers, by prefix, in the folder TEACHCLIP_GOLDENS names, else in the copy beside this file.

`@pytest.mark.golden("student_afa")` runs a test once per file with that prefix, or with one of several, as the argument
`golden`; `having="in/video"` takes only files with that key. Shapes and settings come from each file.
`golden_files("frames", ".json")` lists files. No such file: the test skips.
"""

import json
import os
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(os.environ.get("TEACHCLIP_GOLDENS", Path(__file__).parent / "data"))


class Golden:
    """One .npz of golden numbers: arrays by key, and its settings."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._arrays = np.load(path, allow_pickle=False)

    def close(self) -> None:
        self._arrays.close()

    def __getitem__(self, key: str) -> Any:
        return self._arrays[key]

    def __contains__(self, key: str) -> bool:
        return key in self._arrays.files

    @cached_property
    def keys(self) -> list[str]:
        return list(self._arrays.files)

    @cached_property
    def meta(self) -> dict[str, Any]:
        """The settings: `meta` inside the file, or the sidecar of the same name."""
        if "meta" in self:
            return json.loads(bytes(self["meta"]).decode())
        return json.loads(self.path.with_suffix(".json").read_text(encoding="utf-8"))

    def group(self, prefix: str) -> dict[str, Any]:
        """Arrays whose key starts with `prefix`, by the rest of the key."""
        return {key.removeprefix(prefix): self[key] for key in self.keys if key.startswith(prefix)}


def _find(prefix: str, suffix: str = ".npz") -> list[Path]:
    if not FOLDER.is_dir():
        raise pytest.UsageError(f"TEACHCLIP_GOLDENS: no folder {FOLDER}")
    return sorted(FOLDER.glob(f"{prefix}*{suffix}"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "golden(*prefixes, having=KEY): once per golden .npz with such a prefix, as `golden`"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("golden")
    if marker is None:
        return
    having = marker.kwargs.get("having")
    found = dict.fromkeys(path for prefix in marker.args for path in _find(prefix))
    files = [path for path in found if having is None or having in Golden(path)]
    missing = pytest.mark.skip(reason=f"no {' or '.join(f'{prefix}*' for prefix in marker.args)}.npz in {FOLDER}")
    params = [pytest.param(path, id=path.stem) for path in files] or [pytest.param(None, marks=missing, id="absent")]
    metafunc.parametrize("golden", params, indirect=True, scope="module")


@pytest.fixture(scope="module")
def golden(request: pytest.FixtureRequest) -> Iterator[Golden]:
    opened = Golden(request.param)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def goldens() -> Path:
    """The folder of the golden numbers."""
    return FOLDER


@pytest.fixture(scope="session")
def golden_files() -> Callable[..., list[Path]]:
    """`golden_files(prefix, suffix=".npz")`: the files with this prefix; skips the test when there is none."""

    def find(prefix: str, suffix: str = ".npz") -> list[Path]:
        files = _find(prefix, suffix)
        if not files:
            pytest.skip(f"no {prefix}*{suffix} in {FOLDER}")
        return files

    return find
