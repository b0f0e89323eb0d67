"""Where the tests find their material."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real clips, annotations and scores; tests that need it skip without it."""
    folder = Path(os.environ.get("TEACHCLIP_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data at {folder}: set TEACHCLIP_SHARED to run this test")
    return folder


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests that need CUDA skip without it, and say so."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs CUDA, which torch does not see here: run `make test-gpu` on a machine with a GPU")
