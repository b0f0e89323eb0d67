"""The published image transform, resize and crop to uint8 (specs/teachclip.md section 6), and open_clip's others."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ....configs.schema.prepare import Interpolation, ResizeMode

WIDEST = 64  # the resized image has at most this many times the pixels that are kept
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def resize_crop(
    rgb: NDArray[np.uint8], size: int, mode: ResizeMode = "shortest", interpolation: Interpolation = "bicubic"
) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] -> [size, size, 3], by PIL, antialiased: the shortest side to `size`, then the centre; or both
    sides (squash); or the longest, in the middle of black.

    Raises:
        ValueError: an image more than 64 times as long as wide, of which the centre is wanted.
    """
    height, width = rgb.shape[:2]
    image, filter = Image.fromarray(rgb), _FILTERS[interpolation]
    if mode == "squash":
        return np.asarray(image.resize((size, size), filter)) if image.size != (size, size) else rgb
    if mode == "longest":
        return _padded(image, size, filter)
    short, long = min(height, width), max(height, width)
    if long > WIDEST * short:
        raise ValueError(f"frames of {width}x{height} pixels")
    across = int(size * long / short)
    new_width, new_height = (size, across) if width <= height else (across, size)
    if (new_width, new_height) != image.size:
        image = image.resize((new_width, new_height), filter)
    left, top = round((new_width - size) / 2), round((new_height - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def _padded(image: Image.Image, size: int, filter: Image.Resampling) -> NDArray[np.uint8]:
    ratio = max(image.size) / size
    width, height = (max(1, round(side / ratio)) for side in image.size)
    kept = np.asarray(image if (width, height) == image.size else image.resize((width, height), filter))
    padded = np.zeros((size, size, 3), np.uint8)
    left, top = (size - width) // 2, (size - height) // 2
    padded[top : top + height, left : left + width] = kept
    return padded
