"""Pictures at given seconds: of the right frames, wherever in the video, and of what is damaged as far as it goes."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from teachclip.errors import DataError
from teachclip.stages.demo.write_h264 import write_h264
from teachclip.stages.search.serving.pictures import picture, strip

RATE = 5


def grey(second: float) -> int:
    return 10 + 7 * int(second)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 seconds, each of another grey; a key frame every 12 s."""
    frames = np.zeros((30 * RATE, 48, 64, 3), np.uint8)
    for k in range(len(frames)):
        frames[k] = grey(k / RATE)
    path = tmp_path_factory.mktemp("clip") / "greys.mp4"
    write_h264(path, frames, fps=RATE)
    return path


def greys(image: bytes, cells: int) -> list[float]:
    found = np.asarray(Image.open(io.BytesIO(image)).convert("L"))
    width = found.shape[1] // cells
    return [float(found[8:-8, k * width + 8 : (k + 1) * width - 8].mean()) for k in range(cells)]


@pytest.mark.parametrize("seconds", [(0.4,), (0.4, 5.4, 29.4), (13.4, 20.4), (25.4, 26.4, 27.4, 28.4), (29.4, 99.0)])
def test_each_second_shows_its_own_frame(clip: Path, seconds: Sequence[float]) -> None:
    wanted = [grey(min(second, 29.9)) for second in seconds]
    assert greys(strip(str(clip), seconds, 48), len(seconds)) == pytest.approx(wanted, abs=3)
    assert greys(picture(str(clip), seconds[0], 48), 1) == pytest.approx(wanted[:1], abs=3)


def test_what_is_no_video_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match="cannot be shown"):
        picture(str(broken), 0.0, 48)
    with pytest.raises(DataError, match="cannot be shown"):
        picture(str(tmp_path / "nothing.mp4"), 0.0, 48)


def test_very_wide_pictures_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "wide.mp4"
    write_h264(path, np.full((3, 16, 640, 3), 99, np.uint8), fps=1)
    assert Image.open(io.BytesIO(picture(str(path), 0.0, 48))).size == (192, 48)
