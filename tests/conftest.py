"""Where the tests find their material."""

import os
import signal
from pathlib import Path

# Before torch is imported, here and in processes that tests start: one thread each, since pytest-xdist keeps the cores
# busy and the last bits of a product depend on the number of threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

# A run in the background (nohup, `&`) ignores these, and the processes that tests stop with them would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

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
