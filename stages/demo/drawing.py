"""Coloured shapes on a muted background, drawn with smooth edges by their signed distances."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

COLOURS = {
    "red": (216, 48, 48),
    "orange": (245, 136, 32),
    "yellow": (246, 214, 50),
    "green": (52, 168, 83),
    "turquoise": (40, 196, 200),
    "blue": (48, 92, 224),
    "purple": (150, 70, 200),
    "white": (242, 242, 242),
}
OUTLINE = 0.12  # of the radius
BLOCKS = 6  # of the background, per side
NOISE = 5  # grey levels

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Thing:
    """A shape in a picture; x, y and radius as shares of the picture's side."""

    colour: str
    shape: str
    x: float
    y: float
    radius: float


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Distance to the nearest edge of a five-pointed star, by folding the plane into half a point of it."""
    tip, notch = 1.08, 0.47
    angle = np.mod(np.arctan2(u, -v), 2 * np.pi / 5)
    angle = np.minimum(angle, 2 * np.pi / 5 - angle)
    x, y = np.hypot(u, v) * np.cos(angle), np.hypot(u, v) * np.sin(angle)
    edge_x, edge_y = notch * np.cos(np.pi / 5) - tip, notch * np.sin(np.pi / 5)
    distance: np.ndarray = ((x - tip) * edge_y - y * edge_x) / np.hypot(edge_x, edge_y)
    return distance


# Signed distances in units of the radius, negative inside; u to the right, v downwards.
SHAPES: dict[str, Distance] = {
    "circle": lambda u, v: np.hypot(u, v) - 1,
    "square": lambda u, v: np.maximum(abs(u), abs(v)) - 0.85,
    "triangle": lambda u, v: np.maximum(abs(u) * 0.866 - v * 0.5 - 0.5, v - 0.62),
    "star": _star,
    "cross": lambda u, v: np.minimum(
        np.maximum(abs(u) - 1, abs(v) - 0.36), np.maximum(abs(u) - 0.36, abs(v) - 1)
    ),
    "ring": lambda u, v: abs(np.hypot(u, v) - 0.74) - 0.28,
}  # fmt: skip


def background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A muted pattern of blocks, float32 [size, size, 3]."""
    base = rng.uniform(60, 130, 3)
    blocks = base + rng.uniform(-8, 8, (BLOCKS, BLOCKS, 1)) + rng.uniform(-3, 3, (BLOCKS, BLOCKS, 3))
    index = np.arange(size) * BLOCKS // size
    return blocks[index][:, index].astype(np.float32)


def picture(rng: np.random.Generator, things: Sequence[Thing], behind: np.ndarray) -> np.ndarray:
    """`things` painted over a background, with a little noise: uint8 [size, size, 3]."""
    image = behind.copy()
    for thing in things:
        _paint(image, thing)
    image += rng.integers(-NOISE, NOISE + 1, image.shape)
    return image.clip(0, 255).astype(np.uint8)


def _paint(image: np.ndarray, thing: Thing) -> None:
    size = len(image)
    radius, x, y = thing.radius * size, thing.x * size, thing.y * size
    reach = int(radius * 1.15) + 2
    columns = np.arange(max(0, int(x) - reach), min(size, int(x) + reach + 1))
    rows = np.arange(max(0, int(y) - reach), min(size, int(y) + reach + 1))
    if not len(columns) or not len(rows):
        return
    u, v = ((columns + 0.5 - x) / radius)[None], ((rows + 0.5 - y) / radius)[:, None]
    distance = SHAPES[thing.shape](u, v)
    covered = np.clip(0.5 - distance * radius, 0, 1)[..., None]
    inside = np.clip(0.5 - (distance + OUTLINE) * radius, 0, 1)[..., None]
    light = np.clip(1.08 - 0.14 * (v + 1), 0.8, 1.1)[..., None]
    colour = np.array(COLOURS[thing.colour]) * light * (0.55 + 0.45 * inside)
    part = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    part += (colour - part) * covered
