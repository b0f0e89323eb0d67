"""Write frames as a real H.264 clip: what the demo renders and the tests decode."""

from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...cache.storage.publish import publishing


def write_h264(
    path: Path, frames: NDArray[np.uint8], fps: float, *, preset: str = "veryfast", crf: int = 18, keyframes: int = 60
) -> None:
    """Encode `frames` to `path`, complete or not at all (MP4 or MKV by its suffix).

    Args:
        path: the file to write; its suffix names the container.
        frames: uint8 RGB [N, H, W, 3]; H and W even (yuv420p).
        fps: frames per second.
        preset: x264's preset; faster makes bigger files.
        crf: x264's constant rate factor; 18 is visually lossless.
        keyframes: at least one key frame in so many frames, so that decoders can seek.

    Raises:
        ValueError: frames of another shape or type, or of odd sides.
    """
    import av

    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or len(frames) == 0:
        raise ValueError(f"frames must be uint8 [N, H, W, 3], not {frames.dtype} {list(frames.shape)}")
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f"H.264 in yuv420p needs even sides, not {width}x{height}")
    with publishing(path) as temporary, av.open(str(temporary), "w", format=_container(path)) as container:
        # With its macroblock tree x264 gave other bytes from run to run.
        options = {"preset": preset, "crf": str(crf), "threads": "1", "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=options)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, "yuv420p", keyframes
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode())


def _container(path: Path) -> str:
    return {".mkv": "matroska", ".avi": "avi", ".mov": "mov"}.get(path.suffix.lower(), "mp4")
