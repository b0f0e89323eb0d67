"""Pictures as they are to be shown: turned and mirrored as the container's display matrix says."""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray


def turn_of(frame: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """How a picture is to be turned and mirrored, to the nearest right angle: (a, b), (c, d) is the display matrix,
    which shows what is at (x, y) at (a x + c y, b x + d y)."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return (1, 0), (0, 1)
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data))
    if a * d == b * c:  # nothing could be seen
        return (1, 0), (0, 1)
    if abs(a) >= abs(b):
        return (_sign(a), 0), (0, _sign(d))
    return (0, _sign(b)), (_sign(c), 0)


def _sign(value: int) -> int:
    return 1 if value > 0 else -1


def rgb(frame: Any) -> NDArray[np.uint8]:
    image: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    (a, b), (c, d) = turn_of(frame)
    if not a:
        image = image.swapaxes(0, 1)
    return np.ascontiguousarray(image[:: b + d, :: a + c])
