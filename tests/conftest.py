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
