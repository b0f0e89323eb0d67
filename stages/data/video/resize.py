"""The published image transform: resize and crop to uint8 (specs/teachclip.md section 6)."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    pass


WIDEST = 64  # the resized image has at most this many times the pixels that are kept


def resize_crop(rgb: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Short side to `size` (PIL bicubic, antialiased), then the centre: uint8 [H, W, 3] -> [size, size, 3].

    Raises:
        ValueError: an image more than 64 times as long as wide.
    """
    height, width = rgb.shape[:2]
    short, long = min(height, width), max(height, width)
    if long > WIDEST * short:
        raise ValueError(f"frames of {width}x{height} pixels")
    across = int(size * long / short)
    new_width, new_height = (size, across) if width <= height else (across, size)
    image = Image.fromarray(rgb)
    if (new_width, new_height) != image.size:
        image = image.resize((new_width, new_height), Image.Resampling.BICUBIC)
    left, top = round((new_width - size) / 2), round((new_height - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)))
